"""Every registrar on synthetic pairs with known truth: better, without folds, invertible, repeatable."""

import numpy as np
import pytest
from asking import method_of, prepared, register

import warpwise as ww
from warpwise.errors import InputError
from warpwise.evaluation.metrics import dice
from warpwise.grid import Grid
from warpwise.image import Image
from warpwise.ops.runtime import get_threads
from warpwise.registrars.deformable import MOTIONS
from warpwise.resampling import resample
from warpwise.synthetic.deformations import random_deformation
from warpwise.synthetic.phantoms import KnownPair, brain_pair
from warpwise.transforms.affine import Affine

registrars = pytest.mark.parametrize("name", list(MOTIONS))


@pytest.fixture(scope="module")
def pair() -> KnownPair:
    return brain_pair((64, 76, 60), seed=3)


@pytest.fixture(scope="module")
def plane(pair: KnownPair) -> tuple[Image, Image]:
    """A slice of the fixed brain, and the same slice moved by a known affine."""
    cut = np.ascontiguousarray(pair.fixed.data[:, :, :, 30])
    grid = Grid(cut.shape[1:], np.diag([2.5, 2.5, 1.0]))
    fixed = Image(cut, grid)
    angle = np.deg2rad(12)
    matrix = np.array([[np.cos(angle), -np.sin(angle), 20.0], [np.sin(angle), np.cos(angle), -9.0], [0, 0, 1]])
    return fixed, resample(fixed, grid, Affine(matrix))


def endpoint_error(pair: KnownPair, result: ww.Result) -> float:
    truth = pair.truth.displacement(pair.fixed.grid)
    miss = (result.displacement_mm - truth)[:, pair.body] / np.array(pair.fixed.grid.spacing_mm)[:, None]
    return float(np.linalg.norm(miss, axis=0).mean())


@registrars
def test_the_known_deformation_is_recovered(name: str, pair: KnownPair):
    result = register(pair.fixed, pair.moving, transform=name)
    linear = register(pair.fixed, pair.moving, transform="affine")
    assert endpoint_error(pair, result) < 0.6
    assert endpoint_error(pair, result) < 0.6 * endpoint_error(pair, linear)
    moved = resample(pair.moving_labels, pair.fixed.grid, result.transform, interpolation="label")
    assert np.mean([*dice(pair.fixed_labels.data[0], moved.data[0]).values()]) > 0.9


@registrars
def test_what_is_delivered_is_certified(name: str, pair: KnownPair):
    result = register(pair.fixed, pair.moving, transform=name, preset="fast")
    found = result.certificate
    assert (found.percent_folded, found.percent_ndv) == (0, 0)
    assert found.forward_inverse_mean <= 0.01
    assert found.inverse_forward_mean <= 0.01
    assert max(found.forward_inverse_max, found.inverse_forward_max) <= 0.1
    # The certificate's numbers are those of the transform itself.
    points = np.argwhere(pair.body)[::997] @ pair.fixed.grid.affine[:3, :3].T + pair.fixed.grid.affine[:3, 3]
    back = result.inverse.points(result.transform.points(points))
    assert np.abs(back - points).max() < 0.1 * min(pair.fixed.grid.spacing_mm)
    again = resample(pair.moving, pair.fixed.grid, result.transform)
    assert np.abs(again.data - result.warped.data).max() < 0.01 * float(pair.moving.data.max())
    assert result.history[-1].stage == name
    assert set(result.stops) == {"affine", name}
    # The phantom has voxels of 2.5 mm: scales for finer images alone are left out.
    assert len(result.stops[name]) == sum(scale.largest_mm is None for scale in result.method.registrar.scales)
    assert (result.velocity is None) == (name == "greedy")


@registrars
def test_a_plane_is_registered_as_a_plane(name: str, plane: tuple[Image, Image]):
    fixed, moving = plane
    result = register(fixed, moving, transform=name, preset="fast")
    assert result.warped.grid.shape == fixed.grid.shape
    assert result.displacement_mm.shape == (2, *fixed.grid.shape)
    before = np.corrcoef(fixed.data.ravel(), moving.data.ravel())[0, 1]
    after = np.corrcoef(fixed.data.ravel(), result.warped.data.ravel())[0, 1]
    assert after > 0.97 > before
    assert (result.certificate.percent_folded, result.certificate.percent_ndv) == (0, 0)


