"""Every network: sizes, determinism, gradients, heads, export, documentation."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils import _pytree

from warpwise import ops
from warpwise.errors import InputError
from warpwise.networks import NETWORKS, parse_network
from warpwise.networks.base import NetworkSettings, initialise, predict, side_by_side
from warpwise.networks.model import CARD, WEIGHTS, Model, ModelCard, flops, read_card, size, write_model
from warpwise.prediction import Prediction
from warpwise.registrars.learned.certainty import deviation
from warpwise.registrars.learned.working import array

SMALL = {
    "voxelmorph": {"encoder": (4, 6, 6, 6), "decoder": (6, 6, 6)},
    "vm-diff": {"encoder": (4, 6, 6, 6), "decoder": (6, 6, 6)},
    "transmorph": {"width": 8, "depths": (2, 2), "heads": (2, 4), "decoder": (8, 8)},
    "pyramid": {"features": (4, 6, 8), "hidden": 6, "iterations": (1, 2, 2)},
    "symmetric": {"features": (4, 6, 8), "hidden": 6, "iterations": (1, 2, 2)},
}
# Networks whose uncertainty is that of features, not of a velocity.
FEATURES = ("features", "cascade")
SMALL |= {
    "features": {"widths": (4, 6, 8), "features": 3, "finest": 0, "stages": (1, 2, 2)},
    "cascade": {"widths": (4, 6, 8), "features": 3, "matching": (6, 6), "context": (6, 6)},
}
SMALL |= {"segmentation": {"widths": (4, 6, 8), "labels": 2}}
every = pytest.mark.parametrize("name", list(NETWORKS))
moves = pytest.mark.parametrize("name", [name for name in NETWORKS if name != "segmentation"])
shapes = pytest.mark.parametrize("space", [(23, 18), (13, 18, 15)], ids=["2-D", "3-D"])


def settings(name: str, **changes: object) -> NetworkSettings:
    return NETWORKS[name].parse({**SMALL[name], **changes})


def network(name: str, dim: int, *, seed: int = 0, **changes: object) -> torch.nn.Module:
    return initialise(settings(name, **changes).build(dim=dim, channels=1), torch.Generator().manual_seed(seed))


def pair(space: tuple[int, ...], batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(len(space))
    return torch.rand(batch, 1, *space, generator=generator), torch.rand(batch, 1, *space, generator=generator)


def leaves(prediction: Prediction) -> list[torch.Tensor]:
    """Every tensor that a network predicts."""
    return [leaf for leaf in _pytree.tree_leaves(prediction) if isinstance(leaf, torch.Tensor)]


def loud(net: torch.nn.Module, factor: float = 3e3) -> torch.nn.Module:
    """Heads begin near zero: make them move by voxels."""
    from warpwise.networks.heads import Head

    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, Head):
                module.conv.weight.mul_(factor)
    return net


@moves
@pytest.mark.parametrize("space", [(23, 18), (13, 18, 15), (13, 18, 2), (13, 18, 1), (1, 13, 18), (8, 8, 8)])
def test_a_displacement_for_every_voxel_of_images_of_any_size_near_the_identity_at_first(name, space):
    fixed, moving = pair(space)
    found = network(name, len(space))(fixed, moving).displacement.detach()
    assert found.shape == (2, len(space), *space)
    # a solver registers whatever features there are, trained or not
    assert 0 < float(found.abs().max()) < (8 if name == "features" else 0.1)


@every
@shapes
def test_where_weights_lie_in_memory_changes_nothing(name, space):
    fixed, moving = pair(space)
    plain, other = (loud(network(name, len(space)), 300) for _ in range(2))
    assert side_by_side(other) is other
    assert any(not w.is_contiguous() for w in other.parameters())
    for one, two in zip(leaves(plain(fixed, moving)), leaves(other(fixed, moving)), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-3)


@shapes
@pytest.mark.parametrize(
    "changes", [{}, {"uncertainty": False}, {"encoder": "intensity"}], ids=["kl", "means", "intensity"]
)
def test_features_of_one_image_stay_where_they_are(changes, space):
    image, _ = pair(space)
    found = network("features", len(space), **changes)(image, image).displacement.detach()
    assert float(found.abs().max()) < 1e-5  # voxels: float32 sampling at the border


@every
@shapes
def test_same_generator_same_weights_and_every_weight_gets_a_gradient(name, space):
    a, b = network(name, len(space), seed=3), network(name, len(space), seed=3)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    fixed, moving = pair(space)
    found = loud(a)(fixed, moving)
    loss = sum((value**2).mean() for value in leaves(found))
    loss.backward()
    silent = [n for n, p in a.named_parameters() if p.grad is None or not bool(p.grad.abs().max() > 0)]
    assert silent == []


@moves
@shapes
def test_pairs_of_a_batch_do_not_see_each_other(name, space):
    net = loud(network(name, len(space)))
    fixed, moving = pair(space)
    together = net(fixed, moving).displacement.detach()
    alone = net(fixed[1:], moving[1:]).displacement.detach()
    # float32 sums of a batch of two and of one may be ordered differently
    assert float((together[1:] - alone).abs().max()) < 2e-3 * float(alone.abs().max().clamp(min=1))


@pytest.mark.parametrize("name", [n for n in NETWORKS if n not in (*FEATURES, "segmentation")])
@shapes
def test_the_uncertainty_head_gives_a_posterior_that_is_sampled_with_a_generator_only(name, space):
    net = network(name, len(space), uncertainty=True)
    fixed, moving = pair(space, batch=1)
    first, again = net(fixed, moving), net(fixed, moving)
    assert first.posterior is not None
    assert first.posterior.mean.shape == first.posterior.log_variance.shape
    assert torch.equal(first.displacement, again.displacement)
    one, two, other = (net(fixed, moving, torch.Generator().manual_seed(s)).displacement.detach() for s in (1, 1, 2))
    assert torch.equal(one, two)
    assert float((one - other).abs().max()) > 1e-4


@pytest.mark.parametrize("name", FEATURES)
@shapes
def test_features_have_means_and_variances_and_are_drawn_with_a_generator_where_that_is_wanted(name, space):
    fixed, moving = pair(space, batch=1)
    octave = settings(name).finest  # type: ignore[attr-defined]
    for changes, channels in (({}, 6), ({"uncertainty": False}, 3)):
        found = network(name, len(space), **changes)(fixed, moving)
        assert found.features.octaves[0].octave == octave
        assert found.features.octaves[0].fixed.shape[:2] == (1, channels)
        assert found.features.uncertain == (channels == 6)
    for sampled in (False, True):
        net = loud(network(name, len(space), sampled=sampled))
        runs = [net(fixed, moving, torch.Generator().manual_seed(s)).displacement.detach() for s in (1, 1, 2)]
        assert torch.equal(runs[0], runs[1])
        assert torch.equal(runs[0], runs[2]) != sampled


@every
@shapes
def test_the_label_head_gives_logits_of_the_fixed_image(name, space):
    fixed, moving = pair(space)
    headed = network(name, len(space), labels=3)
    assert headed(fixed, moving).labels.shape == (2, 4, *space)
    if name == "segmentation":  # which is nothing without
        assert not headed(fixed, moving).displacement.any()
        return
    bare = network(name, len(space))
    assert bare(fixed, moving).labels is None
    # heads come after the body, which is drawn and named as it is alone
    inside = {k.removeprefix("body."): v for k, v in headed.state_dict().items() if k.startswith("body.")}
    assert [*inside] == [*bare.state_dict()]
    assert all(torch.equal(inside[k], v) for k, v in bare.state_dict().items())


@every
@shapes
def test_an_exported_program_gives_what_the_network_gives(name, space, tmp_path):
    net = loud(network(name, len(space)), 3e2).eval()
    images = pair(space, batch=1)
    program = torch.export.export(net, images)
    with torch.no_grad():
        expected, found = net(*images), program.module()(*images)
    assert isinstance(found, Prediction)
    assert _pytree.tree_structure(found) == _pytree.tree_structure(expected)
    # kernels against the reference that is exported: float32 sums, and cells on either side of a kink
    assert float((found.displacement - expected.displacement).abs().max()) < 1e-3
    assert not any("warpwise" in str(node.target) for node in program.graph.nodes)
    torch.export.save(program, tmp_path / "network.pt2")
    with torch.no_grad():
        again = torch.export.load(tmp_path / "network.pt2").module()(*images)
    assert torch.equal(again.displacement, found.displacement)


@every
def test_sizes_are_told_and_settings_are_documented_and_survive_a_round_trip(name):
    net = network(name, 3)
    count, megabytes = size(net)
    assert count == sum(p.numel() for p in net.parameters())
    assert megabytes == pytest.approx(count * 4e-6)
    small, large = flops(net, (16, 16, 16)), flops(net, (32, 32, 32))
    assert 6 < large / small < 10  # eight times the voxels
    assert NETWORKS[name].__doc__
    assert parse_network(settings(name).model_dump()) == settings(name)
    assert parse_network({"kind": name, **SMALL[name]}) == settings(name)
    assert parse_network(name) == NETWORKS[name]()


@pytest.mark.parametrize(
    ("given", "words"),
    [("piramid", "Did you mean 'pyramid'"), ({"kind": "pyramid", "hiden": 3}, "Did you mean 'hidden'"),
     ({"hidden": 3}, "named by its kind"), ({"kind": 3}, "named by its kind"), (None, "named by its kind")],
)  # fmt: skip
def test_settings_of_no_network_are_refused(given, words):
    with pytest.raises(InputError, match=words):
        parse_network(given)


@moves
def test_a_loss_has_the_same_gradient_by_given_weights_as_by_the_networks_own(name):
    net = loud(network(name, 2))
    fixed, moving = pair((13, 18), batch=1)

    def loss(prediction: Prediction) -> torch.Tensor:
        return (prediction.displacement**2).mean()

    named = dict(net.named_parameters())
    # a posterior's variance, drawn from only with a generator, leaves the displacement alone
    own = torch.autograd.grad(loss(net(fixed, moving)), [*named.values()], allow_unused=True)
    weights = {k: v.detach().clone().requires_grad_() for k, v in named.items()}
    given = torch.autograd.grad(loss(predict(net, weights, fixed, moving)), [*weights.values()], allow_unused=True)
    for a, b in zip(own, given, strict=True):
        assert a is b is None or torch.equal(a, b)
    moved = predict(net, {k: v + 0.01 for k, v in weights.items()}, fixed, moving)
    assert not torch.equal(moved.displacement, net(fixed, moving).displacement)


@pytest.mark.parametrize("name", ["voxelmorph", "vm-diff", "transmorph", "pyramid", "symmetric"])
def test_deviation_is_that_of_the_networks_own_draws(name):
    net = loud(network(name, 3, uncertainty=True)).eval()
    fixed, moving = pair((13, 18, 15), batch=1)
    model = Model(ModelCard(network=settings(name, uncertainty=True), dim=3, spacing_mm=(1.0, 1.0, 1.0)), net)
    voxel_mm = np.array([1.0, 2.0, 0.5])
    found = deviation(model, fixed, moving, model(fixed, moving), voxel_mm=voxel_mm, samples=4)
    generator = torch.Generator().manual_seed(0)
    drawn = [array(model(fixed, moving, generator).displacement[0]) for _ in range(4)]
    mm = np.stack(drawn).astype(np.float64) * voxel_mm[:, None, None, None]
    assert float(found.max()) > 0
    # float32 means of squares
    assert np.allclose(found[0], np.sqrt(mm.var(0).sum(0)), rtol=1e-3, atol=1e-4)


def test_a_card_of_format_1_and_its_weights_are_read_as_what_they_became(tmp_path: Path):
    """Then a network's name stood beside its options, a weight of diffusion was called stiffness, and the head of labels
    lay inside the network."""
    net = network("features", 2, labels=2)
    card = ModelCard(network=settings("features", labels=2, diffusion=3.0), dim=2, spacing_mm=(1.0, 1.0))
    write_model(tmp_path, card, net.state_dict())
    assert read_card(tmp_path / CARD) == card
    content = json.loads((tmp_path / CARD).read_text())
    options = {("stiffness" if k == "diffusion" else k): v for k, v in content.pop("network").items() if k != "kind"}
    (tmp_path / CARD).write_text(json.dumps({**content, "format": 1, "network": "features", "options": options}))
    weights = {k.removeprefix("body.").removeprefix("heads."): v for k, v in load_file(tmp_path / WEIGHTS).items()}
    save_file(weights, tmp_path / WEIGHTS)
    model = Model.load(tmp_path)
    assert model.card == card
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in model.network.state_dict().items())


def test_the_installed_model_is_written_in_the_present_format(tmp_path: Path):
    model = Model.load("synthetic")
    assert model.path is not None
    content = json.loads((model.path / CARD).read_text())
    assert content["format"] == 2
    assert content == model.card.model_dump(mode="json")
    old = {**content, "format": 1, "network": "pyramid", "options": {}}
    shutil.copytree(model.path, tmp_path / "old")
    (tmp_path / "old" / CARD).write_text(json.dumps(old))
    assert Model.load(tmp_path / "old").card == model.card


FULL = {  # of each network whose last update can lie on every voxel
    "voxelmorph": {"decoder": (6, 6, 6, 4)},
    "vm-diff": {"decoder": (6, 6, 6, 4)},
    "transmorph": {"decoder": (8, 8, 6)},
    "pyramid": {},
    "symmetric": {},
    "features": {},
    "cascade": {},
}


@moves
@shapes
def test_an_update_may_lie_on_every_voxel(name, space):
    fixed, moving = pair(space)
    net = loud(network(name, len(space), **FULL[name], finest=0, fluid=1.0)).eval()
    found = net(fixed, moving)
    assert found.displacement.shape == (2, len(space), *space)
    sum((value**2).mean() for value in leaves(found)).backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not bool(p.grad.abs().max() > 0)] == []
    if found.velocity is not None:
        assert found.velocity.shape == found.displacement.shape


def roughness(field: torch.Tensor) -> float:
    """Mean squared second over first differences: of white noise 3."""
    second, first = (sum(float((field.diff(n=n, dim=d) ** 2).mean()) for d in range(2, field.dim())) for n in (2, 1))
    return second / first


@moves
@shapes
def test_smoothed_updates_are_those_under_a_gaussian_and_make_smoother_fields(name, space):
    images = pair(space)
    rough, smooth = (
        loud(network(name, len(space), **FULL[name], finest=0, fluid=fluid)).eval()(*images) for fluid in (0.0, 1.0)
    )
    if name in ("voxelmorph", "vm-diff", "transmorph"):
        expected = ops.gaussian(rough.velocity.detach(), sigma_voxels=1.0)
        assert float((smooth.velocity.detach() - expected).abs().max()) < 1e-5 * float(expected.abs().max())
    assert roughness(smooth.displacement.detach()) < 0.9 * roughness(rough.displacement.detach())


@pytest.mark.parametrize(
    ("given", "words"),
    [({"kind": "pyramid", "features": [4, 6], "iterations": [1]}, "1 iterations for features at 2 scales"),
     ({"kind": "pyramid", "features": [4, 6], "iterations": [1, 1], "hidden": [3]}, "1 hidden for features"),
     ({"kind": "voxelmorph", "decoder": [4, 4]}, "2 decoder stages, where 3 lead back to octave 1"),
     ({"kind": "transmorph", "heads": [4, 4]}, "2 heads for 3 stages"),
     ({"kind": "transmorph", "finest": 0}, "3 decoder stages, where 4 lead back to octave 0"),
     ({"kind": "pyramid", "finest": 2}, "finest"), ({"kind": "pyramid", "fluid": -1}, "fluid")],
)  # fmt: skip
def test_sizes_that_do_not_fit_each_other_are_refused(given, words):
    with pytest.raises(InputError, match=words):
        parse_network(given)


def test_published_sizes_give_the_published_numbers_of_weights():
    from yaml import safe_load

    published = safe_load((Path(__file__).parents[2] / "benchmarks/learning/published.yaml").read_text())
    # the VoxelMorph code's own count; Chen et al., MedIA 2022, table of sizes
    for name, count, within in (("voxelmorph", 327_331, 0), ("transmorph", 46.77e6, 0.01)):
        found, _ = size(parse_network(published[name]).build(dim=3, channels=1))
        assert abs(found - count) <= within * count, name


@pytest.mark.parametrize("name", ["pyramid", "symmetric"])
def test_the_pyramids_weigh_a_megabyte_or_so_and_grow_with_their_settings(name):
    default = NETWORKS[name]().build(dim=3, channels=1)
    small = NETWORKS[name].parse({"features": (8, 12, 16), "hidden": 12, "iterations": (1, 1, 1)}).build(dim=3, channels=1)
    assert size(default)[1] < 2.5
    assert 0.1 < size(small)[1] < 0.35
