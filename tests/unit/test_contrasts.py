"""Images of different contrast: curves between them, both directions compared, and what weak evidence comes to."""

import numpy as np
import pytest
import torch

import warpwise as ww
from warpwise import ops
from warpwise.alignment import Alignment
from warpwise.image import Image
from warpwise.methods import Method
from warpwise.pair import Pair
from warpwise.registrars.deformable.contrast import in_both_contrasts
from warpwise.similarity.local import LNCC
from warpwise.similarity.mapping import mapping
from warpwise.synthetic.phantoms import KnownPair, brain_pair
from warpwise.volume import Volume

PD_CURVE = ([0, 0.15, 0.35, 0.55, 0.75, 0.9, 1], [0.9, 0.95, 0.7, 0.62, 0.75, 0.35, 0.25])


@pytest.fixture(scope="module")
def pair() -> KnownPair:
    return brain_pair((64, 76, 60), seed=2)


def smooth(seed: int, shape: tuple[int, int, int] = (24, 26, 22)) -> np.ndarray:
    noise = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(seed))
    image = ops.gaussian(noise, sigma_voxels=1.5)[0, 0].numpy()
    return np.ascontiguousarray(0.1 + 0.9 * (image - image.min()) / (image.max() - image.min()), np.float32)


def recoloured(image: Image, kind: str) -> Image:
    data = image.data.astype(np.float32)
    inside = data > 60
    share = np.clip(data / np.percentile(data[inside], 99.5), 0, 1)
    value = 1.05 - share if kind == "inverted" else np.interp(share, *PD_CURVE)
    return Image(np.where(inside, 1000 * value, 0).astype(np.int16), image.grid, name=kind)


def error(pair: KnownPair, result: ww.Result) -> float:
    away = result.transform.displacement(pair.fixed.grid) - pair.truth.displacement(pair.fixed.grid)
    return float(np.sqrt((away**2).sum(0))[pair.fixed_labels.data[0] > 0].mean())


@pytest.mark.parametrize(
    ("curve", "like"),
    [(lambda x: 1.1 - x, -1.0), (lambda x: 0.3 + 0.6 * x, 1.0), (lambda x: 0.2 + 3 * (x - 0.5) ** 2, None)],
)
def test_a_curve_between_intensities_is_recovered(curve, like):
    fixed = smooth(1)
    learned = mapping(fixed, curve(fixed).astype(np.float32))
    at = learned.intensities
    known = (at > np.percentile(fixed, 5)) & (at < np.percentile(fixed, 95))
    assert learned.to_moving[known] == pytest.approx(curve(at[known]), abs=0.02)
    assert learned.explained[0] > 0.93  # Parzen windows blur a little
    if like is None:
        assert abs(learned.likeness) < 0.5
        assert learned.explained[1] < 0.5  # two intensities of the fixed image have one of the moving
    else:
        assert learned.likeness == pytest.approx(like, abs=0.02)


def test_images_without_relation_explain_nothing():
    learned = mapping(smooth(1), smooth(2))
    assert max(learned.explained) < 0.2
    assert learned.to_moving[20:40] == pytest.approx(np.full(20, smooth(2).mean()), abs=0.15)


def test_solvers_and_tensors_compare_the_same_channels():
    fixed, moving = smooth(1), smooth(2)
    from warpwise.grid import Grid

    grid = Grid(fixed.shape, np.eye(4))
    both = in_both_contrasts(Pair(Volume(fixed[None], grid), Volume(moving[None], grid), np.eye(4)), None, (1, 1, 1))
    gradient = np.empty_like(both.fixed.data)
    value = LNCC().fused(both.fixed.data, None, np.full(2, 0.5, np.float32))(both.moving.data, gradient)
    images = [torch.from_numpy(x)[None, None] for x in (fixed, moving)]
    alignment = Alignment(*images, torch.zeros(1, 3, *fixed.shape))
    assert value == pytest.approx(float(LNCC(mapped=True)(alignment)), abs=1e-4)


def test_the_mapped_term_passes_gradients_through_the_intensities():
    warped = torch.from_numpy(smooth(2)).double()[None, None].requires_grad_()
    fixed = torch.from_numpy(smooth(1)).double()[None, None]
    term = LNCC(mapped=True)
    (gradient,) = torch.autograd.grad(term(Alignment(fixed, warped, torch.zeros(1, 3, *warped.shape[2:]).double())), warped)
    assert bool(torch.isfinite(gradient).all())
    assert float(gradient.abs().max()) > 0


@pytest.mark.parametrize("kind", ["inverted", "PD-like"])
def test_another_contrast_is_registered_nearly_as_well(pair: KnownPair, kind: str):
    unchanged = ww.register(pair.fixed, pair.moving)
    changed = ww.register(pair.fixed, recoloured(pair.moving, kind))
    assert unchanged.choices.similarity == "lncc"
    assert changed.choices.similarity == "lncc in both contrasts"
    assert not changed.choices.cautious
    assert error(pair, changed) < 1.3 * error(pair, unchanged) + 0.1


def test_both_directions_serve_where_one_contrast_does_not_tell_tissues_apart(pair: KnownPair):
    changed = recoloured(pair.fixed, "PD-like")
    linear = error(pair, ww.register(changed, pair.moving, method="affine"))
    assert error(pair, ww.register(changed, pair.moving)) < 0.5 * linear


def unbent(seed: int) -> tuple[Image, Image]:
    """One anatomy in two contrasts of which little is shared, with noise: nothing is to be found."""
    pair = brain_pair((64, 76, 60), seed=seed)
    rng = np.random.default_rng(seed)
    share = np.clip(pair.fixed.data / 1000, 0, 1)
    other = np.interp(share, [0, 0.1, 0.4, 0.7, 1], [0, 0.6, 0.5, 0.65, 0.5])
    noisy = [1000 * (x + 0.08 * rng.normal(size=x.shape)) * (pair.fixed.data > 60) for x in (share, other)]
    images = [Image(np.clip(x, 0, 1500).astype(np.int16), pair.fixed.grid, name="scan") for x in noisy]
    return images[0], images[1]


@pytest.mark.parametrize("seed", [1, 2])
def test_scans_of_one_session_are_left_where_they_are_and_it_is_said(seed: int):
    fixed, moving = unbent(seed)
    result = ww.register(fixed, moving)
    inside = fixed.data[0] > 60
    moved = np.sqrt((result.displacement_mm**2).sum(0))[inside]
    assert (result.choices.cautious, result.choices.evidence < 0.35) == (True, True)
    assert any("little evidence" in words for words in result.warnings)
    assert moved.mean() < 0.5
    assert moved.max() < 3.0
    bold = ww.register(fixed, moving, method=Method.named("balanced").replace(cautious=None))
    assert np.sqrt((bold.displacement_mm**2).sum(0))[inside].mean() > 1.5 * moved.mean()


def test_a_similarity_without_second_derivative_beside_auto_does_not_stop_the_cautious_one():
    fixed, moving = unbent(1)
    method = Method.named("fast").changed({"objective.more": {"term": "mi", "weight": 0.5}})
    assert ww.register(fixed, moving, method=method).choices.cautious


def test_landmarks_are_evidence_of_their_own():
    fixed, moving = unbent(1)
    points = np.array([[0.0, 0, 0], [20, 0, 0], [0, 20, 0], [0, 0, 20]])
    scans = [ww.Scan(image=image, landmarks=points) for image in (fixed, moving)]
    result = ww.register(*scans, method="fast")
    assert (result.choices.cautious, result.choices.guides) == (False, {"landmarks": 1.0})
    assert ww.register(*scans, method="energy").choices.guides == {}
