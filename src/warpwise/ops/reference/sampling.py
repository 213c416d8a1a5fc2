"""Warping and what is built of it. Fields are displacements (B, D, *space) in voxels; borders are replicated."""

from functools import lru_cache
from itertools import product

import torch
from torch import Tensor

from warpwise.ops.shapes import Displacement, Elsewhere, Image


def positions(displacement: Tensor) -> Tensor:
    """x + u(x) (B, D, *space)."""
    axes = [torch.arange(n, dtype=displacement.dtype, device=displacement.device) for n in displacement.shape[2:]]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")) + displacement


def gather(image: Tensor, index: list[Tensor]) -> Tensor:
    """image (B, C, *shape) at whole positions, one (B, *space) an axis."""
    flat = torch.zeros_like(index[0])
    for at, n in zip(index, image.shape[2:], strict=True):
        flat = flat * n + at
    many = flat.reshape(len(flat), 1, -1).expand(-1, image.shape[1], -1)
    return image.flatten(2).gather(2, many).reshape(*image.shape[:2], *flat.shape[1:])


def cells(at: Tensor, shape: torch.Size) -> tuple[list[Tensor], list[Tensor]]:
    """Lower corner and fraction along each axis, of positions clamped to the grid."""
    lower: list[Tensor] = []
    fraction: list[Tensor] = []
    for d, n in enumerate(shape):
        p = at[:, d].clamp(0, n - 1)
        low = p.detach().floor().clamp(max=max(n - 2, 0)).long()
        lower.append(low)
        fraction.append(p - low)
    return lower, fraction


def warp(image: Elsewhere, displacement: Displacement, *, interpolation: str = "linear") -> Image:
    """image (B, C, *shape) at x + u(x)."""
    at = positions(displacement)
    shape = image.shape[2:]
    if interpolation == "nearest":
        index = [(at[:, d].detach().clamp(0, n - 1) + 0.5).floor().long().clamp(max=n - 1) for d, n in enumerate(shape)]
        return gather(image, index)
    if interpolation == "cubic":
        return _cubic(image, at)
    if torch.compiler.is_compiling():
        return _sampled(image, at)
    lower, fraction = cells(at, shape)
    total = torch.zeros((), dtype=image.dtype, device=image.device)
    for corner in product((0, 1), repeat=len(shape)):
        weight = torch.ones((), dtype=image.dtype, device=image.device)
        for t, c in zip(fraction, corner, strict=True):
            weight = weight * (t if c else 1 - t)
        index = [(low + c).clamp(max=n - 1) for low, c, n in zip(lower, corner, shape, strict=True)]
        total = total + weight[:, None] * gather(image, index)
    return total


def _sampled(image: Tensor, at: Tensor) -> Tensor:
    """PyTorch's own linear sampling, one node of an exported program instead of a hundred; it has no second derivative."""
    scaled = [at[:, d] * (2 / max(n - 1, 1)) - 1 for d, n in enumerate(image.shape[2:])]
    grid = torch.stack(scaled[::-1], -1)
    return torch.nn.functional.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=True)


def warp_with_gradient(image: Tensor, displacement: Tensor) -> tuple[Tensor, Tensor]:
    """image at x + u(x), and its spatial gradient there (B, C, D, *space)."""
    at = positions(displacement)
    shape = image.shape[2:]
    lower, fraction = cells(at, shape)
    total = torch.zeros((), dtype=image.dtype, device=image.device)
    slopes = [total] * len(shape)
    for corner in product((0, 1), repeat=len(shape)):
        index = [(low + c).clamp(max=n - 1) for low, c, n in zip(lower, corner, shape, strict=True)]
        value = gather(image, index)
        factors = [t if c else 1 - t for t, c in zip(fraction, corner, strict=True)]
        total = total + torch.stack(factors).prod(0)[:, None] * value
        for d, c in enumerate(corner):
            others = factors[:d] + factors[d + 1 :]
            weight = torch.stack(others).prod(0) * (1 if c else -1)
            slopes[d] = slopes[d] + weight[:, None] * value
    for d, n in enumerate(shape):
        inside = (at[:, d] >= 0) & (at[:, d] <= n - 1)
        slopes[d] = slopes[d] * inside[:, None]
    return total, torch.stack(slopes, 2)


@lru_cache(maxsize=64)
def _prefilter(n: int) -> Tensor:
    """Matrix (n, n), float64: values to cubic B-spline coefficients, mirrored at the border."""
    if n == 1:
        return torch.ones(1, 1, dtype=torch.float64)
    matrix = torch.eye(n, dtype=torch.float64) * (4 / 6)
    for i in range(n):
        for j in (i - 1, i + 1):
            matrix[i, _mirror(j, n)] += 1 / 6
    return torch.linalg.inv(matrix)


def _mirror(i: int, n: int) -> int:
    i = abs(i) % (2 * n - 2)
    return 2 * n - 2 - i if i >= n else i


def _cubic(image: Tensor, at: Tensor) -> Tensor:
    shape = image.shape[2:]
    coefficients = image
    for d, n in enumerate(shape):
        matrix = _prefilter(n).to(image)
        coefficients = (coefficients.movedim(d + 2, -1) @ matrix.T).movedim(-1, d + 2)
    index: list[list[Tensor]] = []
    weights: list[list[Tensor]] = []
    for d, n in enumerate(shape):
        p = at[:, d].clamp(0, n - 1)
        low = p.detach().floor()
        t = p - low
        s = 1 - t
        weights.append([s**3 / 6, 2 / 3 - t**2 + t**3 / 2, 2 / 3 - s**2 + s**3 / 2, t**3 / 6])
        table = torch.tensor([_mirror(k, n) if n > 1 else 0 for k in range(-1, n + 2)], device=image.device)
        index.append([table[low.long() + k] for k in range(4)])
    # The last axis' four taps at once: a quarter of the operations, which are what small images cost.
    taps, last = torch.stack(weights[-1], 1)[:, None], torch.stack(index[-1], 1)
    total = torch.zeros((), dtype=image.dtype, device=image.device)
    for corner in product(range(4), repeat=len(shape) - 1):
        rows = [index[d][k][:, None].expand_as(last) for d, k in enumerate(corner)]
        value = (taps * gather(coefficients, [*rows, last])).sum(2)
        for d, k in enumerate(corner):
            value = weights[d][k][:, None] * value
        total = total + value
    return total


def inverse(displacement: Displacement, *, iterations: int = 50) -> Displacement:
    """w with w(x) + u(x + w(x)) = 0.

    The fixed point w ← −u∘(id + w) runs without a graph; two Newton steps on top of it, which a graph sees, make the
    first and second derivative those of the implicit function.
    """
    with torch.no_grad():
        w = -displacement
        for _ in range(iterations):
            # Half steps converge wherever the map does not fold, also where u is not a contraction.
            w = 0.5 * w - 0.5 * warp(displacement, w)
    dim = displacement.shape[1]
    unit = torch.eye(dim, dtype=w.dtype, device=w.device)
    for _ in range(2):
        value, slopes = warp_with_gradient(displacement, w)
        matrix = slopes.flatten(3).permute(0, 3, 1, 2) + unit
        residual = (w + value).flatten(2).permute(0, 2, 1)
        w = w - torch.linalg.solve(matrix, residual).permute(0, 2, 1).reshape(w.shape)
    return w
