"""The CPU kernels as functions of NumPy arrays: shapes checked, constants prepared, loops run on threads.

Kernels themselves check no bounds. Images are float32 (N, X, Y, Z), fields (3, X, Y, Z) in voxels of the image they
move; a coarse field has nodes every `factors` voxels and one beyond the last voxel where needed.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warpwise.errors import InputError
from warpwise.ops.cpu import filters as _filters
from warpwise.ops.cpu import force as _force
from warpwise.ops.cpu import histogram as _histogram
from warpwise.ops.cpu import intensity as _intensity
from warpwise.ops.cpu import inverse as _inverse
from warpwise.ops.cpu import jacobian as _jacobian
from warpwise.ops.cpu import linear as _linear
from warpwise.ops.cpu import lncc as _lncc
from warpwise.ops.cpu import sampling as _sampling
from warpwise.ops.cpu import slopes as _slopes
from warpwise.ops.cpu import update as _update
from warpwise.ops.cpu import warp as _warp
from warpwise.ops.cpu.parallel import run

Array = NDArray[np.float32]
Triple = tuple[int, int, int]
_NONE3 = np.empty((0, 0, 0), np.float32)
_NONE4 = np.empty((1, 0, 0, 0), np.float32)


def check(name: str, array: NDArray[Any], shape: Sequence[int] | None = None, *, axes: int = 4) -> Array:
    """`array` as contiguous float32, or an error that names it."""
    if array.ndim != axes or (shape is not None and array.shape != tuple(shape)):
        raise InputError(f"{name}: shape {array.shape}, expected {tuple(shape) if shape else f'{axes} axes'}.")
    return np.ascontiguousarray(array, np.float32)


def coarse_shape(shape: Sequence[int], factors: Sequence[int]) -> Triple:
    """Nodes of a field that spans `shape` voxels with one node every `factors` voxels."""
    x, y, z = (-(-(n - 1) // f) + 1 for n, f in zip(shape, factors, strict=True))
    return x, y, z


def warp(image: Array, field: Array, matrix: NDArray[Any], *, factors: Triple = (1, 1, 1), out: Array) -> Array:
    """out (N, X, Y, Z) = image (N, …) at matrix·(x + u(x)), linear, border replicated."""
    shape = out.shape[1:]
    field = check("field", field, (3, *coarse_shape(shape, factors)))
    image = check("image", image)
    check("out", out, (image.shape[0], *shape))
    m = np.ascontiguousarray(np.asarray(matrix)[None, :3, :4], np.float32)
    run(_warp.warp_linear, shape[0], image[None], field[None], np.array(factors), m, out[None])
    return out


def warp_affine(image: Array, matrix: NDArray[Any], *, out: Array) -> Array:
    """out (N, X, Y, Z) = image at matrix·x, linear, border replicated."""
    image = check("image", image)
    check("out", out, (image.shape[0], *out.shape[1:]))
    # One node serves the whole grid: the field is 0 there.
    m = np.ascontiguousarray(np.asarray(matrix)[None, :3, :4], np.float32)
    zero = np.zeros((1, 3, 1, 1, 1), np.float32)
    run(_warp.warp_linear, out.shape[1], image[None], zero, np.array(out.shape[1:]), m, out[None])
    return out


def warp_with_gradient(image: Array, field: Array) -> tuple[Array, Array]:
    """image (N, …) at x + u(x), and its slopes there (N, 3, X, Y, Z)."""
    image, field = check("image", image), check("field", field)
    out = np.empty((image.shape[0], *field.shape[1:]), np.float32)
    slopes = np.empty((image.shape[0], 3, *field.shape[1:]), np.float32)
    run(_slopes.warp_with_gradient, field.shape[1], image, field, out, slopes)
    return out, slopes


def warp_gradient(image: Array, field: Array, derivative: Array) -> Array:
    """Derivative (3, X, Y, Z) by u of Σ derivative · image(x + u(x))."""
    image, field = check("image", image), check("field", field)
    out = np.empty_like(field)
    derivative = check("derivative", derivative, (image.shape[0], *field.shape[1:]))
    run(_slopes.warp_gradient, field.shape[1], image, field, derivative, out)
    return out


def warp_adjoint(field: Array, derivative: Array, shape: Sequence[int]) -> Array:
    """Derivative (N, *shape) by the image of Σ derivative · image(x + u(x))."""
    field, derivative = check("field", field), check("derivative", derivative)
    out = np.zeros((derivative.shape[0], *shape), np.float32)
    run(_slopes.warp_adjoint, out.shape[0], field, derivative, out)
    return out


def resample(image: NDArray[Any], field: Array, matrix: NDArray[Any], *, method: str, background: float = 0.0) -> NDArray[Any]:
    """image (N, …) at matrix·(x + u(x)) by "linear", "nearest", "label" or "cubic" (B-spline); background outside.

    The result keeps the type of `image` for nearest and label, which never make a value that was not there.
    """
    field = check("field", field)
    m = np.ascontiguousarray(np.asarray(matrix)[:3, :4], np.float32)
    exact = method in ("nearest", "label")
    source = np.ascontiguousarray(image) if exact else check("image", image)
    if method == "cubic":
        source = np.stack([_spline_coefficients(channel) for channel in source])
    out = np.empty((source.shape[0], *field.shape[1:]), source.dtype)
    loops = {
        "nearest": _sampling.sample_nearest,
        "label": _sampling.sample_label,
        "cubic": _sampling.sample_cubic,
        "linear": _sampling.sample_linear,
    }
    if method not in loops:
        raise InputError(f"Unknown interpolation {method!r}.", hint=f"Known: {', '.join(loops)}.")
    run(loops[method], field.shape[1], source, field, m, source.dtype.type(background), out)
    return out


def _spline_coefficients(channel: Array) -> Array:
    from scipy.ndimage import spline_filter1d  # noqa: PLC0415 - slow to import, and only cubic needs it

    for axis in range(channel.ndim):
        if channel.shape[axis] > 1:
            channel = spline_filter1d(channel, 3, axis=axis, output=np.float32, mode="mirror")
    return np.ascontiguousarray(channel)


def compose(outer: Array, inner: Array, *, out: Array | None = None) -> Array:
    """Displacement of (id + outer)∘(id + inner), fields (3, X, Y, Z) on one grid."""
    outer, inner = check("outer", outer), check("inner", inner)
    out = np.empty_like(inner) if out is None else check("out", out, inner.shape)
    run(_warp.compose, inner.shape[1], outer[None], inner[None], out[None])
    return out


def upsample(field: Array, shape: Sequence[int], factors: Triple) -> Array:
    """A coarse field (N, …) at every voxel of `shape`; values stay in the same unit."""
    out = np.empty((field.shape[0], *shape), np.float32)
    # A warp moves by its field, so sample the field as an image, at x / factors.
    scale = np.diag([1.0 / f for f in factors])
    return warp_affine(field, np.hstack([scale, np.zeros((3, 1))]), out=out)


@lru_cache(maxsize=256)
def gaussian_taps(sigma: float, truncate: float = 3.0) -> Array:
    """Normalised samples of a Gaussian, to `truncate` standard deviations."""
    if sigma <= 0:
        return np.ones(1, np.float32)
    radius = max(1, int(np.ceil(truncate * sigma)))
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return (taps / taps.sum()).astype(np.float32)


@lru_cache(maxsize=1024)
def _clipped(size: int, kind: tuple[str, float], stride: int) -> tuple[Array, Array]:
    """Taps, and the factor that makes up for what a window loses outside the image."""
    taps = gaussian_taps(kind[1]) if kind[0] == "gaussian" else np.full(2 * int(kind[1]) + 1, 1, np.float32)
    if kind[0] == "box":
        taps = taps / np.float32(taps.size)
    radius = taps.size // 2
    total = np.concatenate([[0.0], np.cumsum(taps.astype(np.float64))])
    i = np.arange(0, size, stride)
    low, high = np.maximum(radius - i, 0), np.minimum(radius + size - i, taps.size)
    return taps.astype(np.float32), (1.0 / (total[high] - total[low])).astype(np.float32)


def separable(
    image: Array, kinds: Sequence[tuple[str, float]], *, stride: Triple = (1, 1, 1), out: Array | None = None
) -> Array:
    """Each axis of image (N, X, Y, Z) filtered with ("gaussian", σ) or ("box", radius), every stride-th voxel kept.

    Windows that the border clips are renormalised.
    """
    image = check("image", image)
    shape = [-(-n // s) for n, s in zip(image.shape[1:], stride, strict=True)]
    out = np.empty((image.shape[0], *shape), np.float32) if out is None else out
    if out.shape != (image.shape[0], *shape) or np.may_share_memory(out, image):
        raise InputError(f"out: shape {out.shape}, expected {(image.shape[0], *shape)} and memory of its own.")
    rows = [_clipped(n, kind, s) for n, kind, s in zip(image.shape[1:], kinds, stride, strict=True)]
    taps, scales = [row[0] for row in rows], [row[1] for row in rows]
    run(_filters.separable, shape[0], image, *taps, *scales, np.array(stride), out)
    return out


def separable_adjoint(gradient: Array, kinds: Sequence[tuple[str, float]]) -> Array:
    """Adjoint of `separable` at stride 1: scale, then filter without renormalising."""
    rows = [_clipped(n, kind, 1) for n, kind in zip(gradient.shape[1:], kinds, strict=True)]
    taps, (sx, sy, sz) = [row[0] for row in rows], [row[1] for row in rows]
    scaled = gradient * (sx[:, None, None] * sy[:, None] * sz)
    out = np.empty_like(scaled)
    ones = [np.ones(n, np.float32) for n in gradient.shape[1:]]
    run(_filters.separable, scaled.shape[1], scaled, *taps, *ones, np.ones(3, np.int64), out)
    return out


def gaussian(image: Array, sigma: Sequence[float], *, stride: Triple = (1, 1, 1), out: Array | None = None) -> Array:
    """Gaussian of σ voxels an axis, renormalised at the border, every stride-th voxel kept."""
    return separable(image, [("gaussian", float(s)) for s in sigma], stride=stride, out=out)


def lncc(
    fixed: Array,
    warped: Array,
    *,
    radius: Triple,
    weight: Array | None = None,
    signed: bool = False,
    epsilon: float = 5e-3,
    scale: NDArray[Any],
    maps: Array,
    gradient: Array | None,
) -> NDArray[np.float64]:
    """Sum of the weighted local correlation of each image (N,); gradient (by warped) = scale[n] · its derivative."""
    if fixed.shape != warped.shape or maps.shape != (fixed.shape[0], 3, *fixed.shape[1:]):
        raise InputError(f"lncc: fixed {fixed.shape}, warped {warped.shape}, maps {maps.shape} do not agree.")
    fixed, warped = check("fixed", fixed), check("warped", warped)
    weight = _NONE4 if weight is None else check("weight", weight)
    blocks = -(-fixed.shape[1] // _lncc.BLOCK)
    partial = np.zeros(fixed.shape[:2])
    r = np.array(radius)
    run(_lncc.lncc_coefficients, blocks, fixed, warped, weight, r, np.float32(epsilon), signed, maps, partial)
    if gradient is not None:
        lncc_gradient(fixed, warped, maps, radius=radius, scale=scale, gradient=gradient)
    return partial.sum(1)


def lncc_gradient(
    fixed: Array, warped: Array, maps: Array, *, radius: Triple, scale: NDArray[Any], gradient: Array
) -> Array:
    """gradient (by warped) = scale[n] · derivative of the sum that left `maps` behind."""
    check("gradient", gradient, fixed.shape)
    blocks = -(-fixed.shape[1] // _lncc.BLOCK)
    r, s = np.array(radius), np.asarray(scale, np.float32)
    run(_lncc.lncc_gradient, blocks, fixed, warped, maps, r, s, gradient)
    return gradient


def force(derivative: Array, warped: Array, *, factors: Triple, out: Array) -> Array:
    """out (3, …) = adjoint of linear upsampling, applied to Σ_n derivative·∇warped (central differences)."""
    check("out", out, (3, *coarse_shape(warped.shape[1:], factors)))
    run(_force.force, out.shape[1], derivative[None], warped[None], np.array(factors), out[None])
    return out


def typical_length(field: Array, quantile: float) -> float:
    """The length up to which a field's vectors make up this share of its total length (to 1/16 octave).

    Weighted by length, so that empty space round the object does not count. 0 for a zero field.
    """
    counts = np.zeros((field.shape[1], _update.BINS), np.int64)
    run(_update.length_histogram, field.shape[1], check("field", field), counts)
    # Finite float32 numbers end with bin 4079; infinity and NaN lie beyond.
    edges = (np.arange(1, 4080, dtype=np.uint32) << 19).view(np.float32).astype(np.float64)
    edges[0] = 0.0  # the bin of 0 itself
    running = np.cumsum(counts.sum(0)[: edges.size] * edges)
    if running[-1] <= 0:
        return 0.0
    return float(edges[int(np.searchsorted(running, quantile * running[-1]))])


def momentum_step(
    force: Array, momentum: Array, *, keep: float, gain: float, cap: float, taper: Sequence[Array], out: Array
) -> Array:
    """momentum ← keep·momentum + gain·force; out = momentum, at most `cap` long, times the product of tapers."""
    check("momentum", momentum, force.shape)
    check("out", out, force.shape)
    numbers = np.float32(keep), np.float32(gain), np.float32(cap)
    run(_update.momentum_step, force.shape[1], force, momentum, *numbers, *taper, out)
    return out


def overlap_weight(fixed_weight: Array | None, moving_shape: Sequence[int], matrix: NDArray[Any], *, out: Array) -> Array:
    """out (X, Y, Z) = fixed_weight (1 where None) where matrix·x lies inside the moving grid, else 0."""
    given = _NONE3 if fixed_weight is None else check("fixed_weight", fixed_weight, out.shape, axes=3)
    m = np.asarray(matrix, np.float32)
    run(_linear.overlap_weight, out.shape[0], given, np.array(moving_shape, np.float32), m, out)
    return out


def normal_equations(derivative: Array, curvature: Array, warped: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gradient (3, 4) and Gauss-Newton matrix (12, 12) of a similarity by the matrix of x ↦ E·x, at E = 0.

    derivative, curvature, warped (X, Y, Z): first and (positive) second derivative by the warped intensity.
    """
    shape = warped.shape
    partial = np.zeros((*shape[:2], 24))
    run(_linear.normal_equations, shape[0], derivative, curvature, warped, partial)
    x, y = np.arange(shape[0], dtype=np.float64), np.arange(shape[1], dtype=np.float64)
    powers_x, powers_y = np.stack([x**0, x, x**2]), np.stack([y**0, y, y**2])
    sums = np.einsum("ix,jy,xyk->ijk", powers_x, powers_y, partial, optimize=True)
    n = float(shape[2])
    gradient = np.array([[sums[1, 0, 2 * a], sums[0, 1, 2 * a], sums[0, 0, 2 * a + 1] * n, sums[0, 0, 2 * a]] for a in range(3)])
    hessian = np.zeros((3, 4, 3, 4))
    exponents = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])
    total = exponents[:, None] + exponents[None, :]
    pairs = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]
    for m, (a, c) in enumerate(pairs):
        moments = sums[:, :, 6 + 3 * m : 9 + 3 * m] * np.array([1.0, n, n * n])
        block = moments[total[..., 0], total[..., 1], total[..., 2]]
        hessian[a, :, c, :] = hessian[c, :, a, :] = block
    return gradient, hessian.reshape(12, 12)


