"""The displacement that matches two feature maps, as an operator with an exact gradient."""

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from warpwise.errors import InputError
from warpwise.ops import kernels
from warpwise.ops.cpu.bridge import components, each, field3, volumes
from warpwise.ops.functions import check_images
from warpwise.ops.reference import matching

DATA = ("kl", "means")


class Numerics(Protocol):
    """The heavy parts, for tensors of some kind; a matrix field is kept as each likes it."""

    def curved(self, fixed: Tensor, warped: Tensor, weight: Tensor | None, *, probabilistic: bool) -> tuple[Tensor, Tensor]:
        """First and second derivative of the divergence by the moving features."""
        ...

    def normal_field(self, derivative: Tensor, curvature: Tensor, moving: Tensor) -> tuple[Tensor, Any]:
        """Gradient by the displacement, and Gauss-Newton matrix."""
        ...

    def normal_solve(self, matrix: Any, right: Tensor, stiffness: Tensor, *, iterations: int) -> Tensor:
        """(A + stiffness·L)⁻¹·right."""
        ...

    def match_gradient(
        self, fixed: Tensor, moving: Tensor, weight: Tensor | None, u: Tensor, v: Tensor, *, probabilistic: bool
    ) -> tuple[Tensor, Tensor]:
        """Derivative of Σ v·g + vᵀ·A·u by both features."""
        ...


class Kernels:
    """float32 on a CPU."""

    @staticmethod
    def curved(fixed: Tensor, warped: Tensor, weight: Tensor | None, *, probabilistic: bool) -> tuple[Tensor, Tensor]:
        if not probabilistic:
            return matching.curved(fixed, warped, weight, probabilistic=False)
        given = zip(volumes(fixed.numpy()), volumes(warped.numpy()), weights(weight, len(fixed)), strict=True)
        found = [kernels.symmetric_kl(*one)[1:] for one in given]
        derivative, curvature = (torch.from_numpy(np.stack(k)).reshape(fixed.shape) for k in zip(*found, strict=True))
        return derivative, curvature

    @staticmethod
    def normal_field(derivative: Tensor, curvature: Tensor, moving: Tensor) -> tuple[Tensor, Any]:
        given = [volumes(t.numpy()) for t in (derivative, curvature, moving)]
        found = [kernels.normal_field(*one) for one in zip(*given, strict=True)]
        dim = moving.dim() - 2
        gradient = components(np.stack([g for g, _ in found]), (len(moving), dim, *moving.shape[2:]))
        return torch.from_numpy(gradient), [matrix for _, matrix in found]

    @staticmethod
    def normal_solve(matrix: Any, right: Tensor, stiffness: Tensor, *, iterations: int) -> Tensor:
        s = float(stiffness)
        found = [kernels.normal_solve(m, r, s, iterations=iterations)
                 for m, r in zip(matrix, field3(right.numpy()), strict=True)]  # fmt: skip
        return torch.from_numpy(components(np.stack(found), tuple(right.shape)))

    @staticmethod
    def match_gradient(
        fixed: Tensor, moving: Tensor, weight: Tensor | None, u: Tensor, v: Tensor, *, probabilistic: bool
    ) -> tuple[Tensor, Tensor]:
        curves = [volumes(t.numpy()) for t in Kernels.curved(fixed, moving, weight, probabilistic=probabilistic)]
        given = zip(
            volumes(fixed.numpy()), volumes(moving.numpy()), weights(weight, len(fixed)), zip(*curves, strict=True),
            field3(u.numpy()), field3(v.numpy()), strict=True,
        )  # fmt: skip
        found = [kernels.match_gradient(*one, probabilistic=probabilistic) for one in given]
        by_fixed, by_moving = (torch.from_numpy(np.stack(k)).reshape(fixed.shape) for k in zip(*found, strict=True))
        return by_fixed, by_moving


def weights(weight: Tensor | None, batch: int) -> list[Any]:
    """One weight (1, X, Y, Z), or None, for each item."""
    return each(None if weight is None else weight.numpy(), batch)


def numerics(tensor: Tensor) -> Numerics:
    """Kernels where there are some."""
    return Kernels() if tensor.dtype == torch.float32 and tensor.device.type == "cpu" else matching  # type: ignore[return-value]


