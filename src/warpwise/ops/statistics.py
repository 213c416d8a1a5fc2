"""Values of two similarities from their sufficient statistics, with the derivatives that kernels spread to voxels."""

import numpy as np
from numpy.typing import NDArray


def correlation(sums: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Correlation of weighted moments (1, f, w, f², w², fw), and (a, b, c): its derivative is weight·(a·f + b·w + c)."""
    n = max(float(sums[0]), 1e-12)
    mean_f, mean_w = float(sums[1]) / n, float(sums[2]) / n
    variance_f = max(float(sums[3]) / n - mean_f**2, 1e-12)
    variance_w = max(float(sums[4]) / n - mean_w**2, 1e-12)
    r = (float(sums[5]) / n - mean_f * mean_w) / np.sqrt(variance_f * variance_w)
    a = 1.0 / (n * np.sqrt(variance_f * variance_w))
    b = -r / (n * variance_w)
    return float(r), np.array([a, b, -(a * mean_f + b * mean_w)])


def information(counts: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Mutual information (nats) of a joint histogram of weight N, and its derivative by each count.

    With p = counts / N and N fixed: MI = Σ p·log(p / (p_f·p_w)), dMI/dcount = (log(p / (p_f·p_w)) − 1 ) / N up to a
    constant along each row, which has no effect because the windows of one voxel always add up to its weight.
    """
    total = max(float(counts.sum()), 1e-12)
    p = counts / total
    outer = p.sum(1, keepdims=True) * p.sum(0, keepdims=True)
    ratio = np.log(np.where(p > 0, p, 1.0) / np.where(p > 0, outer, 1.0))
    # Empty bins get the slope of the emptiest occupied one, not 0: 0 would say that moving there is free.
    floor = np.log((p + 1e-8) / (outer + 1e-8))
    return float((p * ratio).sum()), np.where(p > 0, ratio, floor) / total
