"""Similarities of intensities themselves: squared difference and global correlation."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from warpwise.ops.cpu import launch
from warpwise.similarity.base import Array, Fused


@dataclass(frozen=True)
class MSE:
    """Mean squared difference over the mask."""

    def __call__(self, state: Any) -> Any:
        from warpwise import ops  # noqa: PLC0415 - solvers must not pay for importing torch

        return ops.mse(state.pair.fixed, state.warped, weight=state.weight).mean()

    def channels(self, image: Array) -> Array:
        return image

    def fused(self, fixed: Array, weight: Array | None, channel_weights: Array) -> Fused:
        voxels = float(np.prod(fixed.shape[1:])) if weight is None else float(weight.sum(dtype=np.float64))
        share = channel_weights / max(voxels, 1.0)

        def evaluate(warped: Array, gradient: Array) -> float:
            return float(launch.squared_difference(fixed, warped, weight, scale=2 * share, gradient=gradient) @ share)

        return evaluate


@dataclass(frozen=True)
class NCC:
    """Global normalised cross-correlation over the mask, negated."""

    def __call__(self, state: Any) -> Any:
        from warpwise import ops  # noqa: PLC0415 - solvers must not pay for importing torch

        return -ops.ncc(state.pair.fixed, state.warped, weight=state.weight).mean()

    def channels(self, image: Array) -> Array:
        return image

    def fused(self, fixed: Array, weight: Array | None, channel_weights: Array) -> Fused:
        def evaluate(warped: Array, gradient: Array) -> float:
            total = 0.0
            coefficients = np.zeros((fixed.shape[0], 3))
            for n, sums in enumerate(launch.moments(fixed, warped, weight)):
                value, coefficients[n] = correlation(sums)
                total -= float(channel_weights[n]) * value
                coefficients[n] *= -float(channel_weights[n])
            launch.blend(fixed, warped, weight, coefficients, out=gradient)
            return total

        return evaluate


def correlation(sums: Any) -> tuple[float, Any]:
    """Correlation of weighted moments (1, f, w, f², w², fw), and (a, b, c): its derivative is weight·(a·f + b·w + c)."""
    n = max(float(sums[0]), 1e-12)
    mean_f, mean_w = float(sums[1]) / n, float(sums[2]) / n
    variance_f = max(float(sums[3]) / n - mean_f**2, 1e-12)
    variance_w = max(float(sums[4]) / n - mean_w**2, 1e-12)
    r = (float(sums[5]) / n - mean_f * mean_w) / np.sqrt(variance_f * variance_w)
    a = 1.0 / (n * np.sqrt(variance_f * variance_w))
    b = -r / (n * variance_w)
    return float(r), np.array([a, b, -(a * mean_f + b * mean_w)])