def moments(fixed: Array, warped: Array, weight: Array | None) -> NDArray[np.float64]:
    """Weighted sums (N, 6) of 1, f, w, f², w², fw."""
    partial = np.zeros((*fixed.shape[:2], 6))
    run(_intensity.moments, fixed.shape[1], fixed, warped, _NONE4 if weight is None else weight, partial)
    return partial.sum(1)


def squared_difference(
    fixed: Array, warped: Array, weight: Array | None, *, scale: NDArray[Any], gradient: Array
) -> NDArray[np.float64]:
    """Σ weight·(w − f)² of each image (N,); gradient = scale[n]·weight·(w − f)."""
    partial = np.zeros(fixed.shape[:2])
    weight = _NONE4 if weight is None else weight
    s = np.asarray(scale, np.float32)
    run(_intensity.squared_difference, fixed.shape[1], fixed, warped, weight, s, gradient, partial)
    return partial.sum(1)


def blend(fixed: Array, warped: Array, weight: Array | None, coefficients: NDArray[Any], *, out: Array) -> Array:
    """out = weight·(a·f + b·w + c), coefficients (N, 3)."""
    c = np.ascontiguousarray(coefficients, np.float32)
    run(_intensity.blend, fixed.shape[1], fixed, warped, _NONE4 if weight is None else weight, c, out)
    return out


