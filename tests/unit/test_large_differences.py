"""Objects of other sizes, padding far below air, and windows of intensities."""

import numpy as np
import pytest

import warpwise as ww
from warpwise.errors import InputError
from warpwise.grid import Grid
from warpwise.image import Image, without_padding
from warpwise.methods import Method
from warpwise.synthetic.phantoms import KnownPair, brain_pair


@pytest.fixture(scope="module")
def pair() -> KnownPair:
    return brain_pair((64, 76, 60), seed=2)


def error(pair: KnownPair, result: ww.Result, scaled: float = 1.0) -> float:
    grid = pair.fixed.grid
    at = np.indices(grid.shape).reshape(3, -1)[:, pair.fixed_labels.data[0].ravel() > 0]
    points = (grid.affine[:3, :3] @ at + grid.affine[:3, 3:]).T
    away = result.transform.points(points) - scaled * pair.truth.points(points)
    return float(np.linalg.norm(away, axis=1).mean()) / scaled


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
