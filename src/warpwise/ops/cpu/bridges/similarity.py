"""Similarities (B, C) of two images, weighted (weight: B or 1, 1, *space) or not.

Gradients by the weight are never asked for: a mask is not learned through a kernel.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from warpwise.ops.cpu import launch
from warpwise.ops.cpu.bridges.arrays import per_image, per_item, stacked, triple, volumes
from warpwise.ops.cpu.launch.arrays import Array
from warpwise.ops.statistics import correlation, information

Gradients = tuple[Array | None, Array | None, None]


class LNCC:
    """Mean local correlation; keeps the coefficient maps."""

    @staticmethod
    def forward(
        fixed: Array, warped: Array, weight: Array | None, *, radius: Sequence[int], signed: bool, epsilon: float
    ) -> tuple[Array, Array]:
        f, w = stacked(fixed), stacked(warped)
        maps = np.empty((len(f), 3, *f.shape[1:]), np.float32)
        sums = launch.lncc(
            f, w, radius=triple(radius, 0), weight=per_image(weight, fixed), signed=signed, epsilon=epsilon,
            scale=np.ones(len(f)), maps=maps, gradient=None,
        )  # fmt: skip
        return (sums / totals(weight, fixed)).astype(np.float32).reshape(fixed.shape[:2]), maps

    @staticmethod
    def backward(
        fixed: Array,
        warped: Array,
        weight: Array | None,
        *,
        gradient: Array,
        kept: Array,
        needs: Sequence[bool],
        radius: Sequence[int],
        signed: bool,
        epsilon: float,
    ) -> Gradients:
        """By warped from the maps; by fixed the same with roles exchanged."""
        f, w, box = stacked(fixed), stacked(warped), triple(radius, 0)
        scale = gradient.reshape(-1) / totals(weight, fixed)
        by_fixed = by_warped = None
        if needs[1]:
            by_warped = launch.lncc_gradient(f, w, kept, radius=box, scale=scale, gradient=np.empty_like(f))
            by_warped = by_warped.reshape(fixed.shape)
        if needs[0]:
            maps, out = np.empty_like(kept), np.empty_like(f)
            launch.lncc(
                w, f, radius=box, weight=per_image(weight, fixed), signed=signed, epsilon=epsilon,
                scale=scale, maps=maps, gradient=out,
            )  # fmt: skip
            by_fixed = out.reshape(fixed.shape)
        return by_fixed, by_warped, None


class NCC:
    """Correlation; keeps its derivatives by fixed and by warped."""

    @staticmethod
    def forward(fixed: Array, warped: Array, weight: Array | None) -> tuple[Array, Array]:
        f, w, g = stacked(fixed), stacked(warped), per_image(weight, fixed)
        value = np.empty(len(f), np.float32)
        by_warped, by_fixed = np.zeros((len(f), 3)), np.zeros((len(f), 3))
        for n, sums in enumerate(launch.moments(f, w, g)):
            value[n], by_warped[n] = correlation(sums)
            _, by_fixed[n] = correlation(sums[[0, 2, 1, 4, 3, 5]])
        kept = np.stack([
            launch.blend(w, f, g, by_fixed, out=np.empty_like(f)),
            launch.blend(f, w, g, by_warped, out=np.empty_like(f)),
        ])
        return value.reshape(fixed.shape[:2]), kept

    @staticmethod
    def backward(
        fixed: Array, _warped: Array, _weight: Array | None, *, gradient: Array, kept: Array, needs: Sequence[bool]
    ) -> Gradients:
        return scaled(kept, gradient, needs, fixed.shape)


class MSE:
    """Mean squared difference; keeps its derivative by warped, which is the opposite of that by fixed."""

    @staticmethod
    def forward(fixed: Array, warped: Array, weight: Array | None) -> tuple[Array, Array]:
        f, w = stacked(fixed), stacked(warped)
        share = 1.0 / totals(weight, fixed)
        derivative = np.empty_like(f)
        sums = launch.squared_difference(f, w, per_image(weight, fixed), scale=2 * share, gradient=derivative)
        return (sums * share).astype(np.float32).reshape(fixed.shape[:2]), derivative

    @staticmethod
    def backward(
        fixed: Array, _warped: Array, _weight: Array | None, *, gradient: Array, kept: Array, needs: Sequence[bool]
    ) -> Gradients:
        by_warped = (kept * gradient.reshape(-1, 1, 1, 1)).reshape(fixed.shape)
        return -by_warped if needs[0] else None, by_warped if needs[1] else None, None


class MutualInformation:
    """Mutual information; keeps its derivatives by fixed and by warped."""

    @staticmethod
    def forward(fixed: Array, warped: Array, weight: Array | None, *, bins: int, upper: float) -> tuple[Array, Array]:
        f, w, g = stacked(fixed), stacked(warped), per_image(weight, fixed)
        unit = (bins - 3) / upper
        ranges = np.array([0, unit, 0, unit], np.float32)
        value, kept = np.empty(len(f), np.float32), np.empty((2, *f.shape), np.float32)
        for n in range(len(f)):
            mask = None if g is None else g[n % len(g)]
            counts = launch.joint_histogram(f[n], w[n], mask, ranges=ranges, bins=bins)
            value[n], potential = information(counts)
            for k, (a, b, table) in enumerate(((w[n], f[n], potential.T), (f[n], w[n], potential))):
                launch.histogram_gradient(a, b, mask, ranges=ranges, potential=table, scale=unit, out=kept[k, n])
        return value.reshape(fixed.shape[:2]), kept

    @staticmethod
    def backward(
        fixed: Array,
        _warped: Array,
        _weight: Array | None,
        *,
        gradient: Array,
        kept: Array,
        needs: Sequence[bool],
        **_: object,
    ) -> Gradients:
        return scaled(kept, gradient, needs, fixed.shape)


class SymmetricKL:
    """Mean divergence (B, C) of Gaussians (B, 2C, *space); keeps its derivatives by fixed and by warped."""

    @staticmethod
    def forward(fixed: Array, warped: Array, weight: Array | None) -> tuple[Array, Array]:
        shares = 1 / totals(weight, fixed[:, :1])
        value = np.empty((len(fixed), fixed.shape[1] // 2), np.float32)
        kept = np.empty((2, *volumes(fixed).shape), np.float32)
        items = zip(volumes(fixed), volumes(warped), per_item(weight, len(fixed)), shares, strict=True)
        for n, (f, w, g, share) in enumerate(items):
            sums, by_warped, _ = launch.symmetric_kl(f, w, g)
            _, by_fixed, _ = launch.symmetric_kl(w, f, g)
            value[n] = share * sums
            kept[0, n], kept[1, n] = share * by_fixed, share * by_warped
        return value, kept.reshape(2, -1, *kept.shape[3:])

    @staticmethod
    def backward(
        fixed: Array, _warped: Array, _weight: Array | None, *, gradient: Array, kept: Array, needs: Sequence[bool]
    ) -> Gradients:
        """A divergence is of a mean and of its log-variance."""
        return scaled(kept, np.concatenate([gradient] * 2, 1), needs, fixed.shape)


def totals(weight: Array | None, fixed: Array) -> NDArray[np.float64]:
    """Summed weight of each image (B·C,)."""
    n, c = fixed.shape[:2]
    if weight is None:
        return np.full(n * c, float(np.prod(fixed.shape[2:])))
    sums = weight.reshape(len(weight), -1).sum(1, dtype=np.float64)
    return np.maximum(np.repeat(np.broadcast_to(sums, (n,)), c), 1.0)


def scaled(kept: Array, gradient: Array, needs: Sequence[bool], shape: Sequence[int]) -> Gradients:
    """Gradients of an operator whose forward kept both derivatives (2, B·C, X, Y, Z)."""
    factor = gradient.reshape(-1, 1, 1, 1)
    by_fixed, by_warped = ((d * factor).reshape(shape) if need else None for d, need in zip(kept, needs[:2], strict=True))
    return by_fixed, by_warped, None