def joint_histogram(fixed: Array, warped: Array, weight: Array | None, *, ranges: Array, bins: int) -> NDArray[np.float64]:
    """Parzen-window histogram (bins, bins) of two images (X, Y, Z), not normalised."""
    tables = np.zeros((fixed.shape[0], bins, bins), np.float32)
    weight = _NONE3 if weight is None else weight
    run(_histogram.joint_histogram, fixed.shape[0], fixed, warped, weight, ranges, bins, tables)
    return tables.sum(0, dtype=np.float64)


def histogram_gradient(
    fixed: Array, warped: Array, weight: Array | None, *, ranges: Array, potential: NDArray[Any], scale: float, out: Array
) -> Array:
    """out = scale · derivative, by warped, of Σ potential · joint histogram."""
    weight = _NONE3 if weight is None else weight
    table = np.ascontiguousarray(potential, np.float32)
    bins = table.shape[0]
    run(_histogram.histogram_gradient, fixed.shape[0], fixed, warped, weight, ranges, bins, table, np.float32(scale), out)
    return out


def pose_histograms(
    binned: NDArray[np.int32], points: Array, moving: NDArray[np.int32], matrices: NDArray[Any], *, bins: int
) -> NDArray[np.int64]:
    """Joint histograms (K, bins, bins) of fixed points and the moving image under K matrices; see the kernel."""
    counts = np.zeros((len(matrices), bins, bins), np.int64)
    m = np.ascontiguousarray(matrices[:, :3, :4], np.float32)
    run(_histogram.pose_histograms, len(matrices), binned, points, np.ascontiguousarray(moving), m, counts)
    return counts


