"""Linear similarities in the form that Gauss-Newton needs: value, and its normal equations by a matrix."""

from collections.abc import Callable

import numpy as np

from warpwise.ops import kernels
from warpwise.ops.statistics import correlation, information
from warpwise.pair import Pair
from warpwise.shapes import Array, Matrix4, Normal, NormalAffine, VoxelPoints
from warpwise.similarity.base import LinearMeasure
from warpwise.similarity.information import MutualInformation
from warpwise.similarity.label import LabelOverlap
from warpwise.similarity.landmarks import Landmarks, residuals

Prepare = Callable[[], None]
"""Fills the buffers of derivative and curvature for one channel."""

RADIUS = 2  # of the windows of lncc, voxels of the scale


def compared(
    pair: Pair, measure: LinearMeasure, labels: LabelOverlap | None
) -> tuple[Array, Array, list[LinearMeasure], list[float]]:
    """Channels of both images, codes of labels among them, and for each channel its measure and its share."""
    shares = [float(w) for w in pair.weights]
    measures: list[LinearMeasure] = [measure] * len(shares)
    fixed, moving = pair.fixed, pair.moving
    if labels is None or fixed.codes is None or moving.codes is None:
        return fixed.data, moving.data, measures, shares
    # A mean over voxels, whereas a label's share is one of all that it marks.
    share = labels.share(fixed.codes) * float(np.prod(fixed.shape))
    count = len(fixed.codes)
    both = [np.concatenate([volume.data, codes]) for volume, codes in ((fixed, fixed.codes), (moving, moving.codes))]
    by_squares: list[LinearMeasure] = ["mse"] * count
    return both[0], both[1], [*measures, *by_squares], [*shares, *[share] * count]


