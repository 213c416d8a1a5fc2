"""Deformable solvers: one descent, and the motions it can make."""