def map_vectors(field: Array, matrix: NDArray[Any]) -> Array:
    """matrix (3, 3) times every vector of a field (3, X, Y, Z)."""
    m = np.asarray(matrix, np.float32)
    if not (m - np.diag(np.diag(m))).any():
        return np.diag(m).reshape(3, 1, 1, 1) * field
    return (m @ field.reshape(3, -1)).reshape(field.shape)


def determinant(field: Array) -> Array:
    """det of the Jacobian of x + u (X, Y, Z), central differences; an axis of one voxel counts as not deformed."""
    out = np.empty(field.shape[1:], np.float32)
    run(_jacobian.determinant, field.shape[1], check("field", field), out)
    return out


def digital(field: Array) -> tuple[Array, int, float]:
    """Smallest of the ten determinants of every cell (X−1, Y−1, Z−1), the number of cells ≤ 0, the folded volume.

    On one slice: the four determinants of each cell of the plane.
    """
    field = check("field", field)
    if field.shape[2] == 1:
        return _digital_plane(field[[0, 2], :, 0])
    lowest = np.empty([max(n - 1, 0) for n in field.shape[1:]], np.float32)
    partial = np.zeros((max(field.shape[1] - 1, 0), 2))
    if lowest.size:
        run(_jacobian.digital, lowest.shape[0], field, lowest, partial)
    return lowest, int(partial[:, 0].sum()), float(partial[:, 1].sum())


