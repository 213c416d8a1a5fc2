"""Rigid and affine registration: damped Gauss-Newton steps in a pyramid."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from warpwise.pair import Pair, level_factors, pyramid_level
from warpwise.registrars.base import OnStep, Recorder, Step, ignore
from warpwise.registrars.gauss_newton import Problem
from warpwise.settings import Settings

Matrix = NDArray[np.float64]
Freedom = Literal["translation", "rigid", "similarity", "affine"]


class AffineSettings(Settings):
    """How the linear stage works.

    Attributes:
        transform: what may move in the end; coarse levels stay rigid.
        coarsest_voxels, finest_voxels: sizes (voxels) between which images are registered: a level is used if its
            fixed image has at least the first and about at most the second number.
        iterations: at most so many a level.
        tolerance_voxels: a level ends when no corner moves by more.
    """

    transform: Freedom = "affine"
    coarsest_voxels: int = 6_000
    finest_voxels: int = 1_000_000
    iterations: int = 20
    tolerance_voxels: float = 0.005


@dataclass(frozen=True, eq=False)
class AffineSolution:
    """The matrix found (fixed index → moving index of the full grids), its value, and how it came about."""

    to_moving: Matrix
    value: float
    history: tuple[Step, ...]
    stops: tuple[str, ...]


def generators(pair: Pair, freedom: Freedom) -> list[Matrix]:
    """Directions of motion as 4×4 matrices on fixed indices, each moving the image's rim by about 1 mm.

    The motion is one of world mm round the grid's centre, so that rigid means rigid whatever the axes are.
    """
    grid = pair.grid
    centre = np.eye(4)
    centre[:3, 3] = -(grid.affine @ np.append((np.array(grid.shape) - 1) / 2, 1))[:3]
    to_mm = centre @ grid.affine
    radius = 0.5 * float(np.linalg.norm([s * n for s, n in zip(grid.spacing_mm, grid.shape, strict=True) if n > 1]))
    dim = 2 if pair.planar else 3
    basis: list[Matrix] = []

    def add(entries: dict[tuple[int, int], float]) -> None:
        element = np.zeros((4, 4))
        for at, value in entries.items():
            element[at] = value
        basis.append(np.linalg.inv(to_mm) @ element @ to_mm)

    for a in range(dim):
        add({(a, 3): 1.0})
    if freedom in ("rigid", "similarity"):
        for a in range(dim):
            for b in range(a + 1, dim):
                add({(a, b): -1 / radius, (b, a): 1 / radius})
    if freedom == "similarity":
        add({(a, a): 1 / radius for a in range(dim)})
    if freedom == "affine":
        for a in range(dim):
            for b in range(dim):
                add({(a, b): 1 / radius})
    return basis


def exponential(matrix: Matrix) -> Matrix:
    """exp of a small 4×4 matrix by scaling and its Taylor series."""
    squarings = max(0, int(np.ceil(np.log2(max(float(np.abs(matrix).sum(1).max()), 1e-12)))) + 1)
    scaled = matrix / 2.0**squarings
    total, power = np.eye(4), np.eye(4)
    for k in range(1, 13):
        power = power @ scaled / k
        total = total + power
    for _ in range(squarings):
        total = total @ total
    return total


def minimise(
    problem: Problem,
    matrix: Matrix,
    basis: Sequence[Matrix],
    *,
    iterations: int,
    tolerance_voxels: float,
    recorder: Recorder | None = None,
    level: int = 0,
) -> tuple[Matrix, float, str]:
    """Lower a problem's value over matrix·exp(Σ c·basis). Steps are scaled Gauss-Newton steps that must not climb."""
    columns = np.stack([b[:3].ravel() for b in basis], 1)
    shape = problem.pair.fixed.shape[1:]
    corners = np.array([[x, y, z, 1] for x in (0, shape[0]) for y in (0, shape[1]) for z in (0, shape[2])], np.float64).T
    value = problem.value(matrix)
    if recorder:
        recorder.begin()
    stiffness = 1.0
    for _ in range(iterations):
        if recorder:
            recorder.add(level, iterations, value)
        gradient, hessian = problem.normal_equations()
        g, h = columns.T @ gradient, columns.T @ hessian @ columns
        h = h + np.diag(1e-4 * np.diag(h) + 1e-12 * max(float(np.trace(h)), 1e-12))
        for _attempt in range(6):
            c = -np.linalg.solve(stiffness * h, g)
            candidate = matrix @ exponential(np.einsum("k,kij->ij", c, np.stack(basis)))
            lower = problem.value(candidate)
            if lower < value:
                break
            stiffness *= 4.0
        else:
            problem.value(matrix)
            return matrix, value, "no better step"
        moved = float(np.abs((candidate - matrix) @ corners).max())
        matrix, value = candidate, lower
        stiffness = max(stiffness / 2.0, 0.25)
        if moved < tolerance_voxels:
            return matrix, value, "converged"
    return matrix, value, "all iterations"


def usable_levels(pair: Pair, settings: AffineSettings) -> list[int]:
    """Pyramid levels from coarse to fine whose fixed images have a fitting number of voxels."""
    sizes: list[int] = []
    for level in range(8):
        size = int(np.prod(pyramid_shape(pair, level)))
        if sizes and size == sizes[-1]:
            break
        sizes.append(size)
    planar = 10 if pair.planar else 1  # a slice needs fewer voxels than a volume to be seen
    fine = [k for k, n in enumerate(sizes) if n <= settings.finest_voxels] or [len(sizes) - 1]
    coarse = [k for k in fine if sizes[k] * planar >= settings.coarsest_voxels] or fine[:1]
    return coarse[::-1][-3:] if len(coarse) > 3 else coarse[::-1]


def pyramid_shape(pair: Pair, level: int) -> tuple[int, ...]:
    """Shape of the fixed image at a level."""
    return tuple(-(-n // f) for n, f in zip(pair.grid.shape, level_factors(pair.grid, level), strict=True))


def solve(pair: Pair, settings: AffineSettings, *, similarity: str, on_step: OnStep = ignore) -> AffineSolution:
    """Register linearly from `pair.to_moving`; similarity ncc, mse or mi."""
    recorder = Recorder(on_step, settings.transform, tolerance=-1.0)
    matrix, value = pair.to_moving, float("nan")
    stops: list[str] = []
    levels = usable_levels(pair, settings)
    for k, level in enumerate(levels):
        small = pyramid_level(pair.moved(matrix), level)
        rigid_first = k == 0 and settings.transform in ("affine", "similarity")
        stages: list[Freedom] = ["rigid"] if rigid_first else [settings.transform]
        if rigid_first and len(levels) == 1:
            stages.append(settings.transform)
        problem = Problem(small, similarity)
        found = small.to_moving
        for stage in stages:
            found, value, stop = minimise(
                problem,
                found,
                generators(small, stage),
                iterations=settings.iterations,
                tolerance_voxels=settings.tolerance_voxels,
                recorder=recorder,
                level=level,
            )
            stops.append(stop)
        matrix = lift(found, small, pair)
    return AffineSolution(matrix, value, tuple(recorder.steps), tuple(stops))


def lift(matrix: Matrix, small: Pair, full: Pair) -> Matrix:
    """A matrix between two coarse grids as one between the full grids."""
    return full.moving_grid.inverse_affine @ small.moving_grid.affine @ matrix @ small.grid.inverse_affine @ full.grid.affine
