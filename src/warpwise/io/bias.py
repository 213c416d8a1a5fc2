"""Slow shading of MR images, removed before they are compared."""

from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from warpwise.grid import Grid

_COARSE_MM = 4.0  # the field is estimated on voxels of about this size: it is smooth, and N4 slow


def without_bias(data: NDArray[Any], grid: Grid) -> NDArray[np.float32]:
    """An image (X, Y[, Z]) divided by its bias field, scaled to keep its mean; dark background stays as it is.

    Source: N4ITK, Tustison et al., IEEE TMI 2010, as in SimpleITK.
    """
    low = float(data.min())
    positive = sitk.GetImageFromArray(np.ascontiguousarray((data.astype(np.float32) - low).transpose()))
    positive.SetSpacing(list(grid.spacing_mm))
    mask = sitk.OtsuThreshold(positive, 0, 1, 200)
    factors = [max(1, min(round(_COARSE_MM / s), n // 8)) for s, n in zip(grid.spacing_mm, grid.shape, strict=True)]
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations([30, 20, 10] if min(grid.shape) >= 16 else [30])
    n4.Execute(sitk.Shrink(positive, factors), sitk.Shrink(mask, factors))
    field = sitk.GetArrayFromImage(sitk.Exp(n4.GetLogBiasFieldAsImage(positive))).transpose()
    inside = sitk.GetArrayFromImage(mask).transpose() > 0
    raised = data.astype(np.float32) - np.float32(low)
    out = raised / np.maximum(field, np.float32(1e-3))
    out *= np.float32(raised[inside].mean() / max(float(out[inside].mean()), 1e-12)) if inside.any() else np.float32(1)
    return np.asarray(out + np.float32(low), np.float32)
