"""Objects of other sizes and ages, turned or cut out; shading, padding, windows; and warnings that must not be given."""

from dataclasses import replace

import numpy as np
import pytest
from asking import prepared
from scipy.ndimage import distance_transform_edt

import warpwise as ww
from warpwise.errors import InputError
from warpwise.evaluation.metrics import dice, regularity
from warpwise.events import ignore
from warpwise.grid import Grid
from warpwise.image import DARK, Image, without_padding
from warpwise.methods import Method
from warpwise.pair import Pair
from warpwise.registrars.base import Recorder
from warpwise.registrars.crop import foreground
from warpwise.registrars.deformable.descent import Greedy, descend
from warpwise.registrars.deformable.motions import Motion, smoothed
from warpwise.registrars.deformable.part import Part
from warpwise.registrars.deformable.work import ScaleSettings, ScaleWork, usable_scales
from warpwise.registrars.linear.stripped import masked, object_mask
from warpwise.resampling import resample
from warpwise.synthetic.atrophy import changed_in_size
from warpwise.synthetic.phantoms import KnownPair, brain_pair
from warpwise.synthetic.shapes import smooth_noise
from warpwise.volume import Volume


@pytest.fixture(scope="module")
def pair() -> KnownPair:
    return brain_pair((64, 76, 60), seed=2)


STILL = np.eye(4)


def error(pair: KnownPair, result: ww.Result, scaled: float = 1.0, pose: np.ndarray = STILL) -> float:
    grid = pair.fixed.grid
    at = np.indices(grid.shape).reshape(3, -1)[:, pair.fixed_labels.data[0].ravel() > 0]
    points = (grid.affine[:3, :3] @ at + grid.affine[:3, 3:]).T
    truth = scaled * pair.truth.points(points) @ pose[:3, :3].T + pose[:3, 3]
    return float(np.linalg.norm(result.transform.points(points) - truth, axis=1).mean()) / scaled


def told(result: ww.Result, words: str) -> bool:
    return any(words in warning for warning in result.warnings)


@pytest.mark.parametrize("size", [0.7, 1.4, 1.6, 2.0])
def test_an_object_of_another_size_is_found_and_it_is_said(pair: KnownPair, size: float):
    affine = pair.moving.grid.affine.copy()
    affine[:3] *= size
    result = ww.register(pair.fixed, Image(pair.moving.data, Grid(pair.moving.grid.shape, affine)))
    assert error(pair, result, size) < 1.6
    assert any("times as large" in words for words in result.warnings)


def test_an_object_of_the_same_size_is_not_doubted(pair: KnownPair):
    assert not any("large" in words for words in ww.register(pair.fixed, pair.moving, method="fast").warnings)


def as_ct(image: Image) -> Image:
    """The phantom in Hounsfield units: air at −1000."""
    return Image(image.data.astype(np.int16) * 2 - 1000, image.grid, name="ct")


def padded(image: Image, value: int, seed: int) -> Image:
    """What scanners write round a field of view: two corners and a side of one value."""
    data = image.data.copy()
    rng = np.random.default_rng(seed)
    across, along = rng.integers(8, 14, 2)
    data[:, :across, :along] = value
    data[:, -across:, :, -along:] = value
    return Image(data, image.grid, name="padded ct")


@pytest.mark.parametrize("value", [-2000, -3024])
def test_padding_is_found_named_and_does_no_harm(pair: KnownPair, value: int):
    fixed, moving = as_ct(pair.fixed), as_ct(pair.moving)
    clean = error(pair, ww.register(fixed, moving))
    result = ww.register(padded(fixed, value, 1), padded(moving, value, 2))
    assert error(pair, result) < clean + 0.2
    assert [f"{value}" in words and "count as air" in words for words in result.warnings[:2]] == [True, True]


@pytest.mark.parametrize("data", [[0, 0, 40, 700], [-1000, -990, -500, 40], [-5, 0, 40, 700], [-3, -3, -3]])
def test_what_is_no_padding_stays(data: list[int]):
    kept, value = without_padding(np.array(data))
    assert (kept.tolist(), value) == (data, None)


