"""Where to begin: the headers, centres of mass, and many rotations ranked by mutual information."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from warpwise.ops import kernels
from warpwise.pair import Pair
from warpwise.registrars.crop import overlap
from warpwise.registrars.linear.affine import Freedom, generators, lift, minimise, scale_shape
from warpwise.registrars.linear.gauss_newton import Problem
from warpwise.registrars.linear.shifts import ShiftSearch
from warpwise.shapes import Array, Map, Matrix4, Points
from warpwise.similarity.label import LabelOverlap

BINS = 16
BRIGHT = 0.1  # of the intensity range: darker voxels do not belong to the object
CUT = 0.4  # of a face of the image: where more of it is bright, the object goes on beyond
SIZED = 1.25  # objects of which one is so many times as large as the other are also compared at one size
ROTATIONS = 720  # about 22° apart
REFINED = 10  # of the best ranked are refined
MORE = 60  # where the best of those look alike
UPRIGHT = ("header", "centres of mass", "best shift", "size")  # starts that keep the header's orientation
SHIFTED = 4_000  # voxels of the slices whose shifts are searched for every rotation
# An orientation this far from the header's (degrees) must have so many times the mutual information of the header's own
# to be believed, a nearer one less in proportion: heads are nearly symmetric, and one turned round fits almost as well.
# So must another size, which can hide what does not fit.
TURNED = 45
ADVANTAGE = 1.25
# Orientations that coarse images can hardly tell apart are decided on finer ones. The right one of a phantom that is nearly
# the same upside down has 1.16 to 1.22 times the local correlation; heads have no such rivals.
RIVAL = 0.75  # of the best start's mutual information
APART = 20  # degrees at least between rivals
FINER = 100_000  # voxels
CONVINCING = 1.1  # times the local correlation
FITS = 0.6  # local correlation, at least: of two contrasts with little in common (0.25 of a neck's T1 and T2) it is chance


@dataclass(frozen=True, eq=False)
class Start:
    """The chosen start: its matrix (fixed index → moving index), its name, and the images' correlation there."""

    to_moving: Matrix4
    name: str
    correlation: float
    information: float


def rotations(count: int) -> NDArray[np.float64]:
    """Evenly spread rotation matrices (count, 3, 3).

    Source: super-Fibonacci spirals, Alexa, CVPR 2022.
    """
    i = np.arange(count) + 0.5
    t, d = i / count, 2 * np.pi * i
    alpha, beta = d / np.sqrt(2.0), d / 1.533751168755204288118041
    r, big = np.sqrt(t), np.sqrt(1 - t)
    x, y, z, w = r * np.sin(alpha), r * np.cos(alpha), big * np.sin(beta), big * np.cos(beta)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def plane_rotations(count: int) -> NDArray[np.float64]:
    """Rotations in the plane of a 2-D image (count, 3, 3)."""
    angle = np.arange(1, count + 1) * 2 * np.pi / (count + 1)
    out = np.zeros((count, 3, 3))
    out[:, 0, 0] = out[:, 1, 1] = np.cos(angle)
    out[:, 1, 0], out[:, 0, 1], out[:, 2, 2] = np.sin(angle), -np.sin(angle), 1
    return out


def centre_of_mass(image: Map) -> NDArray[np.float64]:
    """Intensity-weighted mean index of an image (X, Y, Z); the middle where it is dark everywhere."""
    total = float(image.sum(dtype=np.float64))
    if total <= 0:
        return (np.array(image.shape) - 1) / 2
    sums = [image.sum(tuple(b for b in range(3) if b != a), dtype=np.float64) for a in range(3)]
    return np.array([float(s @ np.arange(s.size)) / total for s in sums])


def relative_size(pair: Pair) -> float:
    """How many times as large the moving object is as the fixed one, by its bright voxels' distance from their centre; 1
    where one of them is cut by its field of view, so that its size is not known."""
    radii: list[float] = []
    for image, grid in zip(masked(pair), (pair.fixed.grid, pair.moving.grid), strict=True):
        bright = image > BRIGHT
        if max(float(bright.take(k, axis).mean()) for axis in range(3) for k in (0, -1) if bright.shape[axis] > 1) > CUT:
            return 1.0
        at = np.argwhere(bright) @ grid.affine[:3, :3].T
        radii.append(float(np.sqrt(at.var(0).sum())) if len(at) > 3 else 0.0)
    return radii[1] / radii[0] if min(radii) > 0 else 1.0


