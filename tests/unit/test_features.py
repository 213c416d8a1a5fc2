"""Learned features: their terms, their certainty, and that they are learned through the solver."""

import numpy as np
import pytest
import torch
from asking import register
from toys import toy_dataset

from warpwise import ops
from warpwise.alignment import Alignment
from warpwise.errors import InputError
from warpwise.image import Image
from warpwise.io.images import read_image
from warpwise.levels.history import history
from warpwise.levels.settings import TrainingSettings
from warpwise.levels.training import Run, train
from warpwise.networks.base import initialise
from warpwise.networks.model import Model, ModelCard
from warpwise.networks.probabilistic import MatchingSettings, nearby
from warpwise.objective import Objective
from warpwise.ops.reference.matching import divergence
from warpwise.prediction import FeatureOctave, Features, Prediction, at_octave
from warpwise.registrars.learned.certainty import certainty, features_of
from warpwise.terms.term import parse_term

SMALL = {"widths": [4, 6, 8], "features": 3, "finest": 0, "stages": [1, 2, 2]}


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_divergence_is_half_of_both_kullback_leibler_divergences():
    one, other = random(1, 2, 3, 4, seed=1), random(1, 2, 3, 4, seed=2)
    (mf, lf), (mw, lw) = one.chunk(2, 1), other.chunk(2, 1)
    p = torch.distributions.Normal(mf, (0.5 * lf).exp())
    q = torch.distributions.Normal(mw, (0.5 * lw).exp())
    expected = 0.5 * (torch.distributions.kl_divergence(p, q) + torch.distributions.kl_divergence(q, p))
    assert torch.allclose(divergence(one, other), expected, atol=1e-5)
    assert torch.allclose(ops.symmetric_kl(one, other), expected.flatten(2).mean(2), atol=1e-5)


@pytest.mark.parametrize("uncertain", [True, False])
def test_the_cost_of_neighbours_is_the_divergence_from_shifted_features(uncertain):
    one, other = random(1, 4, 6, 7, seed=1), random(1, 4, 6, 7, seed=2)

    def apart(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (divergence(a, b) if uncertain else (a - b) ** 2).mean(1)

    cost = nearby(one, other, radius=1, uncertain=uncertain)
    assert cost.shape == (1, 9, 6, 7)
    assert torch.allclose(cost[:, 4], apart(one, other), atol=1e-4)
    # neighbour (+1, 0) is number 7
    assert torch.allclose(cost[:, 7, :-1], apart(one[:, :, :-1], other[:, :, 1:]), atol=1e-4)
    # beyond the border is the border
    assert torch.allclose(cost[:, 7, -1], apart(one[:, :, -1], other[:, :, -1]), atol=1e-4)


def state(fixed: torch.Tensor, moving: torch.Tensor, field: torch.Tensor, *, uncertain: bool = True) -> Alignment:
    features = Features((FeatureOctave(1, fixed, moving),), uncertain)
    images = torch.zeros(1, 1, 8, 8)
    return Alignment(images, images, field, prediction=Prediction(field, features=features))


def term(name: str):
    return Objective.of({name: parse_term(name, {})}).terms[name]


@pytest.mark.parametrize("uncertain", [True, False])
def test_beside_a_single_slice_there_is_no_better_match(uncertain):
    both = torch.randn(2, 1, 4, 6, 5, generator=torch.Generator().manual_seed(0))
    flat = nearby(both[0].unsqueeze(-1), both[1].unsqueeze(-1), radius=1, uncertain=uncertain)[..., 0]
    plane = nearby(both[0], both[1], radius=1, uncertain=uncertain)
    for slice_ in flat.unflatten(1, (9, 3)).unbind(2):
        assert torch.allclose(slice_, plane, atol=1e-5)


def test_feature_match_is_the_likelihood_that_matched_features_are_equal():
    fixed, moving = random(1, 4, 4, 4, seed=1), random(1, 4, 4, 4, seed=2)
    field = torch.zeros(1, 2, 8, 8)
    (mf, lf), (mw, lw) = fixed.chunk(2, 1), moving.chunk(2, 1)
    spread = (lf.exp() + lw.exp()).sqrt()
    expected = -(torch.distributions.Normal(mf, spread).log_prob(mw) + 0.5 * np.log(2 * np.pi)).mean()
    assert float(term("feature-match")(state(fixed, moving, field))) == pytest.approx(float(expected), abs=1e-5)
    plain = float(term("feature-match")(state(fixed, moving, field, uncertain=False)))
    assert plain == pytest.approx(0.5 * float(((fixed - moving) ** 2).mean()), abs=1e-5)


def test_feature_match_warps_the_moving_features_and_leaves_the_displacement_alone():
    wide = random(1, 4, 4, 6, seed=3)
    field = torch.zeros(1, 2, 8, 8, requires_grad=True)
    shifted = field + torch.tensor([0.0, 4.0]).reshape(1, 2, 1, 1)  # voxels of the image: two of the octave
    value = term("feature-match")(state(wide[..., 2:], wide[..., :4], shifted - 0.0))
    assert not value.requires_grad
    assert torch.equal(at_octave(shifted, 1)[0, 1], torch.full((4, 4), 2.0))


def test_feature_prior_is_the_divergence_from_a_standard_normal():
    fixed, moving = random(1, 4, 4, 4, seed=4), random(1, 4, 4, 4, seed=5)
    expected = []
    for features in (fixed, moving):
        mean, log_variance = features.chunk(2, 1)
        q = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
        expected.append(torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).mean())
    found = float(term("feature-prior")(state(fixed, moving, torch.zeros(1, 2, 8, 8))))
    assert found == pytest.approx(float(sum(expected)) / 2, abs=1e-5)
    assert float(term("feature-prior")(state(fixed, moving, torch.zeros(1, 2, 8, 8), uncertain=False))) == 0


