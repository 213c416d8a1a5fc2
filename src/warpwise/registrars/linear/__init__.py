"""The linear stage: where to begin, and rigid or affine registration from there."""
