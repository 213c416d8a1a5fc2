"""The displacement that matches two feature maps, as an operator with an exact gradient."""

from typing import Any

import torch
from torch import Tensor

from warpwise.errors import InputError
from warpwise.ops.cpu import bridges
from warpwise.ops.functions import check_images
from warpwise.ops.operation import Operation
from warpwise.ops.reference import matching

# The heavy parts. A matrix field is an affair of the form that made it: whichever it was also solves with it.
_curved = Operation(matching.curved, forward=bridges.Curved.forward)
_normal_field = Operation(matching.normal_field, forward=bridges.NormalField.forward)
_normal_solve = Operation(matching.normal_solve, forward=bridges.NormalSolve.forward)
_match_gradient = Operation(matching.match_gradient, forward=bridges.MatchGradient.forward)

DATA = ("kl", "means")


def match(
    fixed: Tensor,
    moving: Tensor,
    diffusion: Tensor,
    *,
    weight: Tensor | None = None,
    data: str = "kl",
    solves: int = 20,
) -> Tensor:
    """The displacement (B, D, *space), voxels, of one Gauss-Newton step from rest towards a match of two feature maps.

    It minimises Σ_x weight·d(fixed(x), moving(x) + ∇moving·u) + ½·diffusion·Σ‖∇u‖², d to second order in each channel that
    moves: so it is the stationary point of a convex energy, the solution of (A + diffusion·L)·u = −g.

    Args:
        fixed, moving: features (B, C, *space); with kl, C/2 means and then C/2 log-variances of Gaussians.
        diffusion: 0-dim, > 0.
        weight: (B or 1, 1, *space), or None where every voxel counts.
        data: d: kl, the symmetrised KL summed over channels (`symmetric_kl`); or means, the squared difference summed.
        solves: iterations of conjugate gradients.

    Gradients by both features and by the diffusion are those of the implicit function, for one more solve with the same
    matrix: as exact as the two solves are, and nothing of their iterations is stored. There is no second derivative.

    Raises:
        InputError: shapes do not agree, or the data term is not known.

    >>> import torch
    >>> ramp = torch.arange(12.0).reshape(1, 1, 1, 12)
    >>> u = match(ramp + 0.5, ramp, torch.tensor(1e-3), data="means")  # half a voxel along the last axis
    >>> [round(float(x), 2) for x in u[0, 1, 0, 4:6]]
    [0.5, 0.5]
    """
    check_images(fixed, moving, weight)
    if data not in DATA or (data == "kl" and fixed.shape[1] % 2):
        raise InputError(f"match: data term {data!r} for {fixed.shape[1]} channels.", hint=f"Known: {', '.join(DATA)}.")
    # One type for all, so that the same form makes the matrix and solves with it.
    diffusion, weight = diffusion.to(fixed), None if weight is None else weight.to(fixed)
    options = data == "kl", solves
    if torch.compiler.is_compiling():  # an exported program must hold operators others have
        return _step(fixed, moving, diffusion, weight, options)[0]
    return _Match.apply(fixed, moving, diffusion, weight, options)  # type: ignore[no-any-return]


def _step(
    fixed: Tensor, moving: Tensor, diffusion: Tensor, weight: Tensor | None, options: tuple[bool, int]
) -> tuple[Tensor, Tensor]:
    """The displacement, and the Gauss-Newton matrix that it was solved with; options: probabilistic, solves."""
    probabilistic, solves = options
    gradient, matrix = _normal_field(*_curved(fixed, moving, weight, probabilistic=probabilistic), moving)
    return -_normal_solve(matrix, gradient, diffusion, iterations=solves), matrix


def match_deviation(
    fixed: Tensor,
    moving: Tensor,
    diffusion: Tensor,
    generator: torch.Generator,
    *,
    data: str = "kl",
    samples: int = 16,
    solves: int = 30,
) -> Tensor:
    """How far each voxel may be from where it should be: root mean square (B, 1, *space), voxels, of what is left to go.

    The energy of `match` to second order is minus the logarithm of a Gaussian N(u, (A + diffusion·L)⁻¹) of displacements:
    u is what one more step would add, and the variance says how well features determine it. Both count. The variance is
    sampled: A = Σ h·∇f∇fᵀ and L = ∇ᵀ∇ are sums of squares, so noise on every feature and on every edge of the grid, sent
    through one solve, is a draw. A voxel is certain where no further step is wanted, features change in every direction
    about it and their variances are small, or where such voxels are near.

    Args:
        fixed, moving: features as in `match`, moving ones already warped; diffusion, data, solves: as there.
        generator: of the noise; samples: draws.

    Raises:
        InputError: shapes do not agree.

    >>> import torch
    >>> ramp, draw = torch.arange(12.0).reshape(1, 1, 1, 12), torch.Generator().manual_seed(0)
    >>> flat, steep = (match_deviation(s * ramp, s * ramp, torch.tensor(1.0), draw, data="means").mean() for s in (0.1, 2))
    >>> bool(steep < flat)
    True

    Source: perturb and optimise, Papandreou and Yuille, NIPS 2010.
    """
    check_images(fixed, moving, None)
    diffusion = diffusion.to(fixed)
    with torch.no_grad():
        fixed, moving = fixed.contiguous(), moving.contiguous()
        derivative, curvature = _curved(fixed, moving, None, probabilistic=data == "kl")
        gradient, matrix = _normal_field(derivative, curvature, moving)
        left = _normal_solve(matrix, gradient, diffusion, iterations=solves).square().sum(1, keepdim=True)
        slopes, root = matching.slopes(moving), curvature.sqrt()
        total = torch.zeros_like(moving[:, :1])

        def noise(like: Tensor) -> Tensor:
            return torch.randn(like.shape, generator=generator, dtype=torch.float32).to(like)

        for _ in range(samples):
            right = ((root * noise(root))[:, :, None] * slopes).sum(1)
            for axis in range(2, right.dim()):
                if right.shape[axis] > 1:
                    edges = diffusion.sqrt() * noise(right.narrow(axis, 1, right.shape[axis] - 1))
                    right.narrow(axis, 1, right.shape[axis] - 1).add_(edges)
                    right.narrow(axis, 0, right.shape[axis] - 1).sub_(edges)
            drawn = _normal_solve(matrix, right.contiguous(), diffusion, iterations=solves)
            total += drawn.square().sum(1, keepdim=True)
    return (total / samples + left).sqrt()


class _Match(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        fixed: Tensor,
        moving: Tensor,
        diffusion: Tensor,
        weight: Tensor | None,
        options: tuple[bool, int],
    ) -> Tensor:
        fixed, moving = fixed.contiguous(), moving.contiguous()
        field, matrix = _step(fixed, moving, diffusion, weight, options)
        ctx.save_for_backward(fixed, moving, diffusion, field, matrix, *([] if weight is None else [weight]))
        ctx.probabilistic, ctx.solves = options
        return field

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        fixed, moving, diffusion, field, matrix, *rest = ctx.saved_tensors
        weight = rest[0] if rest else None
        adjoint = -_normal_solve(matrix, gradients[0].contiguous(), diffusion, iterations=ctx.solves)
        by_fixed, by_moving = _match_gradient(fixed, moving, weight, field, adjoint, probabilistic=ctx.probabilistic)
        by_diffusion = (adjoint * matching.laplacian(field)).sum().reshape(diffusion.shape)
        return by_fixed, by_moving, by_diffusion, None, None
