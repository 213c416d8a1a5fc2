"""Starts and the linear stage against known motions."""

import numpy as np
import pytest
from asking import prepared, register

from warpwise.grid import Grid
from warpwise.image import Image
from warpwise.registrars.linear import starts
from warpwise.registrars.linear.affine import LinearSettings, exponential, generators, usable_scales
from warpwise.registrars.linear.gauss_newton import Problem
from warpwise.resampling import resample
from warpwise.synthetic.deformations import random_rotation
from warpwise.synthetic.phantoms import KnownPair, brain_pair
from warpwise.transforms.affine import Affine


@pytest.fixture(scope="module")
def pair() -> KnownPair:
    return brain_pair((48, 57, 45), seed=5)


def posed(image: Image, matrix: np.ndarray) -> Image:
    """The same voxels elsewhere in the world."""
    return Image(image.data, Grid(image.grid.shape, matrix @ image.grid.affine))


def miss_mm(found: np.ndarray, truth: np.ndarray) -> float:
    corners = np.array([[x, y, z, 1] for x in (-50, 50) for y in (-60, 60) for z in (-50, 50)])
    return float(np.linalg.norm(corners @ (found - truth)[:3].T, axis=1).max())


@pytest.mark.parametrize("seed", range(6))
def test_any_rotation_and_shift_of_a_head_is_undone(pair: KnownPair, seed: int):
    rng = np.random.default_rng(seed)
    pose = np.eye(4)
    pose[:3, :3] = random_rotation(rng)
    pose[:3, 3] = rng.uniform(-300, 300, 3)
    result = register(pair.fixed, posed(pair.fixed, pose), transform="rigid")
    assert miss_mm(result.affine_only, pose) < 1.0
    turned = np.degrees(np.arccos(np.clip((np.trace(pose[:3, :3]) - 1) / 2, -1, 1)))
    assert any("axes do not agree" in w for w in result.warnings) == (turned > 45)


def test_partial_coverage_does_not_mislead_the_start(pair: KnownPair):
    part = pair.fixed.grid.cropped([0, 0, 22], [48, 57, 23])
    top = Image(pair.fixed.data[:, :, :, 22:], part)
    shift = np.eye(4)
    shift[:3, 3] = [0, 0, 35]
    result = register(pair.fixed, posed(top, shift), transform="rigid")
    assert miss_mm(result.affine_only, shift) < 2.0


@pytest.mark.parametrize("similarity", ["ncc", "mse", "mi"])
def test_a_known_affine_is_found_to_a_tenth_of_a_voxel(pair: KnownPair, similarity: str):
    matrix = np.eye(4)
    matrix[:3, :3] = [[1.05, 0.03, 0], [-0.02, 0.94, 0.04], [0.01, 0, 1.02]]
    matrix[:3, 3] = [4, -6, 3]
    fixed = resample(pair.moving, pair.fixed.grid, Affine(matrix), interpolation="cubic")
    result = register(fixed, pair.moving, transform="affine", similarity=similarity)
    assert miss_mm(result.affine_only, matrix) < 0.1 * 3 * max(pair.fixed.grid.spacing_mm)


def test_rigid_is_rigid_whatever_the_axes(pair: KnownPair):
    stored = Image(
        np.ascontiguousarray(pair.moving.data.transpose(0, 3, 1, 2)),
        Grid((45, 48, 57), pair.moving.grid.affine[:, [2, 0, 1, 3]]),
    )
    found = register(pair.fixed, stored, transform="rigid").affine_only[:3, :3]
    assert np.allclose(found @ found.T, np.eye(3), atol=1e-6)
    assert np.linalg.det(found) == pytest.approx(1)


@pytest.mark.parametrize("similarity", ["ncc", "mse", "mi"])
def test_normal_equations_hold_the_gradient_of_the_value(pair: KnownPair, similarity: str):
    small = starts.coarsest(prepared(pair.fixed, pair.moving))
    problem = Problem(small, similarity)
    matrix = small.to_moving
    problem.value(matrix)
    gradient, hessian = problem.normal_equations()
    assert np.allclose(hessian, hessian.T)
    basis = generators(small, "affine")
    for direction in basis[:6]:
        # Central differences over steps of 0.2 mm: the kernel differentiates a warped image by central differences too.
        up, down = (problem.value(matrix @ exponential(s * 0.2 * direction)) for s in (1, -1))
        slope = float(direction[:3].ravel() @ gradient)
        assert slope == pytest.approx((up - down) / 0.4, abs=(0.6 if similarity == "mi" else 0.15) * max(abs(slope), 2e-3))


def test_the_exponential_of_a_small_matrix_is_scipys():
    from scipy.linalg import expm

    matrix = np.random.default_rng(0).normal(0, 0.7, (4, 4))
    assert np.allclose(exponential(matrix), expm(matrix))


def test_rotations_are_rotations_and_evenly_spread():
    found = starts.rotations(starts.ROTATIONS)
    assert np.allclose(found @ found.transpose(0, 2, 1), np.eye(3), atol=1e-12)
    assert np.allclose(np.linalg.det(found), 1)
    cosines = (np.einsum("aij,bij->ab", found, found) - 1) / 2
    np.fill_diagonal(cosines, -1)
    nearest = np.degrees(np.arccos(np.clip(cosines.max(1), -1, 1)))
    assert nearest.max() < 35


def test_every_rotation_has_a_start_nearby():
    found = starts.rotations(starts.ROTATIONS)
    rng = np.random.default_rng(0)
    gaps = [np.degrees(np.arccos((np.einsum("kij,ij->k", found, random_rotation(rng)).max() - 1) / 2)) for _ in range(200)]
    assert max(gaps) < 25


def test_scales_go_from_coarse_to_fine(pair: KnownPair):
    scales = usable_scales(prepared(pair.fixed, pair.moving), LinearSettings())
    assert scales == sorted(scales, reverse=True)


def test_images_without_overlap_in_a_known_start_are_distrusted(pair: KnownPair):
    far = np.eye(4)
    far[0, 3] = 75
    result = register(pair.fixed, pair.moving, initial=far, transform="rigid")
    assert miss_mm(result.affine_only, np.eye(4)) < 30 or result.warnings


def test_unrelated_images_carry_a_warning(pair: KnownPair):
    noise = np.random.default_rng(0).random(pair.fixed.grid.shape).astype(np.float32)
    result = register(pair.fixed, Image(noise[None], pair.fixed.grid))
    assert result.warnings


def test_images_that_share_nothing_are_not_flattened():
    rng = np.random.default_rng(0)
    for _ in range(10):
        a, b = (rng.random((14, 18)).astype(np.float32) for _ in range(2))
        found = register(a, b, transform="affine", similarity="ncc").affine_only[:2, :2]
        assert 0.1 < abs(np.linalg.det(found)) < 10
