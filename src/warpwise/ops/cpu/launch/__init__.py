"""The CPU kernels as functions of NumPy arrays: shapes checked, constants prepared, loops run on threads.

Kernels themselves check no bounds. Images are float32 (N, X, Y, Z), fields (3, X, Y, Z) in voxels of the image they
move; a coarse field has nodes every `factors` voxels and one beyond the last voxel where needed.
"""

from warpwise.ops.cpu.launch.arrays import coarse_shape
from warpwise.ops.cpu.launch.features import cost_volume, cost_volume_gradient
from warpwise.ops.cpu.launch.fields import (
    determinant,
    digital,
    force,
    map_vectors,
    momentum_step,
    typical_length,
)
from warpwise.ops.cpu.launch.filters import (
    gaussian,
    gaussian_taps,
    separable,
    separable_adjoint,
)
from warpwise.ops.cpu.launch.matching import (
    laplacian,
    match_gradient,
    normal_field,
    normal_product,
    normal_solve,
    symmetric_kl,
)
from warpwise.ops.cpu.launch.measures import (
    blend,
    histogram_gradient,
    joint_histogram,
    lncc,
    lncc_gradient,
    moments,
    normal_equations,
    overlap_weight,
    pose_histograms,
    squared_difference,
)
from warpwise.ops.cpu.launch.sampling import (
    compose,
    invert,
    resample,
    spline_coefficients,
    upsample,
    warp,
    warp_adjoint,
    warp_affine,
    warp_cubic,
    warp_gradient,
    warp_with_gradient,
)

__all__ = [
    "blend",
    "coarse_shape",
    "compose",
    "cost_volume",
    "cost_volume_gradient",
    "determinant",
    "digital",
    "force",
    "gaussian",
    "gaussian_taps",
    "histogram_gradient",
    "invert",
    "joint_histogram",
    "laplacian",
    "lncc",
    "lncc_gradient",
    "map_vectors",
    "match_gradient",
    "moments",
    "momentum_step",
    "normal_equations",
    "normal_field",
    "normal_product",
    "normal_solve",
    "overlap_weight",
    "pose_histograms",
    "resample",
    "separable",
    "separable_adjoint",
    "spline_coefficients",
    "squared_difference",
    "symmetric_kl",
    "typical_length",
    "upsample",
    "warp",
    "warp_adjoint",
    "warp_affine",
    "warp_cubic",
    "warp_gradient",
    "warp_with_gradient",
]