@registrars
def test_the_answer_does_not_depend_on_threads_or_repeats(name: str, pair: KnownPair):
    fields, before = [], get_threads()
    try:
        for threads in (2, 1, 2):
            ww.set_threads(threads)
            fields.append(register(pair.fixed, pair.moving, transform=name, preset="fast").displacement_mm)
    finally:
        ww.set_threads(before)
    assert np.array_equal(fields[0], fields[1])
    assert np.array_equal(fields[0], fields[2])


def test_exchanging_the_images_turns_the_symmetric_velocity_round(pair: KnownPair):
    bend = random_deformation(pair.fixed.grid, np.random.default_rng(0), sigma_mm=20, amplitude_mm=3)
    bent = resample(pair.fixed, pair.fixed.grid, bend)
    method = method_of("fast", transform="symmetric")
    solver = method.replace(registrar=method.registrar.replace(scales=method.registrar.scales[1:2])).build()
    there = prepared(pair.fixed, bent)
    back = prepared(bent, pair.fixed)
    one, other = solver.solve(there).velocity, solver.solve(back).velocity
    length = np.linalg.norm(one, axis=0).mean()
    assert length > 0.1
    # Equal but for rounding, which the boxes cut round each image and the steps' lengths can carry on.
    assert np.linalg.norm(one + other, axis=0).mean() < 0.05 * length


def test_identical_images_stay_where_they_are(pair: KnownPair):
    result = register(pair.fixed, pair.fixed)
    assert np.abs(result.displacement_mm).max() < 1e-3 * min(pair.fixed.grid.spacing_mm)
    assert result.warnings == ()


def test_the_answer_in_mm_does_not_depend_on_how_an_image_is_stored(pair: KnownPair):
    plain = register(pair.fixed, pair.moving, transform="affine").affine_only
    data = np.ascontiguousarray(pair.moving.data.transpose(0, 2, 3, 1)[:, ::-1])
    axes = np.zeros((4, 4))
    axes[[1, 2, 0, 3], [0, 1, 2, 3]] = 1
    axes[:, 0] *= -1
    axes[1, 3] = pair.moving.grid.shape[1] - 1
    stored = Image(data, Grid(data.shape[1:], pair.moving.grid.affine @ axes))
    found = register(pair.fixed, stored, transform="affine").affine_only
    corners = np.array([[x, y, z, 1] for x in (-60, 60) for y in (-80, 80) for z in (-60, 60)])
    assert np.abs(corners @ (plain - found).T).max() < 0.3


def test_masks_keep_what_they_hide_out_of_the_comparison(pair: KnownPair):
    spoilt = pair.moving.data.copy()
    spoilt[:, :20] = 1500  # a bright block over part of the head
    mask = np.ones(pair.moving.grid.shape, np.uint8)
    mask[:22] = 0
    hidden = Image(spoilt, pair.moving.grid)
    masks = (None, Image(mask[None], pair.moving.grid, "mask"))
    with_mask = register(pair.fixed, hidden, masks=masks, transform="affine", similarity="mse")
    without = register(pair.fixed, hidden, transform="affine", similarity="mse")
    assert endpoint_error(pair, with_mask) < 0.8 * endpoint_error(pair, without)


def test_an_initial_transform_is_built_upon(pair: KnownPair):
    linear = register(pair.fixed, pair.moving, transform="affine")
    far = np.diag([-1.0, -1.0, 1.0, 1.0])
    turned = Image(pair.moving.data, Grid(pair.moving.grid.shape, far @ pair.moving.grid.affine))
    result = register(pair.fixed, turned, initial=far @ linear.affine_only, preset="fast")
    assert result.choices.start == "initial"
    assert endpoint_error(pair, register(pair.fixed, pair.moving, preset="fast")) < 1
    moved = resample(
        Image(pair.moving_labels.data, turned.grid, "labels"), pair.fixed.grid, result.transform, interpolation="label"
    )
    assert np.mean([*dice(pair.fixed_labels.data[0], moved.data[0]).values()]) > 0.9


def test_a_deforming_initial_transform_is_part_of_the_answer(pair: KnownPair):
    first = register(pair.fixed, pair.moving, preset="fast")
    second = register(pair.fixed, pair.moving, preset="fast", initial=first.transform)
    assert endpoint_error(pair, second) < endpoint_error(pair, first) + 0.1


