"""Random smooth deformations, invertible by construction."""

import numpy as np
from numpy.typing import NDArray

from warpwise.grid import Grid
from warpwise.ops import kernels
from warpwise.shapes import Array
from warpwise.transforms.affine import Affine
from warpwise.transforms.displacement import DisplacementField
from warpwise.transforms.velocity import exponential


def random_velocity(shape: tuple[int, int, int], rng: np.random.Generator, *, sigma: float, amplitude: float) -> Array:
    """Smooth noise (3, X, Y, Z): Gaussian of `sigma` voxels, root mean square length `amplitude` voxels.

    It fades to 0 over the last 2·sigma voxels at each border.
    """
    step = max(1, int(sigma // 3))
    coarse = kernels.coarse_shape(shape, (step, step, step))
    noise = rng.standard_normal((3, *coarse)).astype(np.float32)
    noise[[n == 1 for n in shape]] = 0
    widths = [sigma / step if n > 1 else 0.0 for n in coarse]
    field = kernels.upsample(kernels.gaussian(noise, widths), shape, (step, step, step))
    for axis, n in enumerate(shape):
        if n > 1:
            at = np.arange(n)
            ramp = np.clip(np.minimum(at, n - 1 - at) / (2 * sigma), 0, 1).astype(np.float32)
            field *= ramp.reshape([-1 if a == axis + 1 else 1 for a in range(4)])
    return field * np.float32(amplitude / max(float(np.sqrt((field**2).sum(0).mean())), 1e-12))


def random_deformation(grid: Grid, rng: np.random.Generator, *, sigma_mm: float, amplitude_mm: float) -> DisplacementField:
    """exp of a random velocity on a 3-D grid, in mm."""
    voxel = float(np.mean(grid.spacing_mm))
    x, y, z = grid.shape
    v = random_velocity((x, y, z), rng, sigma=sigma_mm / voxel, amplitude=amplitude_mm / voxel)
    longest = float(np.sqrt((v**2).sum(0).max()))
    squarings = max(1, int(np.ceil(np.log2(max(longest, 1e-6) / 0.1))))
    return DisplacementField(kernels.map_vectors(exponential(v, squarings=squarings), grid.affine[:3, :3]), grid)


def random_rotation(rng: np.random.Generator) -> NDArray[np.float64]:
    """A rotation (3, 3), uniform over all."""
    q = rng.standard_normal(4)
    w, x, y, z = q / np.linalg.norm(q)
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ])


def small_rotation(rng: np.random.Generator, *, degrees: float) -> NDArray[np.float64]:
    """A rotation (3, 3) by `degrees` about a random axis (Rodrigues' formula)."""
    axis = rng.standard_normal(3)
    x, y, z = axis / np.linalg.norm(axis)
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.deg2rad(degrees)
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def random_affine(
    rng: np.random.Generator,
    *,
    centre_mm: NDArray[np.float64],
    rotation: NDArray[np.float64],
    shift_mm: float,
    scaling: float = 0.0,
    shear: float = 0.0,
) -> Affine:
    """A rotation about a centre, then scalings of 1 ± scaling and shears up to `shear`, then a shift of that length."""
    stretch = np.diag(1 + scaling * rng.uniform(-1, 1, 3)) + np.triu(shear * rng.uniform(-1, 1, (3, 3)), 1)
    direction = rng.standard_normal(3)
    matrix = np.eye(4)
    matrix[:3, :3] = rotation @ stretch
    shift = shift_mm * direction / np.linalg.norm(direction)
    matrix[:3, 3] = centre_mm - matrix[:3, :3] @ centre_mm + shift
    return Affine(matrix)
