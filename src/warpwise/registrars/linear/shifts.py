"""Every translation at once: masked normalised correlation by FFT.

Source: Padfield, IEEE TIP 2012. Finds starts where centres of mass mislead: partial coverage, faint stains.
"""

import numpy as np
from numpy.typing import NDArray

from warpwise.ops import kernels
from warpwise.pair import Pair
from warpwise.shapes import Matrix4

Spectrum = NDArray[np.complexfloating]

OVERLAP = 0.5  # share of the smaller image that must overlap


class ShiftSearch:
    """Best translations of one small pair under many linear maps; the fixed image's spectra are computed once."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        shape = np.array(pair.fixed.shape)
        self.pad = np.where(shape > 1, (shape + 1) // 2, 0)
        self.shape = shape + 2 * self.pad
        inner = tuple(slice(p, p + n) for p, n in zip(self.pad, shape, strict=True))
        fixed, mask = np.zeros(self.shape), np.zeros(self.shape)
        fixed[inner] = pair.fixed.data[0]
        mask[inner] = 1.0 if pair.fixed.mask is None else pair.fixed.mask
        self.fixed = [np.conj(np.fft.rfftn(a)) for a in (mask, fixed * mask, fixed * fixed * mask)]
        self.voxels = float(mask.sum())

    def best(self, matrix: Matrix4) -> Matrix4:
        """`matrix` (fixed index → moving index) after the translation of the fixed grid with the highest |correlation|."""
        origin = np.eye(4)
        origin[:3, 3] = -self.pad
        x, y, z = (int(n) for n in self.shape)
        weight = np.empty((x, y, z), np.float32)
        warped = kernels.warp_affine(self.pair.moving.data[:1], matrix @ origin, out=np.empty((1, x, y, z), np.float32))[0]
        kernels.overlap_weight(None, self.pair.moving.shape, matrix @ origin, out=weight)
        w, g = warped.astype(np.float64), weight.astype(np.float64)
        ones, first, second = (np.fft.rfftn(a) for a in (g, w * g, w * w * g))
        mask, f, ff = self.fixed
        n = self._correlate(mask, ones)
        enough = n >= OVERLAP * min(self.voxels, float(g.sum()))
        n = np.maximum(n, 1.0)
        sum_f, sum_w = self._correlate(f, ones), self._correlate(mask, first)
        covariance = self._correlate(f, first) - sum_f * sum_w / n
        variance_f = self._correlate(ff, ones) - sum_f**2 / n
        variance_w = self._correlate(mask, second) - sum_w**2 / n
        floor = 1e-3 * np.maximum(variance_f.max(), 1e-12), 1e-3 * np.maximum(variance_w.max(), 1e-12)
        score = np.abs(covariance) / np.sqrt(np.maximum(variance_f, floor[0]) * np.maximum(variance_w, floor[1]))
        score = np.where(enough, score, -1.0)
        at = np.array(np.unravel_index(int(score.argmax()), score.shape), np.float64)
        # Shifts beyond half the size are negative ones.
        at = np.where(at > self.shape / 2, at - self.shape, at)
        shift = np.eye(4)
        shift[:3, 3] = at
        return matrix @ shift

    def _correlate(self, a: Spectrum, b: Spectrum) -> NDArray[np.float64]:
        return np.fft.irfftn(a * b, tuple(self.shape), axes=(0, 1, 2))
