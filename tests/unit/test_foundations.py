"""Grid, Image, Table, Settings."""

import numpy as np
import pytest
from hypothesis import given
from strategies import grids

from warpwise.errors import InputError
from warpwise.grid import Grid
from warpwise.image import Image, intensity_range, normalised
from warpwise.registrars.deformable.work import DescentSettings, ScaleSettings
from warpwise.tables import Table


@given(grids())
def test_a_crop_keeps_every_voxel_where_it_is(grid: Grid):
    part = grid.cropped([1, 2, 0], [2, 2, 3])
    assert np.allclose(part.affine @ [0, 1, 2, 1], grid.affine @ [1, 3, 2, 1])


@given(grids())
def test_a_coarser_grid_spans_the_finer_one(grid: Grid):
    coarse = grid.nodes([2, 3, 1])
    ends = (np.array(coarse.shape) - 1) * [2, 3, 1]
    assert (ends >= np.array(grid.shape) - 1).all()
    assert np.allclose(coarse.affine @ [1, 1, 1, 1], grid.affine @ [2, 3, 1, 1])


@given(grids())
def test_spacing_is_the_step_between_neighbours(grid: Grid):
    steps = [np.linalg.norm(grid.affine[:3, :3] @ unit) for unit in np.eye(3)]
    assert np.allclose(grid.spacing_mm, steps)


def test_grids_are_the_same_up_to_a_thousandth_of_a_voxel():
    grid = Grid((10, 10, 10), np.eye(4))
    nudged = np.eye(4)
    nudged[0, 3] = 5e-4
    assert grid.same_as(Grid((10, 10, 10), nudged))
    nudged[0, 3] = 5e-3
    assert not grid.same_as(Grid((10, 10, 10), nudged))
    assert not grid.same_as(Grid((10, 10, 9), np.eye(4)))


@pytest.mark.parametrize(
    ("shape", "affine", "words"),
    [
        ((4, 4, 4), np.diag([1.0, 0, 1, 1]), "singular"),
        ((4, 4, 4), np.full((4, 4), np.nan), "not finite"),
        ((4, 4), np.eye(4), "one larger"),
        ((4, 0, 4), np.eye(4), "at least one voxel"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(shape: tuple, affine: np.ndarray, words: str):
    with pytest.raises(InputError, match=words):
        Grid(shape, affine)


def test_a_plane_becomes_a_slice_whose_voxels_stay_in_place():
    affine = np.array([[0.0, 2.0, 5.0], [3.0, 0.0, -7.0], [0, 0, 1]])
    plane = Grid((4, 6), affine)
    slice_ = plane.embedded()
    assert slice_.shape == (4, 1, 6)
    assert np.allclose((slice_.affine @ [2, 0, 3, 1])[:2], (affine @ [2, 3, 1])[:2])
    assert plane.spacing_mm == (slice_.spacing_mm[0], slice_.spacing_mm[2])


def test_an_image_refuses_complex_numbers_and_other_grids():
    with pytest.raises(InputError, match="complex"):
        Image.from_array(np.zeros((4, 4, 4), complex))
    with pytest.raises(InputError, match="grid"):
        Image(np.zeros((1, 4, 4)), Grid((4, 5), np.eye(3)))
    with pytest.raises(InputError, match="axes"):
        Image.from_array(np.zeros(4))


def test_the_intensity_range_ignores_outliers_and_background():
    rng = np.random.default_rng(0)
    data = np.zeros(100_000, np.float32)
    data[:30_000] = rng.uniform(100, 200, 30_000)
    data[0] = 1e6
    low, high = intensity_range(data)
    assert low == 0
    assert 195 < high <= 200
    assert 0 <= normalised(data).min() < normalised(data).max() <= 1.2 + 1e-6


def test_a_table_names_the_nearest_row():
    table = Table("fruit", {"apple": "math:pi", "pear": "math:e"})
    assert table["apple"] == pytest.approx(3.14159, abs=1e-5)
    assert list(table) == ["apple", "pear"]
    with pytest.raises(InputError, match="Did you mean 'apple'"):
        table["aple"]


def test_settings_refuse_what_they_do_not_know():
    level = {"image": 1, "field": 1, "iterations": 3}
    settings = DescentSettings.parse({"scales": [level], "cap": 1})
    assert settings.scales[0] == ScaleSettings(image=1, field=1, iterations=3)
    assert DescentSettings.parse(settings.model_dump(mode="json")) == settings
    with pytest.raises(InputError, match="Did you mean 'tolerance'"):
        DescentSettings.parse({"scales": [level], "tolerence": 1})
    with pytest.raises(InputError, match="momentum"):
        settings.replace(momentum="much")