def match(
    fixed: Tensor,
    moving: Tensor,
    stiffness: Tensor,
    *,
    weight: Tensor | None = None,
    data: str = "kl",
    solves: int = 20,
) -> Tensor:
    """The displacement (B, D, *space), voxels, of one Gauss-Newton step from rest towards a match of two feature maps.

    It minimises Σ_x weight·d(fixed(x), moving(x) + ∇moving·u) + ½·stiffness·Σ‖∇u‖², d to second order in each channel that
    moves: so it is the stationary point of a convex energy, the solution of (A + stiffness·L)·u = −g.

    Args:
        fixed, moving: features (B, C, *space); with kl, C/2 means and then C/2 log-variances of Gaussians.
        stiffness: 0-dim, > 0.
        weight: (B or 1, 1, *space), or None where every voxel counts.
        data: d: kl, the symmetrised KL summed over channels (`symmetric_kl`); or means, the squared difference summed.
        solves: iterations of conjugate gradients.

    Gradients by both features and by the stiffness are those of the implicit function, for one more solve with the same
    matrix: as exact as the two solves are, and nothing of their iterations is stored. There is no second derivative.

    Raises:
        InputError: shapes do not agree, or the data term is not known.
    """
    check_images(fixed, moving, weight)
    if data not in DATA or (data == "kl" and fixed.shape[1] % 2):
        raise InputError(f"match: data term {data!r} for {fixed.shape[1]} channels.", hint=f"Known: {', '.join(DATA)}.")
    if torch.compiler.is_compiling():  # an exported program must hold operators others have
        return step(matching, fixed, moving, stiffness, weight, (data == "kl", solves))[0]  # type: ignore[arg-type]
    return _Match.apply(fixed, moving, stiffness, weight, (data == "kl", solves))  # type: ignore[no-any-return]


def step(
    how: Numerics, fixed: Tensor, moving: Tensor, stiffness: Tensor, weight: Tensor | None, options: tuple[bool, int]
) -> tuple[Tensor, Any]:
    """The displacement, and the Gauss-Newton matrix that it was solved with; options: probabilistic, solves."""
    probabilistic, solves = options
    gradient, matrix = how.normal_field(*how.curved(fixed, moving, weight, probabilistic=probabilistic), moving)
    return -how.normal_solve(matrix, gradient, stiffness, iterations=solves), matrix


def match_deviation(
    fixed: Tensor,
    moving: Tensor,
    stiffness: Tensor,
    generator: torch.Generator,
    *,
    data: str = "kl",
    samples: int = 16,
    solves: int = 30,
) -> Tensor:
    """How far each voxel may be from where it should be: root mean square (B, 1, *space), voxels, of what is left to go.

    The energy of `match` to second order is minus the logarithm of a Gaussian N(u, (A + stiffness·L)⁻¹) of displacements:
    u is what one more step would add, and the variance says how well features determine it. Both count. The variance is
    sampled: A = Σ h·∇f∇fᵀ and L = ∇ᵀ∇ are sums of squares, so noise on every feature and on every edge of the grid, sent
    through one solve, is a draw. A voxel is certain where no further step is wanted, features change in every direction
    about it and their variances are small, or where such voxels are near.

    Args:
        fixed, moving: features as in `match`, moving ones already warped; stiffness, data, solves: as there.
        generator: of the noise; samples: draws.

    Source: perturb and optimise, Papandreou and Yuille, NIPS 2010.
    """
    check_images(fixed, moving, None)
    how, probabilistic = numerics(fixed), data == "kl"
    with torch.no_grad():
        fixed, moving = fixed.contiguous(), moving.contiguous()
        derivative, curvature = how.curved(fixed, moving, None, probabilistic=probabilistic)
        gradient, matrix = how.normal_field(derivative, curvature, moving)
        left = how.normal_solve(matrix, gradient, stiffness, iterations=solves).square().sum(1, keepdim=True)
        slopes, root = matching.slopes(moving), curvature.sqrt()
        total = torch.zeros_like(moving[:, :1])

        def noise(like: Tensor) -> Tensor:
            return torch.randn(like.shape, generator=generator, dtype=torch.float32).to(like)

        for _ in range(samples):
            right = ((root * noise(root))[:, :, None] * slopes).sum(1)
            for axis in range(2, right.dim()):
                if right.shape[axis] > 1:
                    edges = stiffness.sqrt() * noise(right.narrow(axis, 1, right.shape[axis] - 1))
                    right.narrow(axis, 1, right.shape[axis] - 1).add_(edges)
                    right.narrow(axis, 0, right.shape[axis] - 1).sub_(edges)
            drawn = how.normal_solve(matrix, right.contiguous(), stiffness, iterations=solves)
            total += drawn.square().sum(1, keepdim=True)
    return (total / samples + left).sqrt()


class _Match(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        fixed: Tensor,
        moving: Tensor,
        stiffness: Tensor,
        weight: Tensor | None,
        options: tuple[bool, int],
    ) -> Tensor:
        fixed, moving, stiffness = fixed.detach().contiguous(), moving.detach().contiguous(), stiffness.detach()
        field, matrix = step(numerics(fixed), fixed, moving, stiffness, weight, options)
        ctx.save_for_backward(fixed, moving, stiffness, field, *([] if weight is None else [weight]))
        ctx.matrix, (ctx.probabilistic, ctx.solves) = matrix, options
        return field

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        fixed, moving, stiffness, field, *rest = ctx.saved_tensors
        how, weight = numerics(fixed), rest[0] if rest else None
        adjoint = -how.normal_solve(ctx.matrix, gradients[0].contiguous(), stiffness, iterations=ctx.solves)
        by_fixed, by_moving = how.match_gradient(fixed, moving, weight, field, adjoint, probabilistic=ctx.probabilistic)
        by_stiffness = (adjoint * matching.laplacian(field)).sum().reshape(stiffness.shape)
        return by_fixed, by_moving, by_stiffness, None, None
