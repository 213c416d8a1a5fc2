"""Whether two images show tissue alike, so that intensities may be compared, or only their structure."""

import numpy as np

from warpwise.ops.cpu import launch
from warpwise.pair import Pair
from warpwise.registrars.descent import overlap
from warpwise.registrars.starts import coarsest

# Measured under an affine: brains, hearts, hippocampi 0.43 to 0.87; T1 and T2 of a neck -0.13, two stains 0.11,
# PD and a T1 template 0.31 (benchmarks/README.md).
ALIKE = 0.35
VOXELS = 120_000


def agreement(pair: Pair) -> float:
    """Mean signed local correlation over the root of the mean squared one, under `pair.to_moving`; 1 is alike.

    A global correlation does not tell: bright heads on dark air correlate whatever the contrast inside.
    """
    small = coarsest(pair, VOXELS)
    warped = launch.warp_affine(small.moving, small.to_moving, out=np.empty_like(small.fixed))
    weight = overlap(small)
    voxels = float(small.fixed[0].size if weight is None else weight.sum(dtype=np.float64))
    if voxels < 1:
        return 0.0
    x, y, z = (2 if n > 1 else 0 for n in small.fixed.shape[1:])
    maps = np.empty((len(small.fixed), 3, *small.fixed.shape[1:]), np.float32)
    signed, squared = (
        float(
            small.weights
            @ launch.lncc(
                small.fixed, warped, radius=(x, y, z), weight=weight, signed=flag, scale=np.ones(len(maps)), maps=maps, gradient=None
            )
        )
        / voxels
        for flag in (True, False)
    )
    return signed / max(np.sqrt(squared), 1e-6)