@pytest.mark.parametrize("name", ["feature-match", "feature-prior"])
def test_terms_of_features_are_silent_where_there_are_none(name):
    field = torch.zeros(1, 2, 8, 8)
    assert float(term(name)(Alignment(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8), field))) == 0


def test_one_step_of_matching_finds_a_small_shift_where_features_show_it():
    x = torch.arange(40.0)
    image = torch.stack([(x / 4).sin()[:, None] + 0 * x, (x / 5).cos()[None] + 0 * x[:, None]])[None]
    moved = ops.warp(image, torch.full((1, 2, 40, 40), 0.3), interpolation="cubic")
    u = ops.match(image, moved, torch.tensor(0.01), data="means", solves=200)
    assert float((u[..., 5:-5, 5:-5] + 0.3).abs().max()) < 0.03


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_features_that_are_not_finite_do_not_pass_for_a_match(dtype):
    fixed = random(1, 2, 8, 8).to(dtype)
    moving = fixed.clone()
    moving[0, 0, 3, 3] = torch.nan
    assert not bool(torch.isfinite(ops.match(fixed, moving, torch.tensor(1.0, dtype=dtype), data="means")).any())


def test_deviation_is_that_of_a_scalar_gaussian_where_neighbours_do_not_help():
    """With nearly no stiffness, variance is the inverse of the curvature: 2·|slope|² each axis for squared differences."""
    x = torch.arange(24.0)
    ramp = torch.stack([2 * x[:, None] + 0 * x, 3 * x[None] + 0 * x[:, None]])[None]
    generator = torch.Generator().manual_seed(0)
    found = ops.match_deviation(ramp, ramp, torch.tensor(1e-6), generator, data="means", samples=400, solves=60)
    expected = (1 / (2 * 2**2) + 1 / (2 * 3**2)) ** 0.5
    assert float(found[..., 4:-4, 4:-4].mean()) == pytest.approx(expected, rel=0.02)