def test_a_window_of_intensities_is_what_solvers_see(pair: KnownPair):
    fixed, moving = as_ct(pair.fixed), as_ct(pair.moving)
    metal = fixed.data.copy()
    metal[:, 30:34, 30:34, 20:40] = 30_000
    window = Method.named("balanced").changed({"images.window": [-900, 1000]})
    assert error(pair, ww.register(Image(metal, fixed.grid), moving, method=window)) < 1.2
    with pytest.raises(InputError, match="low < high"):
        Method.named("balanced").changed({"images.window": [250, -150]})


def test_rigid_stays_rigid_whatever_the_sizes(pair: KnownPair):
    affine = pair.moving.grid.affine.copy()
    affine[:3] *= 1.6
    bigger = Image(pair.moving.data, Grid(pair.moving.grid.shape, affine))
    stretch = np.linalg.svd(ww.register(pair.fixed, bigger, method="rigid").affine_only[:3, :3], compute_uv=False)
    assert stretch == pytest.approx(np.ones(3), abs=1e-6)


def test_maps_of_few_values_have_no_padding():
    for data in ([-1, -1, 1, 1], [-1000, 0, 100]):
        kept, value = without_padding(np.array(data))
        assert (kept.tolist(), value) == (data, None)


def test_a_network_is_not_shown_a_window():
    with pytest.raises(InputError, match="trained with percentiles"):
        Method.named("synthetic").changed({"images.window": [-150, 250]}).build()


@pytest.mark.parametrize(("seed", "axis"), [(2, 0), (2, 2), (21, 2)])
def test_a_head_that_is_nearly_the_same_upside_down_is_turned_back_and_it_is_said(seed: int, axis: int):
    pair = brain_pair((64, 76, 60), seed=seed)
    turn = np.diag([1.0 if a in (axis, 3) else -1.0 for a in range(4)])
    moving = Image(pair.moving.data, Grid(pair.moving.grid.shape, turn @ pair.moving.grid.affine))
    result = ww.register(pair.fixed, moving)
    assert error(pair, result, pose=turn) < 1.0
    assert told(result, "axes do not agree")


def gained(image: Image, times: float, axis: int) -> Image:
    """A gain that runs over so many times from one side to the other."""
    ramp = np.exp(np.linspace(-0.5, 0.5, image.grid.shape[axis]) * np.log(times))
    data = image.data[0] * ramp.reshape([-1 if a == axis else 1 for a in range(3)])
    return Image(np.rint(data)[None].astype(np.int32), image.grid)


def shaded(image: Image, sd: float, seed: int) -> Image:
    """A smooth random gain whose logarithm has this standard deviation."""
    field = smooth_noise(image.grid.shape, np.random.default_rng(seed), count=1, sigma=max(image.grid.shape) / 4)[0]
    field *= sd / field.std()
    return Image(np.rint(image.data * np.exp(field - field.mean())).astype(np.int32), image.grid)


@pytest.mark.parametrize("times", [2.0, 4.0, 8.0])
def test_a_gain_across_the_image_misleads_neither_stage(pair: KnownPair, times: float):
    affine, result = (ww.register(pair.fixed, gained(pair.moving, times, 1), method=m) for m in ("affine", "balanced"))
    assert error(pair, affine) < error(pair, ww.register(pair.fixed, pair.moving, method="affine")) + 0.1
    assert error(pair, result) < 1.3  # 0.8 without any gain
    assert result.choices.similarity == "lncc"  # not taken for another contrast
    assert result.choices.without_shading[-1] == "greedy"
    assert told(result, "deformable stage compared them without that")
    assert told(affine, "Shading: brightness drifts") == (times > 2)


@pytest.mark.parametrize("seed", [2, 7])
def test_strong_shading_of_both_images_is_seen_through(seed: int):
    pair = brain_pair((64, 76, 60), seed=seed)
    result = ww.register(shaded(pair.fixed, 0.3, seed + 100), shaded(pair.moving, 0.3, seed))
    assert error(pair, result) < 1.3
    assert told(result, "Shading: brightness drifts")


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_a_curve_of_intensities_is_not_shading(pair: KnownPair, gamma: float):
    curved = Image(np.rint(1000 * (pair.moving.data / 1000.0) ** gamma).astype(np.int32), pair.moving.grid)
    result = ww.register(pair.fixed, curved)
    assert not told(result, "Shading")
    assert result.choices.without_shading == []


