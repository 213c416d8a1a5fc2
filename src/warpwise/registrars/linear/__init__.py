"""The linear stage: where to begin, and rigid or affine registration from there."""

TRANSFORMS = ("rigid", "affine")
"""What people ask for by name; `affine.Freedom` has all."""
