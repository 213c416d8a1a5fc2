"""Transforms: maps from fixed-space mm to moving-space mm (RAS+)."""

from warpwise.transforms.base import Composite, Transform

__all__ = ["Composite", "Transform"]
