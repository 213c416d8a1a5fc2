"""Separable filters, their strides and their adjoint."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from warpwise.errors import InputError
from warpwise.ops.cpu import filters as _filters
from warpwise.ops.cpu.launch.arrays import Array, Triple, check
from warpwise.ops.cpu.parallel import run


@lru_cache(maxsize=256)
def gaussian_taps(sigma: float, truncate: float = 3.0) -> Array:
    """Normalised samples of a Gaussian, to `truncate` standard deviations."""
    if sigma <= 0:
        return np.ones(1, np.float32)
    radius = max(1, int(np.ceil(truncate * sigma)))
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return np.asarray(taps / taps.sum(), np.float32)


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
    scaled = np.multiply(gradient, sx[:, None, None] * sy[:, None] * sz, dtype=np.float32)
    out = np.empty_like(scaled)
    ones = [np.ones(n, np.float32) for n in gradient.shape[1:]]
    run(_filters.separable, scaled.shape[1], scaled, *taps, *ones, np.ones(3, np.int64), out)
    return out


def gaussian(image: Array, sigma: Sequence[float], *, stride: Triple = (1, 1, 1), out: Array | None = None) -> Array:
    """Gaussian of σ voxels an axis, renormalised at the border, every stride-th voxel kept."""
    return separable(image, [("gaussian", float(s)) for s in sigma], stride=stride, out=out)
