"""Rigid and affine registration: damped Gauss-Newton steps in a pyramid."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from warpwise.events import Event, OnEvent, ignore
from warpwise.pair import Pair
from warpwise.registrars.base import Recorder
from warpwise.registrars.linear.gauss_newton import Problem
from warpwise.settings import Settings
from warpwise.shapes import Matrix4
from warpwise.similarity.base import LinearMeasure
from warpwise.similarity.label import LabelOverlap
from warpwise.similarity.landmarks import Landmarks
from warpwise.volume import scale_factors

STRETCH = 2.0  # no scale may stretch or shrink by more: images that share nothing would be flattened to a point

Freedom = Literal["translation", "rigid", "similarity", "affine"]


class LinearSettings(Settings):
    """How the linear stage works.

    Attributes:
        transform: what may move in the end; coarse scales stay rigid.
        coarsest_voxels, finest_voxels: sizes (voxels) between which images are registered: a scale is used if its
            fixed image has at least the first and about at most the second number.
        iterations: at most so many a scale.
        tolerance_voxels: a scale ends when no corner moves by more.
    """

    transform: Freedom = "affine"
    coarsest_voxels: int = Field(default=6_000, ge=1)
    finest_voxels: int = Field(default=1_000_000, ge=1)
    iterations: int = Field(default=20, ge=1)
    tolerance_voxels: float = Field(default=0.03, ge=0)


@dataclass(frozen=True, eq=False)
class LinearSolution:
    """The matrix found (fixed index → moving index of the full grids), its value, and how it came about."""

    to_moving: Matrix4
    value: float
    history: tuple[Event, ...]
    stops: tuple[str, ...]


def generators(pair: Pair, freedom: Freedom) -> list[Matrix4]:
    """Directions of motion as 4×4 matrices on fixed indices, each moving the image's rim by about 1 mm.

    The motion is one of world mm round the grid's centre, so that rigid means rigid whatever the axes are.
    """
    grid = pair.fixed.grid
    centre = np.eye(4)
    centre[:3, 3] = -(grid.affine @ np.append((np.array(grid.shape) - 1) / 2, 1))[:3]
    to_mm = centre @ grid.affine
    radius = 0.5 * float(np.linalg.norm([s * n for s, n in zip(grid.spacing_mm, grid.shape, strict=True) if n > 1]))
    dim = 2 if pair.planar else 3
    basis: list[Matrix4] = []

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


def exponential(matrix: Matrix4) -> Matrix4:
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
    matrix: Matrix4,
    basis: Sequence[Matrix4],
    *,
    iterations: int,
    tolerance_voxels: float,
    recorder: Recorder | None = None,
    scale: int = 0,
) -> tuple[Matrix4, float, str]:
    """Lower a problem's value over matrix·exp(Σ c·basis). Steps are scaled Gauss-Newton steps that must not climb."""
    columns = np.stack([b[:3].ravel() for b in basis], 1)
    shape = problem.pair.fixed.shape
    corners = np.array([[x, y, z, 1] for x in (0, shape[0]) for y in (0, shape[1]) for z in (0, shape[2])], np.float64).T
    value = problem.value(matrix)
    if not np.isfinite(value):
        return matrix, value, "no overlap"
    if recorder:
        recorder.begin()
    damping, start = 1.0, matrix
    for _ in range(iterations):
        if recorder:
            recorder.add(scale, iterations, value)
        gradient, hessian = problem.normal_equations()
        g, h = columns.T @ gradient, columns.T @ hessian @ columns
        h = h + np.diag(1e-4 * np.diag(h) + 1e-12 * max(float(np.trace(h)), 1e-12))
        for _attempt in range(6):
            c = -np.linalg.solve(damping * h, g)
            candidate = matrix @ exponential(np.einsum("k,kij->ij", c, np.stack(basis)))
            lower = problem.value(candidate) if stretch(problem.pair, start, candidate) < STRETCH else np.inf
            if lower < value:
                break
            damping *= 4.0
        else:
            problem.value(matrix)
            return matrix, value, "no better step"
        moved = float(np.abs((candidate - matrix) @ corners).max())
        matrix, value = candidate, lower
        damping = max(damping / 2.0, 0.25)
        if moved < tolerance_voxels:
            return matrix, value, "converged"
    return matrix, value, "all iterations"


def stretch(pair: Pair, start: Matrix4, matrix: Matrix4) -> float:
    """By how much `matrix` stretches or shrinks space against `start`, at most in any direction."""
    linear = (pair.fixed.grid.affine @ np.linalg.solve(start, matrix) @ pair.fixed.grid.inverse_affine)[:3, :3]
    values = np.linalg.svd(linear, compute_uv=False)
    return float(max(values.max(), 1 / max(values.min(), 1e-12)))