def test_channels_are_weighed(pair: KnownPair):
    noise = np.random.default_rng(0).integers(0, 1000, pair.fixed.data.shape).astype(np.int16)
    other = np.random.default_rng(1).integers(0, 1000, pair.fixed.data.shape).astype(np.int16)
    fixed = Image(np.concatenate([pair.fixed.data, noise]), pair.fixed.grid)
    moving = Image(np.concatenate([pair.moving.data, other]), pair.moving.grid)
    trusted = register(fixed, moving, preset="fast", similarity="lncc", images__channel_weights=[1000, 1])
    assert trusted.warped.data.shape == fixed.data.shape
    assert endpoint_error(pair, trusted) < 1.0
    with pytest.raises(InputError, match="channel_weights"):
        register(fixed, moving, images__channel_weights=[1, -1])


@pytest.mark.parametrize("similarity", ["ncc", "mse", "mi", "mind", "lncc"])
def test_every_similarity_drives_a_registration(similarity: str, pair: KnownPair):
    linear = register(pair.fixed, pair.moving, transform="affine")
    result = register(pair.fixed, pair.moving, similarity=similarity)
    assert endpoint_error(pair, result) < 0.8 * endpoint_error(pair, linear)


def test_an_inverted_contrast_is_noticed_and_registered(pair: KnownPair):
    inverted = Image(np.where(pair.moving.data > 60, 1300 - pair.moving.data, 0).astype(np.int16), pair.moving.grid)
    result = register(pair.fixed, inverted)
    assert result.choices.similarity == "lncc in both contrasts"
    assert result.choices.linear_measure == "mi"
    assert endpoint_error(pair, result) < endpoint_error(pair, register(pair.fixed, pair.moving, transform="affine"))


def test_settings_of_ones_own_are_used_and_reported(pair: KnownPair):
    scale = {"image": 2, "field": 2, "iterations": 3}
    result = register(pair.fixed, pair.moving, preset="fast", registrar__scales=[scale])
    steps = [s for s in result.history if s.stage == "greedy"]
    assert [s.step for s in steps] == [1, 2, 3]
    assert result.method.registrar.scales[0].iterations == 3
    assert result.record().method == result.method


def test_a_scale_ends_when_it_no_longer_gets_better(pair: KnownPair):
    scale = {"image": 2, "field": 2, "iterations": 500}
    result = register(pair.fixed, pair.moving, preset="fast", registrar__scales=[scale])
    assert result.stops["greedy"] == ("converged",)
    assert len([s for s in result.history if s.stage == "greedy"]) < 400


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"preset": "fats"}, "Did you mean 'fast'"),
        ({"transform": "spline"}, "registrar"),
        ({"similarity": "mutual"}, "Unknown term 'mutual'"),
        ({"initial": np.eye(3)}, "2-D"),
        ({"masks": (np.zeros((64, 76, 60)), None)}, "mask is empty"),
    ],
)
def test_what_cannot_be_used_is_refused(options: dict, words: str, pair: KnownPair):
    with pytest.raises(InputError, match=words):
        register(pair.fixed, pair.moving, **options)


def test_images_that_cannot_be_registered_are_refused(pair: KnownPair):
    flat = Image(np.full((1, 8, 8, 8), 5.0), Grid((8, 8, 8), np.eye(4)), name="flat")
    with pytest.raises(InputError, match="flat: every voxel is 5"):
        register(flat, pair.moving)
    with pytest.raises(InputError, match="2-D"):
        register(np.random.default_rng(0).random((20, 20)), pair.moving)
    with pytest.raises(InputError, match="too few"):
        register(np.arange(6.0).reshape(2, 3), np.arange(6.0).reshape(2, 3))
    with pytest.raises(InputError, match="channels"):
        register(Image(np.repeat(pair.fixed.data, 2, 0), pair.fixed.grid), pair.moving)


def test_small_images_get_fewer_scales():
    rng = np.random.default_rng(0)
    small = rng.random((9, 5, 11)).astype(np.float32)
    result = register(small, np.roll(small, 1, 0))
    assert (result.certificate.percent_folded, result.certificate.percent_ndv) == (0, 0)