def masked(pair: Pair) -> tuple[Array, Array]:
    """First channels, dark where a mask hides them."""
    fixed, moving = pair.fixed.data[0], pair.moving.data[0]
    return (
        fixed if pair.fixed.mask is None else fixed * pair.fixed.mask,
        moving if pair.moving.mask is None else moving * pair.moving.mask,
    )


def moment_rotations(pair: Pair) -> list[NDArray[np.float64]]:
    """Rotations that bring the principal axes of the two images together (four sign choices)."""
    axes: list[NDArray[np.float64]] = []
    for image, grid in zip(masked(pair), (pair.fixed.grid, pair.moving.grid), strict=True):
        at = np.argwhere(image > 0.1)
        if len(at) < 4:
            return []
        world = at @ grid.affine[:3, :3].T
        _, vectors = np.linalg.eigh(np.cov((world - world.mean(0)).T))
        vectors[:, 2] *= np.sign(np.linalg.det(vectors)) or 1.0
        axes.append(vectors)
    signs = [np.diag([a, b, a * b]) for a in (1.0, -1.0) for b in (1.0, -1.0)]
    return [axes[1] @ s @ axes[0].T for s in signs]


def candidates(pair: Pair, freedom: Freedom = "rigid") -> tuple[list[str], NDArray[np.float64]]:
    """Names and world matrices (K, 4, 4): header, centres of mass, best shift, principal axes, rotations.

    Rotations are about the centres of mass; in a plane, where there are few, each also with its best shift.
    """
    images = masked(pair)
    fixed = pair.fixed.grid.affine @ np.append(centre_of_mass(images[0]), 1)
    moving = pair.moving.grid.affine @ np.append(centre_of_mass(images[1]), 1)
    turns = [np.eye(3), *([] if pair.planar or freedom == "translation" else moment_rotations(pair))]
    named = ["centres of mass", *["principal axes"] * (len(turns) - 1)]
    many = plane_rotations(71) if pair.planar else rotations(ROTATIONS)
    many = many[:0] if freedom == "translation" else many
    size = relative_size(pair)
    if freedom in ("similarity", "affine") and max(size, 1 / size) > SIZED:
        # The same again for objects of another size; what fits is decided as everything else is.
        named += ["size", *["rotation"] * len(many)]
        turns = [*turns, size * np.eye(3), *(size * many)]
    every = np.concatenate([np.stack(turns), many])
    world = np.tile(np.eye(4), (len(every) + 1, 1, 1))
    world[1:, :3, :3] = every
    world[1:, :3, 3] = moving[:3] - every @ fixed[:3]
    # What the images' headers (and an initial transform) say comes first.
    world[0] = pair.world
    names = ["header", *named, *["rotation"] * len(many)]
    tiny = coarsest(pair, SHIFTED) if pair.planar else pair
    search = ShiftSearch(tiny)
    another = [names.index("size")] if "size" in names else []
    turned = [1, *another, *range(len(names) - len(many), len(names))] if pair.planar else [1, *another]
    back, ahead = tiny.moving.grid.inverse_affine, tiny.fixed.grid.affine
    shifted = [tiny.moved(search.best(back @ world[k] @ ahead)).world for k in turned]
    shifts = ["best shift", *["size"] * len(another), *["rotation"] * (len(turned) - 1 - len(another))]
    return [*names, *shifts], np.concatenate([world, np.stack(shifted)])