def stripped(image: Image, labels: Image) -> Image:
    return Image(image.data * (labels.data > 0), image.grid, name="stripped")


def headed(image: Image, labels: Image) -> Image:
    """The brain in a dark skull and a bright scalp, on noisy air."""
    pad = 12
    brain, inside = (np.pad(x.data[0], pad) for x in (image, labels))
    affine = image.grid.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ np.full(3, pad)
    away = distance_transform_edt(inside == 0, sampling=image.grid.spacing_mm)
    rng = np.random.default_rng(0)
    head = np.where((away > 8) & (away < 16), 900 + 50 * rng.standard_normal(brain.shape), np.where(inside > 0, brain, 0))
    data = np.rint(head + np.abs(10 * rng.standard_normal(brain.shape))).astype(np.int16)
    return Image(data[None], Grid(data.shape, affine), name="head")


@pytest.mark.parametrize("which", ["fixed", "moving"])
def test_the_blank_background_of_a_stripped_brain_is_a_mask_beside_a_whole_head(pair: KnownPair, which: str):
    maps = pair.fixed_labels, pair.moving_labels
    fixed = stripped(pair.fixed, maps[0]) if which == "fixed" else headed(pair.fixed, maps[0])
    moving = stripped(pair.moving, maps[1]) if which == "moving" else headed(pair.moving, maps[1])
    result = ww.register(fixed, moving)
    assert error(pair, result) < 1.7  # 3.4 under the affine; the rim, which is drawn sharp here, must not count
    assert told(result, "stripped has a blank background")
    assert not told(result, "times as large")


def test_a_stripped_brain_beside_a_head_with_a_gain_across_it(pair: KnownPair):
    head = gained(headed(pair.moving, pair.moving_labels), 4.0, 1)
    result = ww.register(stripped(pair.fixed, pair.fixed_labels), head)
    assert error(pair, result) < 2.0
    assert told(result, "blank background")
    assert told(result, "Shading: brightness drifts")


def test_stripped_beside_stripped_and_head_beside_head_have_no_such_mask(pair: KnownPair):
    maps = pair.fixed_labels, pair.moving_labels
    for form in (stripped, headed):
        result = ww.register(form(pair.fixed, maps[0]), form(pair.moving, maps[1]))
        assert error(pair, result) < 1.0
        assert not told(result, "blank background")


@pytest.mark.parametrize("method", ["rigid", "balanced"])
def test_a_small_stripped_brain_is_not_taken_for_a_part_of_a_large_one(pair: KnownPair, method: str):
    affine = pair.moving.grid.affine.copy()
    affine[:3] *= 1.5
    large = Image(stripped(pair.moving, pair.moving_labels).data, Grid(pair.moving.grid.shape, affine))
    result = ww.register(stripped(pair.fixed, pair.fixed_labels), large, method=method)
    assert method == "rigid" or error(pair, result, 1.5) < 1.3
    assert not told(result, "blank background")
    assert told(result, "times as large")


def test_what_is_blank_is_judged_by_what_the_file_holds(pair: KnownPair):
    brain = stripped(pair.fixed, pair.fixed_labels)
    hollow = brain.data.copy()
    hollow[pair.fixed_labels.data == 3] = 0  # ventricles that somebody set to zero lie inside all the same
    for image, cut_out in ((brain, True), (Image(hollow, brain.grid), True), (pair.fixed, False), (as_ct(brain), True)):
        volume = prepared(image, pair.moving).fixed
        assert volume.cut_out == cut_out
        if cut_out:
            assert object_mask(volume)[pair.fixed_labels.data[0] > 0].min() == 1
    assert not prepared(brain, pair.moving, window=(200, 900)).fixed.cut_out


def test_translations_alone_turn_nothing(pair: KnownPair):
    turn = np.diag([-1.0, -1.0, 1.0, 1.0])
    turn[:3, 3] = [30, -20, 10]
    moving = Image(pair.moving.data, Grid(pair.moving.grid.shape, turn @ pair.moving.grid.affine))
    method = Method.named("rigid").changed({"linear.transform": "translation"})
    assert ww.register(pair.fixed, moving, method=method).affine_only[:3, :3] == pytest.approx(np.eye(3), abs=1e-9)


