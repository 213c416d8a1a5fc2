"""Where a registration of real images begins."""

from pathlib import Path

import numpy as np
import pytest

import warpwise as ww
from warpwise.resampling import resample
from warpwise.synthetic.deformations import random_deformation


@pytest.mark.parametrize("seed", [0, 1])
def test_a_neck_that_two_contrasts_show_is_not_turned(data: Path, seed: int):
    """T1 and T2 have so little in common that other orientations agree as well by chance."""
    images = data / "spine-multicontrast" / "images"
    fixed, moving = (ww.load_image(images / f"{name}.nii.gz") for name in ("t1", "t2"))
    bend = random_deformation(fixed.grid, np.random.default_rng(seed), sigma_mm=20.0, amplitude_mm=1.0)
    result = ww.register(resample(fixed, fixed.grid, bend), moving, method="affine")
    expected = ww.register(fixed, moving, method="rigid")
    assert np.abs(result.displacement_mm - expected.displacement_mm).mean() < 3.0
