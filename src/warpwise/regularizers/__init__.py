"""Regularizers: what a deformation costs. Lower is better."""

from warpwise.tables import Table

REGULARIZERS = Table(
    "regularizer",
    {
        "diffusion": "warpwise.regularizers.smoothness:Diffusion",
        "bending": "warpwise.regularizers.smoothness:Bending",
    },
)

__all__ = ["REGULARIZERS"]
