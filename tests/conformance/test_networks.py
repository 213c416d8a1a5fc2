"""Every network: sizes, determinism, gradients, heads, export, documentation."""

import pytest
import torch

from warpwise.networks import NETWORKS
from warpwise.networks.base import NetworkSettings, initialise
from warpwise.networks.model import flops, size

SMALL = {
    "voxelmorph": {"encoder": (4, 6, 6, 6), "decoder": (6, 6, 6)},
    "vm-diff": {"encoder": (4, 6, 6, 6), "decoder": (6, 6, 6)},
    "transmorph": {"width": 8, "stages": 2, "heads": 2, "decoder": (8, 8)},
    "pyramid": {"features": (4, 6, 8), "hidden": 6, "iterations": (1, 2, 2)},
    "symmetric": {"features": (4, 6, 8), "hidden": 6, "iterations": (1, 2, 2)},
}
# Networks whose uncertainty is that of features, not of a velocity.
FEATURES = ("features", "cascade")
SMALL |= {
    "features": {"widths": (4, 6, 8), "features": 3, "finest": 0, "stages": (1, 2, 2)},
    "cascade": {"widths": (4, 6, 8), "features": 3, "matching": (6, 6), "context": (6, 6)},
}
every = pytest.mark.parametrize("name", list(NETWORKS))
shapes = pytest.mark.parametrize("space", [(23, 18), (13, 18, 15)], ids=["2-D", "3-D"])


def settings(name: str, **changes: object) -> NetworkSettings:
    return NETWORKS[name].parse({**SMALL[name], **changes})


def network(name: str, dim: int, *, seed: int = 0, **changes: object) -> torch.nn.Module:
    return initialise(settings(name, **changes).build(dim=dim, channels=1), torch.Generator().manual_seed(seed))


def pair(space: tuple[int, ...], batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(len(space))
    return torch.rand(batch, 1, *space, generator=generator), torch.rand(batch, 1, *space, generator=generator)


def loud(net: torch.nn.Module, factor: float = 3e3) -> torch.nn.Module:
    """Heads begin near zero: make them move by voxels."""
    from warpwise.networks.heads import Head

    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, Head):
                module.conv.weight.mul_(factor)
    return net


@every
@shapes
def test_a_displacement_for_every_voxel_of_images_of_any_size_near_the_identity_at_first(name, space):
    fixed, moving = pair(space)
    found = network(name, len(space))(fixed, moving)["displacement"].detach()
    assert found.shape == (2, len(space), *space)
    # a solver registers whatever features there are, trained or not
    assert 0 < float(found.abs().max()) < (8 if name == "features" else 0.1)


@shapes
@pytest.mark.parametrize(
    "changes", [{}, {"uncertainty": False}, {"encoder": "intensity"}], ids=["kl", "means", "intensity"]
)
def test_features_of_one_image_stay_where_they_are(changes, space):
    image, _ = pair(space)
    found = network("features", len(space), **changes)(image, image)["displacement"].detach()
    assert float(found.abs().max()) < 1e-5  # voxels: float32 sampling at the border


@every
@shapes
def test_same_generator_same_weights_and_every_weight_gets_a_gradient(name, space):
    a, b = network(name, len(space), seed=3), network(name, len(space), seed=3)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    fixed, moving = pair(space)
    found = loud(a)(fixed, moving)
    loss = sum((value**2).mean() for value in found.values())
    loss.backward()
    silent = [n for n, p in a.named_parameters() if p.grad is None or not bool(p.grad.abs().max() > 0)]
    assert silent == []


@every
@shapes
def test_pairs_of_a_batch_do_not_see_each_other(name, space):
    net = loud(network(name, len(space)))
    fixed, moving = pair(space)
    together = net(fixed, moving)["displacement"].detach()
    alone = net(fixed[1:], moving[1:])["displacement"].detach()
    # float32 sums of a batch of two and of one may be ordered differently
    assert float((together[1:] - alone).abs().max()) < 2e-3 * float(alone.abs().max().clamp(min=1))


@pytest.mark.parametrize("name", [n for n in NETWORKS if n not in FEATURES])
@shapes
def test_the_uncertainty_head_gives_a_posterior_that_is_sampled_with_a_generator_only(name, space):
    net = network(name, len(space), uncertainty=True)
    fixed, moving = pair(space, batch=1)
    first, again = net(fixed, moving), net(fixed, moving)
    assert {"mean", "log_variance"} <= set(first)
    assert torch.equal(first["displacement"], again["displacement"])
    one, two, other = (net(fixed, moving, torch.Generator().manual_seed(s))["displacement"].detach() for s in (1, 1, 2))
    assert torch.equal(one, two)
    assert float((one - other).abs().max()) > 1e-4


@pytest.mark.parametrize("name", FEATURES)
@shapes
def test_features_have_means_and_variances_and_are_drawn_with_a_generator_where_that_is_wanted(name, space):
    fixed, moving = pair(space, batch=1)
    octave = settings(name).finest  # type: ignore[attr-defined]
    for changes, channels in (({}, 6), ({"uncertainty": False}, 3)):
        found = network(name, len(space), **changes)(fixed, moving)
        assert found[f"fixed_features_{octave}"].shape[:2] == (1, channels)
        assert ("features_have_variance" in found) == (channels == 6)
    for sampled in (False, True):
        net = loud(network(name, len(space), sampled=sampled))
        runs = [net(fixed, moving, torch.Generator().manual_seed(s))["displacement"].detach() for s in (1, 1, 2)]
        assert torch.equal(runs[0], runs[1])
        assert torch.equal(runs[0], runs[2]) != sampled


@every
@shapes
def test_the_label_head_gives_logits_of_the_fixed_image(name, space):
    fixed, moving = pair(space)
    found = network(name, len(space), labels=3)(fixed, moving)["labels"]
    assert found.shape == (2, 4, *space)


@every
@shapes
def test_an_exported_program_gives_what_the_network_gives(name, space):
    net = loud(network(name, len(space)), 3e2).eval()
    images = pair(space, batch=1)
    program = torch.export.export(net, images)
    with torch.no_grad():
        expected, found = net(*images), program.module()(*images)
    assert set(found) == set(expected)
    # kernels against the reference that is exported: float32 sums, and cells on either side of a kink
    assert float((found["displacement"] - expected["displacement"]).abs().max()) < 1e-3
    assert not any("warpwise" in str(node.target) for node in program.graph.nodes)


@every
def test_sizes_are_told_and_settings_are_documented_and_survive_a_round_trip(name):
    net = network(name, 3)
    count, megabytes = size(net)
    assert count == sum(p.numel() for p in net.parameters())
    assert megabytes == pytest.approx(count * 4e-6)
    small, large = flops(net, (16, 16, 16)), flops(net, (32, 32, 32))
    assert 6 < large / small < 10  # eight times the voxels
    assert NETWORKS[name].__doc__
    assert NETWORKS[name].parse(settings(name).model_dump()) == settings(name)


@pytest.mark.parametrize("name", ["pyramid", "symmetric"])
def test_the_pyramids_weigh_a_megabyte_or_so_and_grow_with_their_settings(name):
    default = NETWORKS[name]().build(dim=3, channels=1)
    small = NETWORKS[name].parse({"features": (8, 12, 16), "hidden": 12, "iterations": (1, 1, 1)}).build(dim=3, channels=1)
    assert size(default)[1] < 2.5
    assert 0.1 < size(small)[1] < 0.35