def test_a_table_in_both_images_and_masks_of_another_grid_raise_no_alarm():
    def on_a_table(image: Image) -> Image:
        data = image.data.copy()
        data[:, 10:-10, 2:6] = 900
        return Image(data, image.grid)

    def masked(image: Image, labels: Image) -> ww.Scan:
        mask = (labels.data[:, ::3, ::3, ::3] > 0).astype(np.uint8)
        return ww.Scan(image=image, mask=Image(mask, labels.grid.strided((3, 3, 3)), "mask"))

    pair = brain_pair((64, 76, 60), seed=7)  # whose start has the higher mutual information
    tabled = ww.register(on_a_table(pair.fixed), on_a_table(pair.moving), method="affine")
    within = ww.register(masked(pair.fixed, pair.fixed_labels), masked(pair.moving, pair.moving_labels), method="affine")
    plain = error(pair, ww.register(pair.fixed, pair.moving, method="affine"))
    for result in (tabled, within):
        assert error(pair, result) < plain + 0.1
        assert result.warnings == ()


def test_large_ventricles_are_reached_from_a_coarser_scale():
    pair = brain_pair((128, 152, 120), seed=2)  # voxels of 1.25 mm, so that an eighth of the resolution is looked at
    ventricles, cortex = (pair.moving_labels.data[0] == k for k in (3, 1))
    growth = np.ones(ventricles.shape)
    growth[ventricles], growth[cortex] = 8.0, 0.8
    there = changed_in_size(growth, pair.moving.grid)
    old = resample(pair.moving, pair.moving.grid, there)
    old_labels = resample(pair.moving_labels, pair.moving.grid, there, interpolation="nearest")
    assert 4 < (old_labels.data == 3).sum() / ventricles.sum() < 8
    assert regularity(there, pair.moving.grid, ventricles).percent_folded == 0
    result = ww.register(pair.fixed, old, method="fast")
    assert len(result.stops["greedy"]) == 4
    moved = resample(old_labels, pair.fixed.grid, result.transform, interpolation="nearest")
    assert dice(pair.fixed_labels.data[0], moved.data[0])[3] > 0.85


def test_a_region_grows_by_what_was_asked():
    growth = np.ones((48, 48, 48))
    growth[12:36, 12:36, 12:36] = 1.5
    grid = Grid((48, 48, 48), np.diag([2.0, 2.0, 2.0, 1.0]))
    region = Image((growth > 1)[None].astype(np.uint8), grid, "labels")
    grown = resample(region, grid, changed_in_size(growth, grid), interpolation="nearest").data.sum() / region.data.sum()
    assert grown == pytest.approx(1.5, rel=0.06)
    with pytest.raises(InputError, match="positive"):
        changed_in_size(growth - 1, grid)
    with pytest.raises(InputError, match="shape"):
        changed_in_size(growth[1:], grid)


@pytest.mark.parametrize(("spacing", "scales"), [(1.25, 4), (1.4, 3), (0.1, 4)])
def test_a_scale_whose_voxels_would_be_too_large_is_left_out(spacing: float, scales: int):
    grid = Grid((128, 128, 128), np.diag([spacing, spacing, spacing, 1.0]))
    image = Volume(np.zeros((1, 128, 128, 128), np.float32), grid)
    registrar = Method.named("balanced").registrar
    assert isinstance(registrar, Greedy)
    assert len(usable_scales(Pair(image, image, np.eye(4)), registrar.scales)) == scales
    last = registrar.scales[-1].replace(largest_mm=0.01)
    assert usable_scales(Pair(image, image, np.eye(4)), (last,)) == [last]


