"""Matching of feature maps (B, C, *space): divergences by voxel and their linear form in a small displacement."""

import torch
from torch import Tensor

from warpwise.ops.reference.similarity import weighted_mean
from warpwise.ops.shapes import Displacement, Image, Matrices, Weight


def divergence(fixed: Tensor, warped: Tensor) -> Tensor:
    """Symmetrised KL, ½·(KL(f‖w) + KL(w‖f)), of Gaussians (B, 2C, *space) → (B, C, *space), nats."""
    (mf, lf), (mw, lw) = fixed.chunk(2, 1), warped.chunk(2, 1)
    square = (mw - mf) ** 2
    return 0.25 * ((lf - lw).exp() + (lw - lf).exp() - 2 + square * ((-lf).exp() + (-lw).exp()))


def symmetric_kl(fixed: Image, warped: Image, weight: Weight | None = None) -> Tensor:
    """Its mean over space (B, C)."""
    return weighted_mean(divergence(fixed, warped), weight)


def curved(fixed: Tensor, warped: Tensor, weight: Tensor | None, *, probabilistic: bool) -> tuple[Tensor, Tensor]:
    """First and second derivative, by the warped features, of the divergence (or squared difference) at each voxel."""
    if not probabilistic:
        derivative, curvature = 2 * (warped - fixed), torch.full_like(warped, 2.0)
    else:
        (mf, lf), (mw, lw) = fixed.chunk(2, 1), warped.chunk(2, 1)
        pf, pw = (-lf).exp(), (-lw).exp()
        there, back, square = pw / pf, pf / pw, (mw - mf) ** 2
        both = 0.25 * (pf + pw)
        derivative = torch.cat([2 * both * (mw - mf), 0.25 * (back - there - square * pw)], 1)
        curvature = torch.cat([2 * both, 0.25 * (back + there + square * pw)], 1)
    if weight is None:
        return derivative, curvature
    return derivative * weight, curvature * weight


def slopes(image: Tensor) -> Tensor:
    """Central differences (B, C, D, *space), one-sided at the border, 0 along an axis of one voxel."""
    parts = [
        torch.zeros_like(image) if image.shape[d] == 1 else torch.gradient(image, dim=d)[0] for d in range(2, image.dim())
    ]
    return torch.stack(parts, 2)


def normal_field(derivative: Tensor, curvature: Tensor, moving: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient (B, D, *space) and Gauss-Newton matrix (B, D, D, *space) by a displacement at every voxel."""
    slope = slopes(moving)
    gradient = (derivative[:, :, None] * slope).sum(1)
    return gradient, torch.einsum("bc...,bci...,bcj...->bij...", curvature, slope, slope)


def match_gradient(
    fixed: Tensor, moving: Tensor, weight: Tensor | None, u: Tensor, v: Tensor, *, probabilistic: bool
) -> tuple[Tensor, Tensor]:
    """Derivative of Σ v·g + vᵀ·A·u by both features, g and A as `normal_field` makes them."""
    with torch.enable_grad():
        one, other = fixed.detach().requires_grad_(), moving.detach().requires_grad_()
        derivative, curvature = curved(one, other, weight, probabilistic=probabilistic)
        slope = slopes(other)
        along, back = ((slope * vectors[:, None]).sum(2) for vectors in (v, u))
        by_fixed, by_moving = torch.autograd.grad((along * (derivative + curvature * back)).sum(), (one, other))
    return by_fixed, by_moving


def laplacian(field: Displacement) -> Displacement:
    """Σ over neighbours of u(x) − u(neighbour)."""
    out = torch.zeros_like(field)
    for d in range(2, field.dim()):
        step = field.narrow(d, 1, field.shape[d] - 1) - field.narrow(d, 0, field.shape[d] - 1)
        out.narrow(d, 1, field.shape[d] - 1).add_(step)
        out.narrow(d, 0, field.shape[d] - 1).sub_(step)
    return out


def normal_solve(
    matrix: Matrices, right: Displacement, diffusion: Tensor, *, iterations: int, tolerance: float = 1e-5
) -> Displacement:
    """(A + diffusion·L)⁻¹·right (B, D, *space) by conjugate gradients, preconditioned by D×D blocks; each item its own."""
    dim = right.shape[1]
    edges = torch.zeros_like(right[:1, :1])
    for d in range(2, right.dim()):
        edges.narrow(d, 1, right.shape[d] - 1).add_(1)
        edges.narrow(d, 0, right.shape[d] - 1).add_(1)
    unit = torch.eye(dim, dtype=right.dtype, device=right.device).reshape(1, dim, dim, *[1] * dim)
    block = torch.linalg.inv((matrix + diffusion * edges[:, :, None] * unit).movedim((1, 2), (-2, -1)))

    def inner(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).flatten(1).sum(1).reshape(-1, *[1] * (dim + 1))

    def condition(residual: Tensor) -> Tensor:
        return (block @ residual.movedim(1, -1)[..., None])[..., 0].movedim(-1, 1)

    solution, residual = torch.zeros_like(right), right.clone()
    p = z = condition(residual)
    first = now = inner(residual, z)
    for _ in range(iterations):
        q = torch.einsum("bij...,bj...->bi...", matrix, p) + diffusion * laplacian(p)
        curve = inner(p, q)
        going = (now > tolerance**2 * first) & (curve > 0)
        if not torch.compiler.is_compiling() and not bool(going.any()):
            break
        alpha = torch.where(going, now / curve, torch.zeros_like(now))
        solution, residual = solution + alpha * p, residual - alpha * q
        z = condition(residual)
        before, now = now, torch.where(going, inner(residual, z), now)
        p = torch.where(going, z + (now / before) * p, p)
    return solution + 0 * first  # what is not finite must not pass for 0
