"""Dice, HD95 and Jacobian statistics against closed forms."""

import numpy as np
import pytest
from scipy import stats

from warpwise.errors import InputError
from warpwise.evaluation.metrics import dice, evaluate, hd95, regularity
from warpwise.evaluation.statistics import compared, interval, p_value
from warpwise.grid import Grid
from warpwise.image import Image
from warpwise.transforms.affine import Affine
from warpwise.transforms.displacement import DisplacementField


def box(start: int, stop: int) -> np.ndarray:
    out = np.zeros((24, 24, 24), bool)
    out[start:stop, 5:15, 5:15] = True
    return out


def test_dice_of_shifted_boxes():
    a, b = box(4, 14).astype(int), box(6, 16).astype(int)
    assert dice(a, b) == {1: pytest.approx(0.8)}
    assert dice(a, 0 * b) == {1: 0.0}
    assert dice(a, a, labels=[1, 2]) == {1: 1.0, 2: 0.0}


def test_hd95_of_shifted_boxes_is_the_shift_in_mm():
    assert hd95(box(4, 14), box(7, 17), (2.0, 1.0, 1.0)) == pytest.approx(6)
    assert hd95(box(4, 14), box(4, 14), (1.0, 1.0, 1.0)) == 0
    assert np.isnan(hd95(box(4, 14), box(4, 4), (1.0, 1.0, 1.0)))


def test_hd95_at_the_rim_of_the_image_counts_the_rim_as_surface():
    full = np.ones((6, 6, 6), bool)
    half = full.copy()
    half[3:] = False
    assert hd95(full, half, (1.0, 1.0, 1.0)) == pytest.approx(3)


def test_regularity_of_an_affine_and_of_a_fold():
    grid = Grid((12, 12, 12), np.diag([1.0, 2.0, 3.0, 1.0]))
    linear = regularity(Affine(np.diag([1.2, 0.9, 1.0, 1.0])), grid)
    assert linear.sd_log_jacobian == pytest.approx(0, abs=1e-4)
    assert (linear.percent_folded, linear.percent_ndv) == (0, 0)
    mirrored = np.zeros((3, 12, 12, 12), np.float32)
    mirrored[0, 4:8] = -2.5 * np.arange(4)[:, None, None]
    folded = regularity(DisplacementField(mirrored, grid), grid)
    assert folded.percent_folded > 10
    assert folded.percent_ndv > 10


def test_a_known_stretch_has_its_log_as_spread():
    grid = Grid((40, 6, 6), np.eye(4))
    field = np.zeros((3, 40, 6, 6), np.float32)
    # half of the image is stretched by e, half is not
    slope = np.where(np.arange(40) < 20, 0.0, np.e - 1)
    field[0] = np.cumsum(slope)[:, None, None]
    assert regularity(DisplacementField(field, grid), grid).sd_log_jacobian == pytest.approx(0.5, abs=0.02)


def test_evaluation_inside_a_mask_and_on_other_grids():
    grid = Grid((24, 24, 24), np.eye(4))
    a, b = (Image(m.astype(np.uint8)[None], grid, "labels") for m in (box(4, 14), box(6, 16)))
    inside = Image(box(6, 14)[None], grid, "mask")
    assert evaluate(a, b, mask=inside).mean_dice == 1.0
    found = evaluate(a, b, transform=Affine(np.eye(4))).to_dict()
    assert found["mean_dice"] == pytest.approx(0.8)
    assert found["percent_ndv"] == 0
    with pytest.raises(InputError, match="another grid"):
        evaluate(a, Image(b.data, Grid((24, 24, 24), np.diag([2.0, 1, 1, 1])), "labels"))
    with pytest.raises(InputError, match="no label"):
        evaluate(Image(0 * a.data, grid, "labels"), Image(0 * a.data, grid, "labels"))


@pytest.mark.parametrize("design", ["all pairs", "own pairs", "a ring"])
def test_chance_is_told_of_people_not_of_their_pairs(design: str):
    """Nothing but who was drawn differs; tests of pairs would find more than chance in most of these."""
    rng = np.random.default_rng(1)
    people = [f"p{n}" for n in range(10)]
    pairs = {
        "all pairs": [(a, b) for a in people for b in people if a != b],
        "own pairs": [(a, a) for a in people for _ in range(2)],
        "a ring": [*zip(people, people[1:] + people[:1], strict=True)],
    }[design]
    found = []
    for _ in range(400):
        of = dict(zip(people, rng.standard_normal(10), strict=True))
        found.append(p_value(pairs, [of[a] + of[b] for a, b in pairs]))
    assert np.mean(np.array(found) < 0.05) < 0.08  # 0.05 ± 0.011
    assert 0.4 < np.median(found) < 0.65


def test_a_gap_of_own_pairs_is_student_s():
    gaps = np.random.default_rng(0).normal(0.5, 1, 8)
    wanted = float(stats.ttest_1samp(gaps, 0).pvalue)
    assert p_value([(str(n), str(n)) for n in range(8)], gaps) == pytest.approx(wanted, rel=1e-9)


def test_methods_are_compared_on_the_pairs_that_all_of_them_have():
    people = [f"p{n}" for n in range(7)]
    pairs = [(a, b) for a in people for b in people if a != b]
    better = 1 + 0.01 * np.random.default_rng(0).standard_normal(len(pairs))
    scores = {"one": better, "other": np.zeros(len(pairs)), "third": np.zeros(len(pairs))}
    found = compared(scores, pairs)
    assert found["one", "other"] < 1e-6
    assert found["other", "third"] == 1
    scores["third"] = np.where(np.arange(len(pairs)) == 3, np.nan, 0)
    assert compared(scores, pairs)["one", "third"] == pytest.approx(found["one", "third"], rel=0.9)
    with pytest.raises(InputError, match="1 of 42 gaps are not finite"):
        p_value(pairs, scores["third"])
    assert p_value(pairs[:2], [1.0, 1.0]) is None
    assert compared({"one": [1.0, 2.0], "other": [0.0, 0.0]}, pairs[:2]) == {}
    hub = [("p0", p) for p in people[1:]]
    assert p_value(hub, [1.0] * 6) == 1  # without one person there is nothing


def test_the_interval_over_people_is_that_of_their_mean_and_wider_than_one_over_pairs():
    """Each person adds a shift of its own to all its pairs, so twelve pairs of four people say as much as four numbers."""
    rng = np.random.default_rng(0)
    inside = 0
    for seed in range(60):
        shift = rng.normal(size=12)
        pairs = [(f"{a}", f"{b}") for a in range(12) for b in range(12) if a != b]
        values = [0.5 * (shift[int(a)] + shift[int(b)]) for a, b in pairs]
        low, high = interval(pairs, values, draws=300, seed=seed)
        inside += low < 0 < high
        assert low < np.mean(values) < high
    assert 48 <= inside <= 60  # of 57 on average; percentile intervals of a dozen are a little short
    assert interval([("a", "a"), ("a", "a")], [1.0, 3.0]) == (2.0, 2.0)  # both directions of one person
    with pytest.raises(InputError, match="1 values of 2 pairs"):
        interval([("a", "b"), ("b", "a")], [1.0])
