"""Similarities, one value an image and channel (B, C). `weight` is (B or 1, 1, *space), values 0 … 1."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from warpwise.ops.reference.filters import box
from warpwise.ops.shapes import Image, PerChannel, Weight


def weighted_mean(values: Tensor, weight: Tensor | None) -> Tensor:
    """Mean over space (B, C), by weight where there is one."""
    if weight is None:
        return values.flatten(2).mean(2)
    # Clamped like the kernels: no voxel counts → 0, not NaN.
    return (values * weight).flatten(2).sum(2) / weight.expand_as(values).flatten(2).sum(2).clamp(min=1)


def lncc(
    fixed: Tensor, warped: Tensor, weight: Tensor | None = None, *, radius: Sequence[int], signed: bool, epsilon: float
) -> Tensor:
    """Mean over windows of (s + ε)²/((p + ε)(q + ε)), or of its signed root: variances p, q, covariance s."""

    def mean(x: Tensor) -> Tensor:
        return box(x, radius=radius)

    f, w = mean(fixed), mean(warped)
    p = (mean(fixed * fixed) - f * f).clamp(min=0)
    q = (mean(warped * warped) - w * w).clamp(min=0)
    s = mean(fixed * warped) - f * w
    root = (s + epsilon) / ((p + epsilon) * (q + epsilon)).sqrt()
    value = root if signed else root * root
    return weighted_mean(value, weight)


def mse(fixed: Image, warped: Image, weight: Weight | None = None) -> PerChannel:
    """Mean squared difference."""
    return weighted_mean((fixed - warped) ** 2, weight)


def ncc(fixed: Image, warped: Image, weight: Weight | None = None) -> PerChannel:
    """Correlation coefficient."""
    f, w = weighted_mean(fixed, weight), weighted_mean(warped, weight)
    p = (weighted_mean(fixed * fixed, weight) - f * f).clamp(min=1e-12)
    q = (weighted_mean(warped * warped, weight) - w * w).clamp(min=1e-12)
    return (weighted_mean(fixed * warped, weight) - f * w) / (p * q).sqrt()


def bspline(x: Tensor) -> Tensor:
    """Cubic B-spline."""
    a = x.abs()
    near = 2 / 3 - a**2 + a**3 / 2
    far = (2 - a).clamp(min=0) ** 3 / 6
    return torch.where(a < 1, near, far)


def mutual_information(fixed: Image, warped: Image, weight: Weight | None = None, *, bins: int, upper: float) -> PerChannel:
    """Mutual information in nats, cubic B-spline windows; intensities 0 … upper fill the inner bins."""
    scale = (bins - 3) / upper
    centres = torch.arange(bins, dtype=fixed.dtype, device=fixed.device)

    def windows(x: Tensor) -> Tensor:
        position = (x.flatten(2) * scale + 1).clamp(1, bins - 2)
        return bspline(position[..., None] - centres)

    a, b = windows(fixed), windows(warped)
    if weight is not None:
        a = a * weight.expand(len(fixed), -1, *fixed.shape[2:]).flatten(2)[..., None]
    counts = torch.einsum("bcni,bcnj->bcij", a, b)
    p = counts / counts.sum((2, 3), keepdim=True).clamp(min=1e-12)
    outer = p.sum(3, keepdim=True) * p.sum(2, keepdim=True)
    occupied = p > 0
    ratio = torch.where(occupied, p, 1.0) / torch.where(occupied, outer, 1.0)
    return (p * ratio.log()).sum((2, 3))


def mind_ssc(image: Tensor, *, radius: int, dilation: int, mean_filter: Callable[..., Tensor] = box) -> Tensor:
    """Self-similarity descriptors (B, C·12 or C·4, *space): exp(−(D − min D)/V), V the mean of D − min D."""
    dim = image.dim() - 2
    axes = [(a, s) for a in range(dim) for s in (1, -1)]
    pairs = [(p, q) for i, p in enumerate(axes) for q in axes[i + 1 :] if p[0] != q[0]]
    pad = [dilation] * (2 * dim)
    padded = torch.nn.functional.pad(image, pad, mode="replicate")

    def shifted(axis: int, sign: int) -> Tensor:
        out = padded
        for d, n in enumerate(image.shape[2:]):
            out = out.narrow(d + 2, dilation + (sign * dilation if d == axis else 0), n)
        return out

    squares = torch.stack([(shifted(*p) - shifted(*q)) ** 2 for p, q in pairs], 2).flatten(1, 2)
    distance = mean_filter(squares, radius=[radius] * dim).unflatten(1, (-1, len(pairs)))
    distance = distance - distance.amin(2, keepdim=True)
    variance = distance.mean(2, keepdim=True)
    mean = variance.flatten(2).mean(2).reshape(*variance.shape[:2], *[1] * (dim + 1))
    variance = torch.minimum(torch.maximum(variance, 1e-3 * mean + 1e-12), 1e3 * mean + 1e-12)
    return (-distance / variance).exp().flatten(1, 2)
