"""Deformable solvers: one descent, and the motions it can make."""

from warpwise.tables import Table

MOTIONS = Table(
    "motion",
    {
        "greedy": "warpwise.registrars.deformable.motions:Compositional",
        "svf": "warpwise.registrars.deformable.motions:Exponential",
        "symmetric": "warpwise.registrars.deformable.motions:Symmetric",
    },
)
