"""Transforms: maps from fixed-space mm to moving-space mm (RAS+)."""

from warpwise.tables import Table
from warpwise.transforms.base import Transform

TRANSFORMS = Table(
    "transform",
    {
        "affine": "warpwise.transforms.affine:Affine",
        "displacement": "warpwise.transforms.displacement:DisplacementField",
        "velocity": "warpwise.transforms.velocity:VelocityField",
        "composite": "warpwise.transforms.composite:Composite",
    },
)

__all__ = ["TRANSFORMS", "Transform"]
