"""Level 0: registration of one pair."""

from warpwise.tables import Table

REGISTRARS = Table(
    "deformable transform",
    {
        "greedy": "warpwise.registrars.deformable.greedy:Greedy",
        "svf": "warpwise.registrars.deformable.svf:SVF",
        "symmetric": "warpwise.registrars.deformable.svf:SymmetricSVF",
    },
)