def _digital_plane(field: Array) -> tuple[Array, int, float]:
    along_x = np.diff(field, axis=1) + np.array([1, 0], np.float32)[:, None, None]
    along_y = np.diff(field, axis=2) + np.array([0, 1], np.float32)[:, None, None]
    each: list[Array] = []
    for j in (slice(None, -1), slice(1, None)):
        for i in (slice(None, -1), slice(1, None)):
            a, b = along_x[:, :, j], along_y[:, i, :]
            each.append(a[0] * b[1] - a[1] * b[0])
    every = np.stack(each)
    lowest = every.min(0)
    return lowest[:, None], int((lowest <= 0).sum()), float(-np.minimum(every, 0).sum() / 4)


def invert(
    field: Array,
    *,
    factors: Triple,
    shape: Triple,
    matrix: NDArray[Any] | None = None,
    inner: Array | None = None,
    tolerance: float = 1e-4,
    iterations: int = 40,
    out: Array | None = None,
) -> tuple[Array, float]:
    """w (3, *shape) with w + u(y + w) = 0 at y = matrix·(x + inner(x)), and the largest residual, in voxels of y.

    `field` as in `warp`: nodes every `factors` voxels of the space of y. Without matrix and inner, y = x.
    """
    out = np.empty((3, *shape), np.float32) if out is None else check("out", out, (3, *shape))
    worst = np.zeros(shape[0], np.float32)
    m = np.eye(4)[:3] if matrix is None else np.asarray(matrix)[:3, :4]
    given = _NONE4 if inner is None else check("inner", inner, (3, *shape))
    options = np.array(factors, np.float32), np.float32(tolerance), iterations
    run(_inverse.invert, shape[0], check("field", field), given, np.ascontiguousarray(m, np.float32), *options, out, worst)
    return out, float(worst.max())
