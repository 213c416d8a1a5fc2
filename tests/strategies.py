"""Hypothesis strategies: grids of every orientation, smooth fields."""

import numpy as np
from hypothesis import strategies as st

from warpwise.grid import Grid
from warpwise.synthetic.deformations import random_rotation, random_velocity
from warpwise.transforms.velocity import exponential


@st.composite
def affines(draw, dim: int = 3) -> np.ndarray:
    """Oblique, left- or right-handed, anisotropic, anywhere."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rotation = random_rotation(rng)
    if dim == 2:
        angle = rng.uniform(0, 2 * np.pi)
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    flips = np.array([draw(st.sampled_from([1.0, -1.0])) for _ in range(dim)])
    spacing = np.array([draw(st.sampled_from([0.45, 1.0, 2.5, 6.0])) for _ in range(dim)])
    out = np.eye(dim + 1)
    out[:-1, :-1] = rotation[:, rng.permutation(dim)] * spacing * flips
    out[:-1, -1] = rng.uniform(-300, 300, dim)
    return out


@st.composite
def grids(draw, dim: int = 3, smallest: int = 4, largest: int = 12) -> Grid:
    shape = tuple(draw(st.integers(smallest, largest)) for _ in range(dim))
    return Grid(shape, draw(affines(dim)))


@st.composite
def smooth_fields(draw, shape: tuple[int, int, int] = (16, 18, 14), *, amplitude: float = 1.5) -> np.ndarray:
    """Diffeomorphic displacements (3, X, Y, Z), voxels, 0 at the border."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return exponential(random_velocity(shape, rng, sigma=3.0, amplitude=amplitude), squarings=7)
