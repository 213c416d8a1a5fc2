"""Images at a network's spacing: positions in the world stay, there and back."""

import numpy as np
import pytest

from warpwise.errors import InputError
from warpwise.grid import Grid
from warpwise.image import Image, normalised
from warpwise.networks.model import ModelCard
from warpwise.pair import Pair
from warpwise.registrars.learned.working import working_image, working_pair
from warpwise.spacing import at_spacing, labels_at_spacing, on_all_voxels, ratios
from warpwise.volume import Volume


def ball(grid: Grid, centre_mm: np.ndarray, radius_mm: float) -> np.ndarray:
    at = np.indices(grid.shape).reshape(3, -1)
    mm = grid.affine[:3, :3] @ at + grid.affine[:3, 3:]
    far = np.linalg.norm(mm - centre_mm[:, None], axis=0)
    return np.exp(-((far / radius_mm) ** 2)).reshape(grid.shape).astype(np.float32)


def middle_of(image: np.ndarray, grid: Grid) -> np.ndarray:
    at = np.indices(grid.shape).reshape(3, -1)
    index = (at * image.reshape(-1)).sum(1) / image.sum()
    return grid.affine[:3, :3] @ index + grid.affine[:3, 3]


def test_a_ball_stays_where_it_is_at_another_spacing():
    grid = Grid((40, 44, 18), np.array([[1, 0, 0, -20], [0, 1, 0, -22], [0, 0, 2.5, -20], [0, 0, 0, 1.0]]))
    centre = np.array([1.0, -2.0, 3.0])
    image = ball(grid, centre, 6.0)[None]
    out, working = at_spacing(image, grid, (1.7, 1.7, 2.5))
    assert working.spacing_mm == pytest.approx((1.7, 1.7, 2.5))
    assert np.abs(middle_of(out[0], working) - middle_of(image[0], grid)).max() < 0.02  # mm


def test_its_own_spacing_changes_nothing():
    grid = Grid((8, 9, 10), np.diag([1.0, 1.01, 1.0, 1.0]))
    image = np.zeros((1, 8, 9, 10), np.float32)
    assert at_spacing(image, grid, (1.0, 1.0, 1.0))[0] is image
    assert (ratios(grid, (2.0, 2.0, 2.0)) == [2, 2 / 1.01, 2]).all()


def test_labels_are_those_of_the_nearest_voxel():
    labels = np.arange(10, dtype=np.int16)[:, None, None] * np.ones((1, 4, 4), np.int16)
    grid = Grid((10, 4, 4), np.eye(4))
    assert labels_at_spacing(labels, grid, (3.0, 1.0, 1.0))[:, 0, 0].tolist() == [0, 3, 6, 9]


def test_the_moving_image_is_seen_under_the_affine_and_a_field_comes_back_in_voxels_of_the_pair():
    fixed_grid = Grid((36, 40, 32), np.eye(4))
    moving_grid = Grid((24, 26, 22), np.diag([1.5, 1.5, 1.5, 1.0]))
    centre = np.array([17.0, 20.0, 15.0])
    shift = np.array([3.0, -2.0, 1.0])
    fixed, moving = ball(fixed_grid, centre, 5.0), ball(moving_grid, centre + shift, 5.0)
    world = np.eye(4)
    world[:3, 3] = shift
    matrix = moving_grid.inverse_affine @ world @ fixed_grid.affine
    pair = Pair(Volume(fixed[None], fixed_grid), Volume(moving[None], moving_grid), matrix)
    seen = working_pair(pair, ModelCard(network="pyramid", dim=3, spacing_mm=(2.0, 2.0, 2.0)))
    working = Grid(seen.fixed.shape[1:], np.diag([2.0, 2.0, 2.0, 1.0]))
    assert np.abs(middle_of(seen.fixed[0], working) - middle_of(seen.moving[0], working)).max() < 0.1  # mm
    field = np.full((3, *seen.fixed.shape[1:]), 0.75, np.float32)
    assert on_all_voxels(field, seen.step, (36, 40, 32)) == pytest.approx(1.5)


@pytest.mark.parametrize("shape", [(12, 14), (12, 14, 10)], ids=["2-D", "3-D"])
def test_a_network_sees_an_image_upright_and_stretched_as_its_card_says(shape):
    dim = len(shape)
    data = np.random.default_rng(0).uniform(0, 1000, shape).astype(np.float32)
    turn = np.eye(dim + 1)
    turn[0, 0], turn[0, -1] = -1, shape[0] - 1
    card = ModelCard(network="pyramid", dim=dim, spacing_mm=(1.0,) * dim, percentiles=(10.0, 80.0))
    for image in (Image(data[None], Grid(shape, np.eye(dim + 1))), Image(data[None, ::-1], Grid(shape, turn))):
        seen, grid = working_image(image, card)
        assert grid.dim == 3
        assert grid.spacing_mm == pytest.approx((1, 1, 1))
        assert np.array_equal(seen.reshape(shape), normalised(data, percentiles=(10.0, 80.0)))
    with pytest.raises(InputError, match="images have 2"):
        working_image(Image(np.stack([data, data]), Grid(shape, np.eye(dim + 1))), card)