class Problem:
    """A pair at one resolution and one measure, with buffers that live as long.

    Only voxels inside both fields of view (and masks) count, and each value is a mean over them; a step that leaves
    less than half of the best overlap is refused by an infinite value.
    """

    def __init__(
        self,
        pair: Pair,
        measure: LinearMeasure,
        *,
        labels: LabelOverlap | None = None,
        landmarks: Landmarks | None = None,
        bins: int = 32,
    ) -> None:
        self.pair, self.bins = pair, bins
        self.landmarks = None if pair.fixed.points is None else landmarks
        shape = pair.fixed.shape
        self._weight, self._mask = np.ones(shape, np.float32), np.ones(shape, np.float32)
        self._derivative, self._curvature = np.ones(shape, np.float32), np.ones(shape, np.float32)
        self._fixed, self._moving, self._measures, self._shares = compared(pair, measure, labels)
        self._warped = np.empty(self._fixed.shape, np.float32)
        self._matrix = pair.to_moving
        self._largest_overlap = 0.0
        self._prepared: list[Prepare] = []

    def value(self, matrix: Matrix4) -> float:
        """Similarity (lower is better) of the moving image under matrix (fixed index → moving index)."""
        pair, weight, warped = self.pair, self._weight, self._warped
        kernels.warp_affine(self._moving, matrix, out=warped)
        kernels.overlap_weight(pair.fixed.mask, pair.moving.shape, matrix, out=weight)
        if pair.moving.mask is not None:
            weight *= kernels.warp_affine(pair.moving.mask[None], matrix, out=self._mask[None])[0]
        overlap = float(weight.sum(dtype=np.float64))
        if overlap < max(0.5 * self._largest_overlap, 8.0):
            return float("inf")
        self._largest_overlap = max(self._largest_overlap, overlap)
        total = 0.0
        self._prepared.clear()
        for n, share in enumerate(self._shares):
            value, prepare = self._channel(n, overlap)
            self._prepared.append(prepare)
            total += share * value
        self._matrix = matrix
        if self.landmarks is not None and pair.fixed.points is not None:
            total += self.landmarks.energy(pair, residuals(pair, pair.fixed.points, matrix))
        return total

    def normal_equations(self) -> Normal:
        """Gradient (12,) and Gauss-Newton matrix (12, 12) at the matrix last given to `value`."""
        gradient, hessian = np.zeros((3, 4)), np.zeros((12, 12))
        for n, (share, prepare) in enumerate(zip(self._shares, self._prepared, strict=True)):
            prepare()
            g, h = kernels.normal_equations(self._derivative, self._curvature, self._warped[n])
            gradient += share * g
            hessian += share * h
        if self.landmarks is not None and self.pair.fixed.points is not None:
            g, h = self._landmarks(self.landmarks, self.pair.fixed.points)
            gradient += g
            hessian += h
        return gradient.ravel(), hessian

    def _landmarks(self, landmarks: Landmarks, fixed: VoxelPoints) -> NormalAffine:
        """The same for Σ |W(Mp − q)|²: a step B, composed on the right, moves a point by W·M·(B p) mm."""
        mm = self.pair.moving.grid.affine[:3, :3]
        off = residuals(self.pair, fixed, self._matrix) @ mm.T
        moves = mm @ self._matrix[:3, :3]
        points = np.column_stack([fixed, np.ones(len(off))])
        scale = 2 * landmarks.weight / (len(off) * landmarks.distance_mm(self.pair) ** 2)
        hessian = np.kron(moves.T @ moves, points.T @ points).astype(np.float64)
        return scale * (moves.T @ off.T @ points), scale * hessian

    def _channel(self, n: int, overlap: float) -> tuple[float, Prepare]:
        fixed, warped, weight = self._fixed[n : n + 1], self._warped[n : n + 1], self._weight[None]
        measure = self._measures[n]
        if measure == "mi":
            term = MutualInformation(bins=self.bins)
            ranges = term.ranges()
            counts = kernels.joint_histogram(fixed[0], warped[0], weight[0], ranges=ranges, bins=self.bins)
            value, potential = information(counts)

            def prepare_information() -> None:
                kernels.histogram_gradient(
                    fixed[0], warped[0], weight[0],
                    ranges=ranges, potential=potential, scale=-float(ranges[3]), out=self._derivative,
                )  # fmt: skip
                sums = kernels.moments(fixed, warped, weight)[0]
                variance = max(sums[4] / sums[0] - (sums[2] / sums[0]) ** 2, 1e-6)
                np.multiply(weight[0], np.float32(1 / (variance * overlap)), out=self._curvature)

            return -value, prepare_information
        if measure == "lncc":
            return self._local(fixed, warped, weight, overlap)
        sums = kernels.moments(fixed, warped, weight)[0]
        if measure == "mse":
            value = (sums[3] + sums[4] - 2 * sums[5]) / overlap
            coefficients, curvature = np.array([-2.0, 2.0, 0.0]) / overlap, 2.0 / overlap
        else:
            correlation_value, slopes = correlation(sums)
            value, coefficients = -correlation_value, -slopes
            variance = max(sums[4] / sums[0] - (sums[2] / sums[0]) ** 2, 1e-12)
            curvature = 1.0 / (variance * overlap)

        def prepare() -> None:
            kernels.blend(fixed, warped, weight, coefficients[None], out=self._derivative[None])
            np.multiply(weight[0], np.float32(curvature), out=self._curvature)

        return value, prepare

    def _local(self, fixed: Array, warped: Array, weight: Array, overlap: float) -> tuple[float, Prepare]:
        x, y, z = (RADIUS if n > 1 else 0 for n in fixed.shape[1:])
        maps = np.empty((1, 3, *fixed.shape[1:]), np.float32)
        scale = np.array([-1 / overlap])
        radius = (x, y, z)
        total = kernels.lncc(fixed, warped, radius=radius, weight=weight, scale=scale, maps=maps, gradient=None)

        def prepare() -> None:
            kernels.lncc_gradient(fixed, warped, maps, radius=radius, scale=scale, gradient=self._derivative[None])
            # The derivative is Σ over windows of a·f − b·w + c; held still, b is its (positive) slope.
            windows = [("box", float(r)) for r in (x, y, z)]
            slope = kernels.separable(np.ascontiguousarray(maps[:, 1]), windows)[0]
            np.multiply(slope, np.float32((2 * x + 1) * (2 * y + 1) * (2 * z + 1) / overlap), out=self._curvature)

        return -float(total[0]) / overlap, prepare
