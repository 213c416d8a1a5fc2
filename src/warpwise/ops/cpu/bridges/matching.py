"""The parts of `ops.match`: the linear form of a divergence, the solve, and the derivative of that form.

None has a `backward`: the operator that is made of them differentiates the implicit function.
"""

import numpy as np

from warpwise.ops.cpu import launch
from warpwise.ops.cpu.bridges.arrays import components, per_item, vectors, volumes
from warpwise.ops.cpu.launch.arrays import Array


class Curved:
    """First and second derivative of the divergence by the warped features."""

    @staticmethod
    def forward(
        fixed: Array, warped: Array, weight: Array | None, *, probabilistic: bool
    ) -> tuple[tuple[Array, Array], None]:
        if not probabilistic:
            curves = 2 * (warped - fixed), np.full_like(warped, 2)
            return (curves if weight is None else (curves[0] * weight, curves[1] * weight)), None
        items = zip(volumes(fixed), volumes(warped), per_item(weight, len(fixed)), strict=True)
        derivative, curvature = zip(*[launch.symmetric_kl(*item)[1:] for item in items], strict=True)
        return (np.stack(derivative).reshape(fixed.shape), np.stack(curvature).reshape(fixed.shape)), None


class NormalField:
    """Gradient by the displacement, and Gauss-Newton matrix as (B, 6, X, Y, Z): xx xy xz yy yz zz, which `NormalSolve`
    takes; the reference keeps whole matrices.
    """

    @staticmethod
    def forward(derivative: Array, curvature: Array, moving: Array) -> tuple[tuple[Array, Array], None]:
        items = zip(*[volumes(array) for array in (derivative, curvature, moving)], strict=True)
        gradient, matrix = zip(*[launch.normal_field(*item) for item in items], strict=True)
        shape = len(moving), moving.ndim - 2, *moving.shape[2:]
        return (components(np.stack(gradient), shape), np.stack(matrix)), None


class NormalSolve:
    """(A + diffusion·L)⁻¹·right by conjugate gradients."""

    @staticmethod
    def forward(matrix: Array, right: Array, diffusion: Array, *, iterations: int) -> tuple[Array, None]:
        items = zip(matrix, vectors(right), strict=True)
        solutions = [launch.normal_solve(m, r, float(diffusion), iterations=iterations) for m, r in items]
        return components(np.stack(solutions), right.shape), None


class MatchGradient:
    """Derivative of Σ v·g + vᵀ·A·u by both features."""

    @staticmethod
    def forward(
        fixed: Array, moving: Array, weight: Array | None, u: Array, v: Array, *, probabilistic: bool
    ) -> tuple[tuple[Array, Array], None]:
        curves, _ = Curved.forward(fixed, moving, weight, probabilistic=probabilistic)
        items = zip(
            volumes(fixed), volumes(moving), per_item(weight, len(fixed)), zip(*map(volumes, curves), strict=True),
            vectors(u), vectors(v), strict=True,
        )  # fmt: skip
        parts = [launch.match_gradient(*item, probabilistic=probabilistic) for item in items]
        by_fixed, by_moving = zip(*parts, strict=True)
        return (np.stack(by_fixed).reshape(fixed.shape), np.stack(by_moving).reshape(moving.shape)), None