def ranking(pair: Pair, matrices: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mutual information and correlation (K,) of binned images under each matrix (fixed index → moving index)."""
    sides = (pair.fixed.data, pair.moving.data)
    binned = [np.minimum(image[0] * (BINS / 1.2), BINS - 1).astype(np.int32) for image in sides]
    if pair.moving.mask is not None:
        binned[1][pair.moving.mask < 0.5] = BINS  # counts for nothing
    voxels = np.flatnonzero(pair.fixed.mask > 0.5) if pair.fixed.mask is not None else np.arange(pair.fixed.data[0].size)
    voxels = voxels[:: max(1, voxels.size // 8000)]
    points = np.ascontiguousarray(np.stack(np.unravel_index(voxels, pair.fixed.shape)), np.float32)
    fixed = np.ascontiguousarray(binned[0].ravel()[voxels])
    counts = kernels.pose_histograms(fixed, points, binned[1], matrices, bins=BINS).astype(np.float64)
    totals = counts.sum((1, 2), keepdims=True)
    p = counts / np.maximum(totals, 1)
    share = totals[:, 0, 0] / max(float(totals.max()), 1)
    rows, columns = p.sum(2), p.sum(1)

    def entropy(q: NDArray[np.float64]) -> NDArray[np.float64]:
        return -(q * np.log(np.maximum(q, 1e-12))).reshape(len(q), -1).sum(1)

    levels = np.arange(BINS)
    mean_f, mean_m = rows @ levels, columns @ levels
    variance = (rows @ levels**2 - mean_f**2) * (columns @ levels**2 - mean_m**2)
    covariance = np.einsum("kij,i,j->k", p, levels, levels) - mean_f * mean_m
    # A pose that hides much behind a mask must not win by having little to explain.
    return share * (entropy(rows) + entropy(columns) - entropy(p)), covariance / np.sqrt(np.maximum(variance, 1e-9))


def coarsest(pair: Pair, voxels: int = 16_000) -> Pair:
    """The pair at the first scale of at most so many voxels, where starts are compared."""
    scale = 0
    while np.prod(scale_shape(pair, scale)) > voxels and scale < 6:
        scale += 1
    return pair.at_scale(scale)


def given(pair: Pair) -> Start:
    """The start that `pair.to_moving` is, judged but not changed."""
    small = coarsest(pair)
    information, correlation = ranking(small, small.to_moving[None])
    return Start(pair.to_moving, "initial", float(correlation[0]), float(information[0]))


def fitted(pair: Pair, points: tuple[Points, Points]) -> Matrix4:
    """The rigid motion (fixed index → moving index) that brings points (n, 3) of both together best; too few only shift.

    Source: Kabsch, Acta Crystallographica 1976.
    """
    sides = zip(points, (pair.fixed.grid, pair.moving.grid), strict=True)
    fixed, moving = (voxels @ grid.affine[:3, :3].T + grid.affine[:3, 3] for voxels, grid in sides)
    at, to = fixed.mean(0), moving.mean(0)
    world = np.eye(4)
    spread = np.linalg.svd((fixed - at).T @ (moving - to))
    axes = 1 if pair.planar else 2  # points on a line (in a plane: a single point) leave the rotation open
    if spread[1][axes - 1] > 1e-6 * max(float(spread[1][0]), 1e-12) and len(fixed) > axes:
        u, _, v = spread
        turn = np.diag([1.0, 1.0, np.sign(np.linalg.det(v.T @ u.T))])
        world[:3, :3] = v.T @ turn @ u.T
    world[:3, 3] = to - world[:3, :3] @ at
    return pair.moving.grid.inverse_affine @ world @ pair.fixed.grid.affine


def choose(pair: Pair, labels: LabelOverlap | None = None, *, freedom: Freedom = "rigid") -> Start:
    """The best of all starts, after a few rigid steps from the most promising ones on the coarsest images.

    The header's orientation is kept unless another is clearly better, see `ADVANTAGE`. Landmarks settle it; labels, where
    there is a term for them, count beside mutual information. Another size is looked at where `freedom` allows it, and no
    other orientation where it allows translations alone.
    """
    if pair.fixed.points is not None and pair.moving.points is not None:
        there = given(pair.moved(fitted(pair, (pair.fixed.points, pair.moving.points))))
        return Start(there.to_moving, "landmarks", there.correlation, there.information)
    small = coarsest(pair)
    names, world = candidates(small, freedom)
    matrices = small.moving.grid.inverse_affine @ world @ small.fixed.grid.affine
    information, _ = ranking(small, matrices)
    upright = [k for k, name in enumerate(names) if name in UPRIGHT]
    others = [int(k) for k in np.argsort(-information) if k not in upright]
    basis = generators(small, "translation" if freedom == "translation" else "rigid")

    def refined(order: list[int]) -> list[tuple[Matrix4, str]]:
        out: list[tuple[Matrix4, str]] = []
        for k in order:
            problem = Problem(small, "mi", labels=labels, bins=BINS)
            matrix, value, _ = minimise(problem, matrices[k], basis, iterations=12, tolerance_voxels=0.05)
            if np.isfinite(value):
                out.append((matrix, names[k]))
        return out

    found = Found.of(small, refined([*upright, *others[:REFINED]]) or [(matrices[0], "header")])
    if (labels is None or pair.fixed.codes is None) and len(found.rivals) > 1:
        # Where several orientations look alike here, the right one may be further down the list; finer images decide.
        found = replace(Found.of(small, [*found.starts, *refined(others[REFINED:MORE])]), best=found.best)
        found = replace(found, best=contested(pair, small, found, freedom))
    matrix, name = found.starts[found.best]
    return Start(
        lift(matrix, small, pair), name, float(found.correlation[found.best]), float(found.information[found.best])
    )


@dataclass(frozen=True, eq=False)
class Found:
    """Starts that were refined on coarse images.

    Attributes:
        starts: matrix (fixed index → moving index of those images) and name of each.
        turns: their linear maps in the world (K, 3, 3).
        information, correlation: of the images there (K,).
        best: which is believed.
    """

    starts: list[tuple[Matrix4, str]]
    turns: NDArray[np.float64]
    information: NDArray[np.float64]
    correlation: NDArray[np.float64]
    best: int

    @classmethod
    def of(cls, small: Pair, starts: list[tuple[Matrix4, str]]) -> "Found":
        """Judged by mutual information, other orientations and sizes than the header's with doubt."""
        information, correlation = ranking(small, np.stack([matrix for matrix, _ in starts]))
        turns = np.stack([small.moved(matrix).world[:3, :3] for matrix, _ in starts])
        turned = np.array([rotation_degrees(turn) for turn in turns])
        sizes = np.abs(np.linalg.det(turns)) ** (1 / 3)
        doubt = 1 + (ADVANTAGE - 1) * np.minimum(turned / TURNED, 1)
        doubt *= np.where(np.abs(np.log(sizes)) > 0.1, ADVANTAGE, 1.0)
        return cls(starts, turns, information, correlation, int(np.argmax(information / doubt)))

    @property
    def rivals(self) -> list[int]:
        """The best, and all of other orientations that come near it."""
        out = [self.best]
        for k in (int(n) for n in np.argsort(-self.information)):
            if self.information[k] >= RIVAL * self.information[self.best] and all(self._apart(k, other) for other in out):
                out.append(k)
        return out

    def _apart(self, a: int, b: int) -> bool:
        return rotation_degrees(np.asarray(np.linalg.solve(self.turns[a], self.turns[b]), np.float64)) > APART


def contested(pair: Pair, small: Pair, found: Found, freedom: Freedom) -> int:
    """The best start, or its rival of another orientation that fits much better once both are refined on finer images.

    Args:
        pair: the images; small: those that the starts were found on; freedom: what may move.
    """
    finer = coarsest(pair, FINER)
    rivals = found.rivals
    values, seen = np.zeros(len(rivals)), np.zeros(len(rivals))
    for n, k in enumerate(rivals):
        matrix, basis = lift(found.starts[k][0], small, finer), generators(finer, freedom)
        matrix, value, _ = minimise(Problem(finer, "lncc"), matrix, basis, iterations=8, tolerance_voxels=0.1)
        weight = overlap(finer.moved(matrix))
        if np.isfinite(value):
            values[n], seen[n] = -value, 1.0 if weight is None else float(weight.mean())
    values *= seen / max(float(seen.max()), 1e-6)  # as in `ranking`, nothing is won by hiding behind a mask
    most = int(np.argmax(values))
    return rivals[most] if values[most] > max(CONVINCING * values[0], FITS) else found.best


def rotation_degrees(linear: NDArray[np.float64]) -> float:
    """Angle of the rotation nearest to a linear map (3, 3)."""
    u, _, v = np.linalg.svd(linear)
    return float(np.degrees(np.arccos(np.clip((np.trace(u @ v) - 1) / 2, -1, 1))))