def usable_scales(pair: Pair, settings: LinearSettings) -> list[int]:
    """Scales from coarse to fine whose fixed images have a fitting number of voxels."""
    sizes: list[int] = []
    for scale in range(8):
        size = int(np.prod(scale_shape(pair, scale)))
        if sizes and size == sizes[-1]:
            break
        sizes.append(size)
    planar = 10 if pair.planar else 1  # a slice needs fewer voxels than a volume to be seen
    fine = [k for k, n in enumerate(sizes) if n <= settings.finest_voxels] or [len(sizes) - 1]
    coarse = [k for k in fine if sizes[k] * planar >= settings.coarsest_voxels] or fine[:1]
    return coarse[::-1][-3:] if len(coarse) > 3 else coarse[::-1]


def scale_shape(pair: Pair, scale: int) -> tuple[int, ...]:
    """Shape of the fixed image at a scale."""
    return tuple(-(-n // f) for n, f in zip(pair.fixed.grid.shape, scale_factors(pair.fixed.grid, scale), strict=True))


Round = tuple[int, Freedom, LinearMeasure]
"""Scale, what may move, and by which measure."""


def solve(
    pair: Pair,
    settings: LinearSettings,
    *,
    measure: LinearMeasure,
    labels: LabelOverlap | None = None,
    landmarks: Landmarks | None = None,
    on_step: OnEvent = ignore,
) -> LinearSolution:
    """Register linearly from `pair.to_moving`, by a measure of intensities and, where given, labels and landmarks.

    A global measure goes from coarse to fine. It heeds the rim of a head above all, and stretches one brain to the
    outline of another; lncc heeds the inside too, but sees less far. So it starts from a coarse rigid answer by ncc, and
    yields to the global route where that ends better by its own measure.
    """
    recorder = Recorder(on_step, settings.transform, tolerance=-1.0)
    stops: list[str] = []
    scales = usable_scales(pair, settings)
    images: dict[int, Pair] = {}

    def at_scale(scale: int, matrix: Matrix4) -> Pair:
        if scale not in images:
            images[scale] = pair.at_scale(scale)
        return images[scale].moved(lift(matrix, pair, images[scale]))

    def problem_of(small: Pair, by: LinearMeasure) -> Problem:
        return Problem(small, by, labels=labels, landmarks=landmarks)

    def follow(start: Matrix4, rounds: list[Round]) -> tuple[Matrix4, float]:
        matrix, value = start, float("nan")
        for scale, freedom, by in rounds:
            small = at_scale(scale, matrix)
            matrix, value, stop = minimise(
                problem_of(small, by),
                small.to_moving,
                generators(small, freedom),
                iterations=settings.iterations,
                tolerance_voxels=settings.tolerance_voxels,
                recorder=recorder,
                scale=scale,
            )
            matrix = lift(matrix, small, pair)
            stops.append(stop)
        return matrix, value

    freedom = settings.transform
    if measure != "lncc":
        matrix, value = follow(pair.to_moving, pyramid_rounds(scales, freedom, measure))
        return LinearSolution(matrix, value, tuple(recorder.steps), tuple(stops))
    finest = scales[-1]
    last: list[Round] = [(finest, freedom, "lncc")]
    rigid: list[Round] = [] if freedom in ("rigid", "translation") else [(finest, "rigid", "lncc")]
    coarse: Freedom = freedom if freedom == "translation" else "rigid"
    matrix, value = follow(pair.to_moving, [(scales[0], coarse, "ncc"), *rigid, *last])
    other, _ = follow(pair.to_moving, pyramid_rounds(scales[:-1] or scales, freedom, "ncc"))
    small = at_scale(finest, other)
    if problem_of(small, "lncc").value(small.to_moving) < value:
        matrix, value = follow(other, last)
    return LinearSolution(matrix, value, tuple(recorder.steps), tuple(stops))


def pyramid_rounds(scales: Sequence[int], freedom: Freedom, measure: LinearMeasure) -> list[Round]:
    """Coarse to fine; only rigid at the coarsest scale, where shapes are hardly seen."""
    first: Freedom = "rigid" if freedom in ("affine", "similarity") else freedom
    rounds: list[Round] = [(scales[0], first, measure)]
    finer: list[Round] = [(scale, freedom, measure) for scale in scales[1:] or scales[:1]]
    return rounds + (finer if finer != rounds else [])


def lift(matrix: Matrix4, small: Pair, full: Pair) -> Matrix4:
    """A matrix between the grids of one pair as one between those of another, which lie in the same world."""
    back, ahead = full.moving.grid.inverse_affine @ small.moving.grid.affine, full.fixed.grid.affine
    return back @ matrix @ small.fixed.grid.inverse_affine @ ahead
