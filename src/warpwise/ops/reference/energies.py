"""Energies and determinants of displacement fields (B, D, *space) in voxels."""

from itertools import product

import torch
from torch import Tensor

from warpwise.ops.shapes import Displacement, Map, PerItem


def forward_difference(x: Tensor, axis: int) -> Tensor:
    """x(i + 1) − x(i); one entry fewer along the axis."""
    return x.narrow(axis, 1, x.shape[axis] - 1) - x.narrow(axis, 0, x.shape[axis] - 1)


def diffusion(field: Displacement) -> PerItem:
    """Mean over voxels of ‖∇u‖² by forward differences, one value a field (B,)."""
    total = torch.zeros(len(field), dtype=field.dtype, device=field.device)
    for axis in range(2, field.dim()):
        total = total + (forward_difference(field, axis) ** 2).flatten(1).sum(1)
    return total / field[0, 0].numel()


def bending(field: Displacement) -> PerItem:
    """Mean over voxels of Σ (∂²u/∂x_i∂x_j)², one value a field (B,)."""
    total = torch.zeros(len(field), dtype=field.dtype, device=field.device)
    for i in range(2, field.dim()):
        for j in range(i, field.dim()):
            if field.shape[i] < 2 + (i == j) or field.shape[j] < 2:
                continue
            second = forward_difference(forward_difference(field, i), j)
            total = total + (1 if i == j else 2) * (second**2).flatten(1).sum(1)
    return total / field[0, 0].numel()


def jacobian_determinant(field: Displacement) -> Map:
    """det of the Jacobian of x + u (B, *space): central differences, one-sided at the border."""
    dim = field.shape[1]
    columns = [torch.gradient(field, dim=d + 2)[0] for d in range(dim)]
    jacobian = torch.stack(columns, 2) + torch.eye(dim, dtype=field.dtype, device=field.device).reshape(
        dim, dim, *[1] * dim
    )
    return determinant(jacobian.movedim((1, 2), (-2, -1)))


def determinant(matrix: Tensor) -> Tensor:
    """det (…, D, D) of small matrices, as a polynomial: smooth also where it is 0."""
    m = matrix
    if m.shape[-1] == 2:
        return m[..., 0, 0] * m[..., 1, 1] - m[..., 0, 1] * m[..., 1, 0]
    return (torch.linalg.cross(m[..., 0, :], m[..., 1, :]) * m[..., 2, :]).sum(-1)


def digital_determinants(field: Displacement) -> Tensor:
    """The ten determinants of every cell (B, 10, *(space − 1)); four in 2-D.

    Eight come from the corners, each with its three edges; two from the tetrahedra between opposite corners, whose
    three edges meet at alternate ones (volume one third against one sixth: the identity has 1 and 2).
    """
    dim = field.shape[1]
    axes = [torch.arange(n, dtype=field.dtype, device=field.device) for n in field.shape[2:]]
    points = field + torch.stack(torch.meshgrid(*axes, indexing="ij"))

    def corner(at: tuple[int, ...]) -> Tensor:
        out = points
        for d, c in enumerate(at):
            out = out.narrow(d + 2, c, field.shape[d + 2] - 1)
        return out

    every: list[Tensor] = []
    for at in product((0, 1), repeat=dim):
        edges = []
        for d in range(dim):
            high, low = (
                tuple(1 if e == d else c for e, c in enumerate(at)),
                tuple(0 if e == d else c for e, c in enumerate(at)),
            )
            edges.append(corner(high) - corner(low))
        every.append(determinant(torch.stack(edges, -1).movedim(1, -2)))
    if dim == 3:
        for base, ends in (
            ((0, 0, 0), ((1, 1, 0), (0, 1, 1), (1, 0, 1))),
            ((1, 1, 1), ((0, 0, 1), (1, 0, 0), (0, 1, 0))),
        ):
            sign = 1 if base == (0, 0, 0) else -1
            edges = [sign * (corner(end) - corner(base)) for end in ends]
            every.append(determinant(torch.stack(edges, -1).movedim(1, -2)))
    return torch.stack(every, 1)