def sliced(image: Image, axis: int, thickness: int) -> Image:
    """Averages of so many voxels along an axis."""
    data = np.moveaxis(image.data.astype(np.float32), axis + 1, 0)
    data = data[: len(data) // thickness * thickness]
    data = np.ascontiguousarray(np.moveaxis(data.reshape(-1, thickness, *data.shape[1:]).mean(1), 0, axis + 1))
    affine = image.grid.affine.copy()
    affine[:3, 3] += affine[:3, axis] * (thickness - 1) / 2
    affine[:3, axis] *= thickness
    return Image(data, Grid(data.shape[1:], affine))


@pytest.mark.parametrize(("axis", "limit"), [(1, 2.2), (2, 2.0)])
def test_thick_slices_are_not_torn_apart_by_steps_across_them(pair: KnownPair, axis: int, limit: float):
    """10 mm slices of 2.5 mm voxels: steps along slopes by voxels, most of them across the slices, end at 2.4, 2.2 mm."""
    fixed, moving = (sliced(image, axis, 4) for image in (pair.fixed, pair.moving))
    assert error(pair, ww.register(fixed, moving, method="accurate")) < limit


def work_of(fixed: Image, moving: Image, *, iterations: int = 1) -> ScaleWork:
    """Full resolution, as the balanced preset's descent has it."""
    part, method = Part.of(prepared(fixed, moving), None), Method.named("balanced")
    scale = ScaleSettings(image=0, field=0, iterations=iterations)
    return ScaleWork.build(part.pair, scale, method.terms(), part.box)


def test_steps_across_slices_are_in_the_proportion_of_their_distance(pair: KnownPair):
    whole = work_of(pair.fixed, pair.moving)
    thick = work_of(*(sliced(image, 1, 4) for image in (pair.fixed, pair.moving)))
    assert whole.metric() is None
    metric = thick.metric()
    assert metric is not None
    np.testing.assert_allclose(metric.ravel(), [1, 0.25, 1], rtol=0.02)  # its voxels are nearly cubes


class Scripted(Motion):
    """Energies as written, whatever the field; what each step was smoothed by."""

    def __init__(self, work: ScaleWork, energies: list[float]) -> None:
        self.energies, self.shares = iter(energies), []
        self.force = np.random.default_rng(0).normal(size=(3, *work.nodes)).astype(np.float32)

    def energy_and_force(self, field, force) -> float:
        force[:] = self.force
        return next(self.energies)

    def stepped(self, field, step, spare, share: float) -> None:
        self.shares.append(share)

    def displacement(self, field):
        return field

    @staticmethod
    def field_of(displacement):
        return displacement


ENERGIES = [0.0, -1.0, -2.0, -1.9, -2.1, -2.0, -1.9, -2.2]


@pytest.mark.parametrize(("thickness", "expected"), [(4, [1, 1, 1, 0.7, 0.77, 0.539, 0.3773, 0.41503]), (1, [1] * 8)])
def test_between_thick_slices_steps_shorten_where_the_energy_rises(pair: KnownPair, thickness: int, expected: list[float]):
    work = work_of(*(sliced(image, 1, thickness) for image in (pair.fixed, pair.moving)), iterations=len(ENERGIES))
    moves = Scripted(work, ENERGIES)
    descend(work, (None, work.reach), moves, Greedy(scales=(work.settings,)), Recorder(ignore, "greedy", 0.0))
    np.testing.assert_allclose(moves.shares, expected, rtol=1e-6)


def test_a_field_is_smoothed_by_a_share_of_the_whole():
    field = np.random.default_rng(0).normal(size=(3, 9, 8, 7)).astype(np.float32)
    none, quarter, whole = (smoothed(field, [0.7] * 3, share, out=np.empty_like(field)) for share in (0.0, 0.25, 1.0))
    np.testing.assert_allclose(none, field, atol=1e-6)
    np.testing.assert_allclose(quarter, 0.75 * field + 0.25 * whole, atol=1e-6)
    assert whole.std() < 0.6 * field.std()


def test_what_was_filled_in_beyond_a_cut_is_no_part_of_the_object(pair: KnownPair):
    """Else the part of the grid that is worked on would depend on how much air is stored round it."""
    whole = prepared(pair.fixed, pair.moving)
    brain = np.zeros(whole.moving.shape, np.float32)
    brain[16:40, 20:50, 20:44] = 1
    cut = replace(whole.moving, data=whole.moving.data * brain, cut_out=True)
    within = masked(replace(whole, moving=cut), "moving").moving
    assert (within.data[0] > DARK).sum() > 2 * brain.sum()
    assert not (within.object & (brain == 0)).any()
    np.testing.assert_array_equal(within.object, cut.object)
    np.testing.assert_array_equal(within.shown, cut.data)  # what networks look at
    alone = replace(whole.fixed, data=np.zeros_like(whole.fixed.data))
    assert foreground(replace(whole, fixed=alone, moving=within)) == foreground(replace(whole, fixed=alone, moving=cut))
