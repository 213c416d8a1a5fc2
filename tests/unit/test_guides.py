"""Landmarks, labels and lesions change a registration as they should, against known truth."""

import numpy as np
import pytest
from asking import method_of, prepared, register

import warpwise as ww
from warpwise.errors import InputError
from warpwise.evaluation.metrics import dice, target_errors
from warpwise.grid import Grid
from warpwise.image import Image
from warpwise.io.scan import ReadScan
from warpwise.registrars.linear.gauss_newton import Problem
from warpwise.registrars.linear.starts import fitted
from warpwise.registration.memory import predicted_memory_mb
from warpwise.similarity.codes import encoded
from warpwise.similarity.landmarks import Landmarks
from warpwise.synthetic.phantoms import KnownPair, brain_pair
from warpwise.transforms.affine import Affine


@pytest.fixture(scope="module")
def pair() -> KnownPair:
    return brain_pair((48, 57, 45), seed=5)


def known_points(pair: KnownPair, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Points of the body, and where the truth takes them."""
    at = np.argwhere(pair.body)
    at = at[np.random.default_rng(0).choice(len(at), count, replace=False)]
    fixed = at @ pair.fixed.grid.affine[:3, :3].T + pair.fixed.grid.affine[:3, 3]
    moving = pair.truth.points(fixed)
    back = pair.moving.grid.inverse_affine
    index = moving @ back[:3, :3].T + back[:3, 3]
    inside = ((index >= 0) & (index <= np.array(pair.moving.grid.shape) - 1)).all(1)
    return fixed[inside], moving[inside]


def noisy(image: Image) -> Image:
    """An image whose contents say nothing."""
    data = np.random.default_rng(1).random(image.data.shape).astype(np.float32)
    return Image(data * (image.data > 0), image.grid)


def test_landmarks_alone_carry_their_surroundings(pair: KnownPair):
    fixed, moving = known_points(pair, 120)
    train, test = slice(0, None, 2), slice(1, None, 2)
    images = noisy(pair.fixed), noisy(pair.moving)
    without = register(*images, similarity="mse")
    found = register(*images, similarity="mse", landmarks=(fixed[train], moving[train]))
    assert found.choices.start == "landmarks"
    assert found.certificate.percent_ndv == 0
    assert found.certificate.percent_folded == 0
    held_out = np.median(target_errors(found.transform, fixed[test], moving[test]))
    assert held_out < 0.6 * np.median(target_errors(without.transform, fixed[test], moving[test]))
    assert np.median(target_errors(found.transform, fixed[train], moving[train])) < held_out
    assert found.scores.tre_after_mm.keys() == {str(n + 1) for n in range(len(fixed[train]))}


@pytest.mark.parametrize("solver", ["greedy", "svf", "symmetric", "affine", "rigid"])
def test_landmarks_help_every_solver_and_do_no_harm(pair: KnownPair, solver: str):
    fixed, moving = known_points(pair, 80)
    options = {"transform": solver, "preset": "fast"}
    plain = register(pair.fixed, pair.moving, **options)
    guided = register(pair.fixed, pair.moving, landmarks=(fixed[::2], moving[::2]), **options)
    before, after = (np.mean(target_errors(r.transform, fixed[1::2], moving[1::2])) for r in (plain, guided))
    assert after < 1.1 * before


def test_the_landmark_term_of_the_linear_stage_is_differentiated_rightly(pair: KnownPair):
    fixed, moving = known_points(pair, 30)
    small = prepared(pair.fixed, pair.moving)
    with_points = prepared(pair.fixed, pair.moving, landmarks=(fixed, moving))
    landmarks = Landmarks(weight=0.7)
    matrix = small.to_moving.copy()
    matrix[:3, 3] += [2, -1, 3]

    def term(of: np.ndarray) -> float:
        return Problem(with_points, "mse", landmarks=landmarks).value(of) - Problem(small, "mse").value(of)

    problem, plain = Problem(with_points, "mse", landmarks=landmarks), Problem(small, "mse")
    problem.value(matrix)
    plain.value(matrix)
    gradient = problem.normal_equations()[0] - plain.normal_equations()[0]
    for n in (0, 3, 5, 7, 11):
        step = np.zeros((4, 4))
        step[:3].ravel()[n] = 0
        step[n // 4, n % 4] = 1e-4
        up, down = (matrix @ (np.eye(4) + s * step) for s in (1, -1))
        assert gradient[n] == pytest.approx((term(up) - term(down)) / 2e-4, rel=1e-3, abs=1e-5)


def test_few_landmarks_only_shift_and_three_give_a_rigid_start(pair: KnownPair):
    whole = prepared(pair.fixed, pair.moving)
    turn = np.array([[0, -1.0, 0, 5], [1, 0, 0, -3], [0, 0, 1, 2], [0, 0, 0, 1]])
    world = np.random.default_rng(0).normal(0, 30, (5, 3))
    moved = Affine(turn).points(world)

    def marks(count: int) -> tuple[np.ndarray, np.ndarray]:
        back, there = whole.fixed.grid.inverse_affine, whole.moving.grid.inverse_affine
        return world[:count] @ back[:3, :3].T + back[:3, 3], moved[:count] @ there[:3, :3].T + there[:3, 3]

    found = whole.moved(fitted(whole, marks(5))).world
    assert np.allclose(found, turn, atol=1e-9)
    two = whole.moved(fitted(whole, marks(2))).world
    assert np.allclose(two[:3, :3], np.eye(3))
    assert np.allclose(two[:3, 3], (moved[:2] - world[:2]).mean(0))


def test_labels_guide_where_intensities_say_nothing(pair: KnownPair):
    labels = (pair.fixed_labels, pair.moving_labels)
    images = noisy(pair.fixed), noisy(pair.moving)
    blind = register(*images, similarity="mse", labels=labels, label_weight=0)
    guided = register(*images, similarity="mse", labels=labels)
    before, after = (np.mean([*r.scores.dice_after.values()]) for r in (blind, guided))
    assert after > before + 0.15
    assert guided.certificate.percent_ndv == 0
    assert guided.choices.guides == {"labels": 1.0}
    assert blind.choices.guides == {}
    warped = ww.apply(guided.transform, pair.moving_labels, like=pair.fixed, interpolation="nearest")
    assert dice(pair.fixed_labels.data[0], warped.data[0]) == pytest.approx(guided.scores.dice_after)


def test_many_labels_are_coded_nearly_apart():
    a = np.arange(60).reshape(3, 4, 5)
    one, other = encoded(a, a)
    assert one.shape == (8, 3, 4, 5)
    assert np.array_equal(one, other)
    codes = one.reshape(8, -1)
    assert np.allclose(np.linalg.norm(codes[:, 1:], axis=0), 1, atol=1e-6)
    assert not codes[:, 0].any()
    few, _ = encoded(a % 4, a % 4)
    assert few.shape[0] == 3
    assert np.array_equal(few.sum(0), (a % 4 > 0).astype(np.float32))


def test_labels_that_one_map_lacks_are_noted(pair: KnownPair):
    data = pair.moving_labels.data.copy()
    data[data == 2] = 9
    found = register(
        pair.fixed, pair.moving, preset="fast",
        labels=(pair.fixed_labels, Image(data, pair.moving.grid, "labels")),
    )  # fmt: skip
    assert any("one map only" in text and "2, 9" in text for text in found.warnings)
    with pytest.raises(InputError, match="share no label"):
        register(pair.fixed, pair.moving, labels=(pair.fixed_labels, Image(data * 0 + 77, pair.moving.grid, "labels")))
    with pytest.raises(InputError, match="or of neither"):
        register(pair.fixed, pair.moving, labels=(pair.fixed_labels, None))


def test_a_lesion_that_is_excluded_does_not_pull(pair: KnownPair):
    truth = pair.truth.displacement(pair.fixed.grid)
    middle = np.array(pair.fixed.grid.shape) // 2 + [6, 0, 4]
    ball = sum((i - c) ** 2 for i, c in zip(np.indices(pair.fixed.grid.shape), middle, strict=True)) < 7**2
    hurt = pair.fixed.data.copy()
    hurt[0][ball] = 0.02
    fixed, lesion = Image(hurt, pair.fixed.grid), Image(ball[None].astype(np.uint8), pair.fixed.grid, "mask")
    voxel = np.array(pair.fixed.grid.spacing_mm, np.float32)[:, None]

    def error(**options) -> float:
        found = register(fixed, pair.moving, **options)
        return float(np.linalg.norm((found.displacement_mm - truth)[:, ball] / voxel, axis=0).mean())

    assert error(exclude=(lesion, None)) < 0.7 * error()


def test_masks_and_lesions_that_cannot_be_meant_are_refused(pair: KnownPair):
    every = Image(np.ones_like(pair.fixed.data, np.uint8), pair.fixed.grid, "mask")
    with pytest.raises(InputError, match="excludes every voxel"):
        register(pair.fixed, pair.moving, exclude=(every, None))
    odd = Image(every.data * 3, pair.fixed.grid, "mask")
    found = register(pair.fixed, pair.moving, masks=(odd, None), transform="rigid", preset="fast")
    assert any("not binary" in text for text in found.warnings)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"label_weight": -1}, "objective: term 'labels'"),
        ({"objective__lables__weight": 1}, "lables"),
        ({"percentiles": (90, 10)}, "percentiles"),
        ({"landmarks": (np.zeros((3, 3)), np.zeros((4, 3)))}, "no partner"),
        ({"landmarks": (np.full((3, 3), 1e4), np.zeros((3, 3)))}, "outside its image"),
        ({"landmarks": (np.zeros((3, 2)), np.zeros((3, 2)))}, "2-D landmarks"),
        ({"landmarks": (np.full((3, 3), np.nan), np.zeros((3, 3)))}, "finite"),
    ],
)
def test_guides_that_make_no_sense_are_refused(pair: KnownPair, options: dict, words: str):
    with pytest.raises(InputError, match=words):
        register(pair.fixed, pair.moving, **options)


def test_shading_is_removed_and_the_result_keeps_its_own_intensities(pair: KnownPair):
    ramp = np.linspace(0.35, 1.8, pair.fixed.grid.shape[0], dtype=np.float32)[:, None, None]
    shaded = Image(pair.moving.data * ramp, pair.moving.grid)
    plain, corrected = (
        register(pair.fixed, shaded, similarity="mse", bias_field=flag, preset="fast") for flag in (False, True)
    )
    truth, body = pair.truth.displacement(pair.fixed.grid), pair.body
    errors = [float(np.linalg.norm((r.displacement_mm - truth)[:, body], axis=0).mean()) for r in (plain, corrected)]
    assert errors[1] < 0.8 * errors[0]
    assert corrected.warped.data.max() == pytest.approx(shaded.data.max(), rel=0.1)


def test_a_label_map_taken_for_an_image_is_noted(pair: KnownPair):
    labels = Image(pair.fixed_labels.data.astype(np.uint8), pair.fixed.grid)
    moving = Image(pair.moving_labels.data.astype(np.uint8), pair.moving.grid)
    found = register(labels, moving, transform="rigid", preset="fast")
    assert sum("looks like a label map" in text for text in found.warnings) == 2
    found = register(pair.fixed, pair.moving, transform="rigid", preset="fast")
    assert not any("label map" in text for text in found.warnings)


def test_thinned_images_give_nearly_the_same_answer_and_say_so(pair: KnownPair):
    large = ReadScan(Image(np.broadcast_to(np.float32(0), (1, 300, 300, 300)), Grid((300, 300, 300), np.eye(4))))
    need = [predicted_memory_mb((large, large), method_of("fast"), reduction=r) for r in (1, 2, 4)]
    assert need[0] > need[1] > need[2]
    assert predicted_memory_mb((large, large), method_of("energy")) > 1.5 * need[0]
    whole = prepared(pair.fixed, pair.moving)
    half = prepared(pair.fixed, pair.moving, reduction=2)
    assert half.fixed.shape == tuple(-(-n // 2) for n in whole.fixed.shape)
    corner = np.array([half.fixed.grid.affine @ [1, 1, 1, 1], whole.fixed.grid.affine @ [2, 2, 2, 1]])
    assert np.allclose(corner[0], corner[1])
