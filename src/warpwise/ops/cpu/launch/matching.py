"""Matching of feature maps."""

import numpy as np
from numpy.typing import NDArray

from warpwise.errors import InputError
from warpwise.ops.cpu import matching as _matching
from warpwise.ops.cpu.launch.arrays import NONE4, Array, check
from warpwise.ops.cpu.parallel import run


def symmetric_kl(fixed: Array, warped: Array, weight: Array | None) -> tuple[NDArray[np.float64], Array, Array]:
    """Weighted sums (C,) of the symmetrised KL of Gaussians (2C, X, Y, Z): C means, then C log-variances, nats.

    Also its first and second derivative by `warped` (2C, X, Y, Z).
    """
    fixed = check("fixed", fixed)
    warped = check("warped", warped, fixed.shape)
    if len(fixed) % 2:
        raise InputError(f"symmetric_kl: {len(fixed)} channels; half of them are means, half log-variances.")
    given = NONE4 if weight is None else check("weight", weight, (1, *fixed.shape[1:]))
    derivative, curvature = np.empty_like(fixed), np.empty_like(fixed)
    partial = np.zeros((len(fixed) // 2, fixed.shape[1]))
    run(_matching.symmetric_kl, fixed.shape[1], fixed, warped, given, derivative, curvature, partial)
    return partial.sum(1), derivative, curvature


def normal_field(
    derivative: Array, curvature: Array, moving: Array, slopes: NDArray[np.float32] | None = None
) -> tuple[Array, Array]:
    """Gradient (3, X, Y, Z) and Gauss-Newton matrix (6, X, Y, Z: xx xy xz yy yz zz) by a displacement, see the kernel.

    `slopes` (N, 3, X, Y, Z) stand for central differences of the moving image.
    """
    moving = check("moving", moving)
    derivative, curvature = (check(n, a, moving.shape) for n, a in (("derivative", derivative), ("curvature", curvature)))
    out = np.empty((9, *moving.shape[1:]), np.float32)
    if slopes is None:
        run(_matching.normal_field, moving.shape[1], derivative, curvature, moving, out)
    else:
        given = check("slopes", slopes, (moving.shape[0], 3, *moving.shape[1:]), axes=5)
        run(_matching.normal_field_along, moving.shape[1], derivative, curvature, given, out)
    return out[:3], out[3:]


def match_gradient(
    fixed: Array,
    moving: Array,
    weight: Array | None,
    curves: tuple[Array, Array],
    u: Array,
    v: Array,
    *,
    probabilistic: bool,
) -> tuple[Array, Array]:
    """Derivative of Σ v·g + vᵀ·A·u by both features: g and A as in `normal_field`, of these derivatives and curvatures."""
    fixed = check("fixed", fixed)
    moving = check("moving", moving, fixed.shape)
    given = NONE4 if weight is None else check("weight", weight, (1, *fixed.shape[1:]))
    by_fixed, by_moving = np.zeros_like(fixed), np.zeros_like(moving)
    count = len(fixed) // 2 if probabilistic else len(fixed)
    slopes = np.empty((2, 3, *fixed.shape[1:]), np.float32)
    for c in range(count):
        k = c + count if probabilistic else -1
        run(
            _matching.match_gradient, fixed.shape[1], fixed, moving, given, *curves, u, v, c, k, slopes, by_fixed, by_moving
        )  # fmt: skip
        for n in range(2 if probabilistic else 1):
            run(_matching.gradient_adjoint, fixed.shape[1], slopes[n], by_moving[k if n else c])
    return by_fixed, by_moving


def normal_product(matrix: Array, vector: Array, diffusion: float, *, out: Array) -> float:
    """out = (A + diffusion·L)·vector; returns their inner product."""
    partial = np.zeros(vector.shape[1])
    run(_matching.normal_product, vector.shape[1], matrix, vector, np.float32(diffusion), out, partial)
    return float(partial.sum())


def laplacian(field: Array, *, out: Array) -> float:
    """out (3, X, Y, Z) = L·field, L the graph Laplacian of the grid; returns their inner product: Σ over edges of
    squared differences."""
    field = check("field", field)
    partial = np.zeros(field.shape[1])
    run(_matching.laplacian, field.shape[1], field, out, partial)
    return float(partial.sum())


def normal_solve(matrix: Array, right: Array, diffusion: float, *, iterations: int, tolerance: float = 1e-5) -> Array:
    """(A + diffusion·L)⁻¹·right (3, X, Y, Z) by conjugate gradients, preconditioned by 3×3 blocks.

    Ends after `iterations`, or when the residual's preconditioned norm has fallen by `tolerance`. NaN where anything given
    is not finite.
    """
    if diffusion <= 0:
        raise InputError(f"normal_solve: a weight of diffusion of {diffusion} is not positive.")
    matrix, right = check("matrix", matrix), check("right", right)
    slabs, s = right.shape[1], np.float32(diffusion)
    solution, residual = np.zeros_like(right), right.copy()
    p, q, z = np.zeros_like(right), np.zeros_like(right), np.empty_like(right)
    partial = np.zeros(slabs)

    def descend(alpha: float) -> float:
        run(_matching.normal_descend, slabs, matrix, s, np.float32(alpha), p, q, solution, residual, z, partial)
        return float(partial.sum())

    first = now = descend(0.0)
    if not np.isfinite(first):
        solution.fill(np.nan)
    if not first > 0:
        return solution
    p[:] = z
    for _ in range(iterations):
        curve = normal_product(matrix, p, diffusion, out=q)
        if not curve > 0:
            break
        before, now = now, descend(now / curve)
        if now <= tolerance**2 * first:
            break
        p *= np.float32(now / before)
        p += z
    return solution
