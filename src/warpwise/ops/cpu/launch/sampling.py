"""Images and fields where a transform points: warps, their derivatives, composition, inversion."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warpwise.errors import InputError
from warpwise.ops.cpu import inverse as _inverse
from warpwise.ops.cpu import sampling as _sampling
from warpwise.ops.cpu import slopes as _slopes
from warpwise.ops.cpu import warp as _warp
from warpwise.ops.cpu.launch.arrays import NONE4, Array, Triple, check, coarse_shape
from warpwise.ops.cpu.parallel import run


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


def resample(
    image: NDArray[Any], field: Array, matrix: NDArray[Any], *, method: str, background: float = 0.0
) -> NDArray[Any]:
    """image (N, …) at matrix·(x + u(x)) by "linear", "nearest", "label" or "cubic" (B-spline); background outside.

    The result keeps the type of `image` for nearest and label, which never make a value that was not there.
    """
    field = check("field", field)
    m = np.ascontiguousarray(np.asarray(matrix)[:3, :4], np.float32)
    exact = method in ("nearest", "label")
    source = np.ascontiguousarray(image) if exact else check("image", image)
    if method == "cubic":
        source = spline_coefficients(source)
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


def spline_coefficients(image: Array) -> Array:
    """Cubic B-spline coefficients (N, X, Y, Z) of an image, mirrored at the border."""
    return np.stack([_spline_coefficients(channel) for channel in check("image", image)])


def warp_cubic(coefficients: Array, field: Array, *, out: Array, slopes: NDArray[np.float32] | None = None) -> Array:
    """out (N, X, Y, Z) = the image that has these B-spline coefficients at x + u(x), border replicated; `slopes`
    (N, 3, X, Y, Z), where wanted, gets its gradient there. Both images lie on one grid."""
    coefficients = check("coefficients", coefficients)
    field = check("field", field, (3, *coefficients.shape[1:]))
    shape = (coefficients.shape[0], 3, *field.shape[1:])
    target = np.empty((0, 3, 0, 0, 0), np.float32) if slopes is None else check("slopes", slopes, shape, axes=5)
    check("out", out, coefficients.shape)
    run(_sampling.warp_cubic, field.shape[1], coefficients, field, out, target)
    return out


def _spline_coefficients(channel: Array) -> Array:
    from scipy.ndimage import spline_filter1d  # noqa: PLC0415 - slow to import, and only cubic needs it

    for axis in range(channel.ndim):
        if channel.shape[axis] > 1:
            filtered: Any = spline_filter1d(channel, 3, axis=axis, mode="mirror")
            channel = np.asarray(filtered, np.float32)
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
    given = NONE4 if inner is None else check("inner", inner, (3, *shape))
    options = np.array(factors, np.float32), np.float32(tolerance), iterations
    run(_inverse.invert, shape[0], check("field", field), given, np.ascontiguousarray(m, np.float32), *options, out, worst)
    return out, float(worst.max())
