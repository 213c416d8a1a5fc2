"""Features and their registration as two levels that take turns, and the variational model they rest on."""

import math
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file
from toys import toy_dataset

from warpwise import ops
from warpwise.alignment import Alignment
from warpwise.errors import InputError, RunError
from warpwise.events import ignore
from warpwise.levels.history import history
from warpwise.levels.settings import TrainingSettings
from warpwise.levels.training import Run, data_of, levels_of, train
from warpwise.networks import parse_network
from warpwise.networks.base import initialise
from warpwise.networks.model import WEIGHTS
from warpwise.networks.probabilistic import drawn, means
from warpwise.prediction import FeatureOctave, Features, Prediction, at_octave
from warpwise.similarity.posterior import told, unlike
from warpwise.terms.term import parse_term

CASCADE = {"kind": "cascade", "widths": [4, 6, 8], "features": 3, "matching": [6, 6], "context": [6, 6], "sampled": True}
MATCHING = {"kind": "features", "widths": [4, 6, 8], "features": 3, "finest": 1, "stages": [1, 1], "sampled": True}


def images(space: tuple[int, ...] = (22, 26)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    both = ops.gaussian(torch.randn(2, 1, *space, generator=generator), sigma_voxels=2.0)
    return both[:1] / both.std(), both[1:] / both.std()


def network(**settings: object) -> torch.nn.Module:
    made = parse_network(settings).build(dim=2, channels=1)
    initialise(made, torch.Generator().manual_seed(1))
    from warpwise.networks.heads import Head

    with torch.no_grad():
        for module in made.modules():  # heads begin near zero: make them move by voxels
            if isinstance(module, Head):
                module.conv.weight.mul_(1e3)
    return made


@pytest.mark.parametrize("kind", [CASCADE, MATCHING], ids=["cascade", "features"])
def test_later_rounds_encode_the_moving_image_where_it_was_moved_to(kind: dict):
    fixed, moving = images()
    once, twice = network(**kind), network(**kind, rounds=2)
    first, second = once(fixed, moving), twice(fixed, moving)
    moved = ops.warp(moving, first.displacement.detach())
    for (_, of_fixed, of_moving), again, own in zip(
        second.features.octaves, twice.encoder(moved), twice.encoder(fixed), strict=True
    ):
        assert torch.allclose(of_moving, again, atol=1e-5)
        assert torch.allclose(of_fixed, own, atol=1e-5)
    assert torch.allclose(second.displacement, ops.compose(first.displacement, second.features.left), atol=1e-5)
    (before,) = second.features.before
    assert torch.allclose(before.left, first.displacement, atol=1e-6)
    assert second.velocity is None
    still = network(**kind, rounds=2, conditioned=False)(fixed, moving)
    for (octave, _, of_moving), (_, _, before) in zip(still.features.octaves, first.features.octaves, strict=True):
        assert torch.allclose(of_moving, ops.warp(before, at_octave(first.displacement, octave)), atol=1e-5)


@pytest.mark.parametrize("kind", [CASCADE, MATCHING], ids=["cascade", "features"])
def test_images_that_are_the_same_are_left_where_they_are(kind: dict):
    fixed, _ = images()
    found = initialise(parse_network({**kind, "rounds": 2}).build(dim=2, channels=1), torch.Generator().manual_seed(1))
    with torch.no_grad():
        prediction = found(fixed, fixed)
    assert float(prediction.displacement.abs().max()) < 0.05  # voxels
    for _, a, b in prediction.features.octaves:
        assert float((a - b).abs().max()) < 1e-3


@pytest.mark.parametrize("kind", [CASCADE, MATCHING], ids=["cascade", "features"])
def test_what_the_images_say_reaches_the_encoder_though_what_conditions_it_is_given(kind: dict):
    fixed, moving = images()
    net = network(**kind, rounds=2)
    for name, tensor in net.named_parameters():
        tensor.requires_grad = name.startswith("encoder.")
    found = net(fixed, moving)
    ops.mse(fixed, ops.warp(moving, found.displacement)).mean().backward()
    gradients = [float(p.grad.abs().max()) for n, p in net.named_parameters() if "down" in n and p.grad is not None]
    assert len(gradients) > 0
    assert min(gradients) > 0


@pytest.mark.parametrize("conditioned", [True, False])
@pytest.mark.parametrize("kind", [CASCADE, MATCHING], ids=["cascade", "features"])
def test_every_round_is_taught_by_what_it_leaves_alone(kind: dict, conditioned: bool):
    """The energy has a gradient by each round's own displacement; none goes through what conditions a later one."""
    fixed, moving = images()
    net = network(**kind, rounds=2, conditioned=conditioned)
    for name, tensor in net.named_parameters():
        tensor.requires_grad = not name.startswith("encoder.")
    found = net(fixed, moving)
    rounds = found.features.rounds
    assert len(rounds) == 2
    energy = parse_term("feature-energy", {})(Alignment(fixed, fixed, found.displacement, prediction=found))
    both = torch.autograd.grad(energy, [one.left for one in rounds], retain_graph=True)
    assert all(float(gradient.abs().max()) > 0 for gradient in both)
    last = parse_term("feature-energy", {})
    alone = found._replace(features=rounds[1]._replace(before=()))
    value = last(Alignment(fixed, fixed, found.displacement, prediction=alone))
    assert torch.autograd.grad(value, rounds[0].left, allow_unused=True, retain_graph=True)[0] is None


def test_fixed_variances_are_those_that_learned_ones_begin_with():
    both = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    told = {}
    for kind in ("fixed", "learned"):
        settings = parse_network({"kind": "cascade", "widths": [4, 8], "features": 3, "variances": kind})
        body = settings.body(dim=2, channels=1)
        for name, weight in body.named_parameters():
            weight.data = torch.full_like(weight, 0.1 if "log_variance" not in name else 0.0)
        told[kind] = [octave.detach() for octave in body.encoder(both)]
    assert all(torch.equal(a, b) for a, b in zip(told["fixed"], told["learned"], strict=True))
    assert float(told["fixed"][0].chunk(2, 1)[1].std()) == 0
    one, other = (network(**CASCADE, variances=kind).state_dict() for kind in ("fixed", "learned"))
    assert set(one) == set(other)
    assert all(torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(InputError, match="uncertainty is off"):
        parse_network({"kind": "cascade", "variances": "fixed", "uncertainty": False})


def test_what_lies_beyond_the_overlap_has_no_energy():
    octave = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    other = octave.clone()
    other[..., 4:] += 1
    field, mask = torch.zeros(1, 2, 8, 8), torch.ones(1, 1, 8, 8)
    mask[..., 4:] = 0
    features = Features((FeatureOctave(0, octave, other),), True)
    found = Prediction(field, features=features)
    blank = torch.zeros(1, 1, 8, 8)
    assert float(parse_term("feature-energy", {})(Alignment(blank, blank, field, prediction=found))) > 0.01
    assert float(parse_term("feature-energy", {})(Alignment(blank, blank, field, mask, prediction=found))) < 1e-6


@pytest.mark.parametrize("data", ["mean", "expected", "symmetric_kl", "overlap"])
def test_energies_of_features_are_what_torch_and_quadrature_say(data: str):
    generator = torch.Generator().manual_seed(2)
    one, other = (torch.randn(1, 2, 3, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    (mf, lf), (mw, lw) = one.chunk(2, 1), other.chunk(2, 1)
    p, q = (torch.distributions.Normal(m, (0.5 * s).exp()) for m, s in ((mf, lf), (mw, lw)))
    x = torch.linspace(-40, 40, 40001, dtype=torch.float64).reshape(-1, 1, 1, 1, 1)
    if data == "mean":
        expected = (p.mean - q.mean) ** 2
    elif data == "expected":
        draws = p.sample((200_000,)) - q.sample((200_000,))
        assert torch.allclose(unlike(one, other, data), (draws**2).mean(0), rtol=0.05)
        expected = (p.mean - q.mean) ** 2 + p.variance + q.variance
    elif data == "symmetric_kl":
        expected = 0.5 * (torch.distributions.kl_divergence(p, q) + torch.distributions.kl_divergence(q, p))
        assert torch.allclose(ops.symmetric_kl(one.float(), other.float()), expected.float().flatten(2).mean(2), atol=1e-4)
    else:
        integral = torch.trapezoid((p.log_prob(x) + q.log_prob(x)).exp(), x.flatten(), dim=0)
        expected = -integral.log() - 0.5 * math.log(2 * math.pi)
    assert torch.allclose(unlike(one, other, data), expected, rtol=1e-4, atol=1e-6)


def test_the_energy_moves_the_displacement_and_features_that_are_constants_stay():
    generator = torch.Generator().manual_seed(3)
    octave = torch.randn(1, 4, 8, 8, generator=generator)
    field = torch.full((1, 2, 8, 8), 0.4, requires_grad=True)
    blank = torch.zeros(1, 1, 8, 8)
    features = Features((FeatureOctave(0, octave, octave.roll(1, 2)),), True)
    for data in ("mean", "expected", "symmetric_kl", "overlap"):
        term = parse_term("feature-energy", {"data": data})
        value = term(Alignment(blank, blank, field, prediction=Prediction(field, features=features)))
        (gradient,) = torch.autograd.grad(value, field)
        assert float(gradient.abs().max()) > 0
    assert float(term(Alignment(blank, blank, field))) == 0
    left = features._replace(left=torch.zeros(1, 2, 8, 8))
    same = parse_term("feature-energy", {"data": "mean"})
    value = same(Alignment(blank, blank, field, prediction=Prediction(field, features=left)))
    assert float(value) == pytest.approx(float(((octave - octave.roll(1, 2))[:, :2] ** 2).mean()), rel=1e-5)


@pytest.mark.parametrize("beta", [1.0, 0.25])
@pytest.mark.parametrize("variance", [0.2, 0.4])
def test_a_linear_encoder_learns_the_posterior_of_the_linear_gaussian_model(beta: float, variance: float):
    """I = a·f + n, n ~ N(0, ς²), f ~ N(0, 1): μ = a·I/(a² + β·ς²), σ² = β·ς²/(a² + β·ς²); at β = 1 the true posterior."""
    a = 1.5
    generator = torch.Generator().manual_seed(4)
    weight, log_variance = (torch.zeros((), requires_grad=True) for _ in range(2))
    optimizer = torch.optim.Adam([weight, log_variance], lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3000)
    prior = parse_term("feature-prior", {})
    blank = torch.zeros(1, 1, 64, 64)
    for _ in range(3000):
        f = torch.randn(1, 1, 64, 64, generator=generator)
        image = a * f + math.sqrt(variance) * torch.randn(1, 1, 64, 64, generator=generator)
        posterior = torch.cat([weight * image, log_variance.expand_as(image)], 1)
        features = Features((FeatureOctave(0, posterior, posterior),), True)
        random = means(drawn(posterior, generator, uncertain=True), uncertain=True)
        likelihood = ((image - a * random) ** 2).mean() / (2 * variance)
        rest = prior(Alignment(blank, blank, torch.zeros(1, 2, 64, 64), prediction=Prediction(blank, features=features)))
        optimizer.zero_grad()
        (likelihood + beta * rest).backward()
        optimizer.step()
        schedule.step()
    assert float(weight.detach()) == pytest.approx(a / (a**2 + beta * variance), rel=0.01)
    assert float(log_variance.detach().exp()) == pytest.approx(beta * variance / (a**2 + beta * variance), rel=0.01)


def settings(folder: Path, **changes: object) -> TrainingSettings:
    content = {
        "network": {**CASCADE, "rounds": 2},
        "data": {"dataset": folder, "alignment": "none"},
        "objective": {"lncc": {"radius": 2}, "feature-prior": {"weight": 1e-3}},
        "registration": {"objective": {"feature-energy": {}, "diffusion": {"weight": 0.1}}},
        "batch": 2, "steps": 6, "validate_every": 3,
    }  # fmt: skip
    return TrainingSettings.parse({**content, **changes})


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_dataset(tmp_path_factory.mktemp("data") / "toy")


def test_each_level_moves_its_own_weights_alone_by_its_own_objective(toy: Path, tmp_path: Path):
    wanted = settings(toy)
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.launch()
    lower, upper = levels_of(fabric, wanted, data_of(wanted, Run(tmp_path), ignore), tmp_path)
    assert set(lower.variables()) | set(upper.variables()) == {n for n, _ in lower.network.named_parameters()}
    assert not set(lower.variables()) & set(upper.variables())
    for level, other in ((lower, upper), (upper, lower)):
        before = {k: v.detach().clone() for k, v in lower.network.named_parameters()}
        told = level.step(0, level.draw(0))
        moved = {k for k, v in lower.network.named_parameters() if not torch.equal(v, before[k])}
        assert moved == set(level.variables())
        assert all(p.requires_grad for p in other.variables().values())
        assert ("feature-energy" in told) == (level is upper)
        assert ("lncc" in told) == (level is lower)
        assert any(name.startswith("kl.") for name in told) == (level is lower)
    assert upper.validate(1) is None


@pytest.mark.parametrize("joint", [False, True])
def test_learning_in_turns_goes_on_to_the_same_bits(toy: Path, tmp_path: Path, joint: bool):
    above = {"objective": {"feature-energy": {}, "diffusion": {"weight": 0.1}}, "joint": joint, "every": 2}
    whole, half = settings(toy, registration=above), settings(toy, registration=above, steps=3)
    train(whole, Run(tmp_path / "whole"))
    cosine = {"schedule": "constant"}
    whole, half = (s.replace(optimizer=s.optimizer.replace(**cosine)) for s in (whole, half))
    above = whole.registration.replace(optimizer=whole.registration.optimizer.replace(**cosine))
    whole, half = (s.replace(registration=above) for s in (whole, half))
    train(whole, Run(tmp_path / "constant"))
    train(half, Run(tmp_path / "parts"))
    train(whole, Run(tmp_path / "parts", resume=True))
    one, other = (load_file(tmp_path / name / "last" / WEIGHTS) for name in ("constant", "parts"))
    assert all(torch.equal(one[k], other[k]) for k in one)
    rows = [row for row in history(tmp_path / "constant") if row["kind"] == "train"]
    assert ("registration/feature-energy" in rows[-1]) == (not joint)
    assert ("feature-energy" in rows[-1]) == joint
    assert {"kl.1.0", "kl.2.2"} <= set(rows[-1])


def test_a_collapse_of_the_features_ends_the_run(toy: Path, tmp_path: Path):
    wanted = settings(
        toy, objective={"feature-prior": {"weight": 10.0}}, steps=400, optimizer={"learning_rate": 0.02, "warmup": 1}
    )
    with pytest.raises(RunError, match="told nothing of the images for 20 steps"):
        train(wanted, Run(tmp_path / "run"))


def test_features_that_are_the_same_everywhere_end_the_run_however_far_they_are_from_the_prior(toy: Path, tmp_path: Path):
    # Jointly, features agree best where they say nothing; their variances stay as they began, half a nat from the prior.
    wanted = settings(
        toy, objective={"feature-prior": {"weight": 1e-6}}, steps=400, optimizer={"learning_rate": 0.02, "warmup": 1}
    )
    above = wanted.registration.replace(joint=True)
    with pytest.raises(RunError, match="the same everywhere"):
        train(wanted.replace(registration=above), Run(tmp_path / "run"))
    last = [row for row in history(tmp_path / "run") if row["kind"] == "train"][-1]
    assert min(value for name, value in last.items() if name.startswith("kl.")) > 0.05


def test_what_a_channel_tells_is_the_information_of_a_gaussian_channel():
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([2.0, 0.5, 0.0])
    mean = 3 + spread[:, None, None] * torch.randn(2, 3, 64, 64, generator=generator)
    log_variance = torch.tensor([0.0, 1.0, 0.5])[:, None, None].expand(2, 3, 64, 64).log1p()
    octave = FeatureOctave(1, *torch.cat([mean, log_variance], 1)[:, None])
    values = told(Features((octave,), uncertain=True))
    wanted = 0.5 * torch.log1p(spread**2 / torch.tensor([1.0, 2.0, 1.5]))
    assert list(values) == ["1.0", "1.1", "1.2"]
    assert torch.stack([*values.values()]).numpy() == pytest.approx(wanted.numpy(), abs=0.02)


def test_a_decoder_learns_to_tell_the_images_from_their_features(toy: Path, tmp_path: Path):
    wanted = settings(
        toy,
        network={**MATCHING, "decoded": True},
        objective={"reconstruction": {}, "feature-prior": {"weight": 1e-3}},
        steps=60,
        validate_every=60,
        optimizer={"learning_rate": 5e-3},
    )
    train(wanted, Run(tmp_path / "run"))
    rows = [row["reconstruction"] for row in history(tmp_path / "run") if row["kind"] == "train"]
    assert rows[-1] < 0.5 * rows[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"network": {"kind": "pyramid"}}, "'pyramid' has no features to register"),
     ({"registration": {"objective": {"lncc": {}}, "joint": True}}, "terms need names of their own"),
     ({"registration": {"optimizer": {"averaging": 0.5}}}, "averaging"),
     ({"registration": {"optimizer": {"schedule": "plateau"}}}, "schedule")],
)  # fmt: skip
def test_levels_that_cannot_be_are_refused(toy: Path, changes: dict, words: str):
    with pytest.raises(InputError, match=words):
        settings(toy, **changes)


def test_intensities_have_no_levels(toy: Path, tmp_path: Path):
    only = {"kind": "features", "encoder": "intensity", "uncertainty": False, "stages": [1, 1], "widths": [4, 6, 8]}
    with pytest.raises(InputError, match="learns features or their registration, not both"):
        train(settings(toy, network=only), Run(tmp_path / "run"))


def test_features_that_are_decoded_are_those_of_the_image_where_it_was_moved_to():
    fixed, moving = images()
    net = network(**MATCHING, rounds=2, decoded=True)
    found = net(fixed, moving).features
    shown = ops.warp(moving, found.before[0].left.detach())
    for round_, second in ((found.before[0], moving), (found, shown)):
        for rest, decode, (_, a, b), image in zip(
            round_.unexplained,
            net.decoder,
            round_.octaves,
            ops.pyramid(torch.cat([fixed, second]), octaves=3)[1:],
            strict=True,
        ):
            said = decode(torch.cat([a, b]).chunk(2, 1)[0])
            assert torch.allclose(rest, said - image, atol=1e-4)