def test_certainty_is_less_where_nothing_is_to_be_seen():
    net = initialise(MatchingSettings.parse(SMALL).build(dim=2, channels=1), torch.Generator().manual_seed(0))
    image = torch.zeros(1, 1, 48, 48)
    image[..., :24] = ops.gaussian(random(1, 1, 48, 24), sigma_voxels=1.5) * 4
    with torch.no_grad():
        found = certainty(net(image, image))
    assert found is not None
    assert found.features is not None
    assert found.match.shape == (1, 1, 48, 48)
    assert float(found.match[..., 34:-6].mean()) > 1.2 * float(found.match[..., 6:16].mean())


@pytest.mark.parametrize(
    "wrong",
    [{"stages": [1, 1]}, {"finest": 3}, {"diffusion": 0.0}, {"stiffness": 1.0}, {"encoder": "intensity", "labels": 2}],
)
def test_settings_that_do_not_fit_each_other_are_refused(wrong):
    with pytest.raises(InputError):
        MatchingSettings.parse({**SMALL, **wrong})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A probabilistic network after a minute's training on made shapes that it sees through noise."""
    folder = tmp_path_factory.mktemp("features")
    data = toy_dataset(folder / "data", people=6)
    settings = TrainingSettings.parse({
        "network": {"kind": "features", **SMALL, "diffusion": 10.0}, "data": {"dataset": str(data), "alignment": "none"},
        "objective": {"lncc": {"radius": 3}, "diffusion": {"weight": 0.1}, "feature-prior": {"weight": 0.001},
                      "feature-match": {"weight": 0.01}},
        "augmentation": {"judge_clean": True, "noise": 0.1}, "steps": 60, "validate_every": 60,
        "optimizer": {"learning_rate": 0.005},
    })  # fmt: skip
    train(settings, Run(folder / "run"))
    return data, folder / "run"


def test_features_learned_through_the_solver_register_better_than_they_did(trained):
    _, run = trained
    losses = [row["loss"] for row in history(run) if row["kind"] == "train"]
    assert losses[-1] < losses[0] - 0.05
    judged = [row for row in history(run) if row["kind"] == "validation"][-1]
    assert judged["dice"] > judged["dice_before"] + 0.05


def test_registration_by_features_tells_both_uncertainties(trained):
    data, run = trained
    images = [data / "images" / f"{n}.nii.gz" for n in (4, 5)]
    found = register(*images, model=run)
    grid = read_image(images[0]).grid
    for map_ in (found.uncertainty, found.feature_uncertainty):
        assert map_ is not None
        assert map_.grid.same_as(grid)
        assert np.isfinite(map_.data).all()
        assert float(map_.data.min()) > 0
    assert found.certificate.percent_folded == 0
    assert float(found.feature_uncertainty.data.max()) < 3  # of the prior's standard deviation


def test_features_of_an_image_lie_where_the_image_lies(trained):
    data, run = trained
    image, model = read_image(data / "images" / "4.nii.gz"), Model.load(run)
    turned = Image(
        image.data[:, ::-1], image.grid.__class__(image.grid.shape, image.grid.affine @ flip(image)), name="turned"
    )
    one, other = features_of(image, model), features_of(turned, model)
    assert [f.data.shape[0] for f in one] == [6, 6, 6]
    assert one[1].grid.spacing_mm == pytest.approx([2 * s for s in one[0].grid.spacing_mm])
    for a, b in zip(one, other, strict=True):
        assert a.grid.same_as(b.grid)
        assert np.allclose(a.data, b.data, atol=1e-5)
    plain = Model(ModelCard(network="voxelmorph", dim=2, spacing_mm=(1.0, 1.0)), torch.nn.Identity())
    with pytest.raises(InputError, match="learns no features"):
        features_of(image, plain)


def flip(image: Image) -> np.ndarray:
    turn = np.eye(3)
    turn[0, 0], turn[0, 2] = -1, image.grid.shape[0] - 1
    return turn
