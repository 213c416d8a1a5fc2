"""Level 0: registration of one pair."""

from warpwise.tables import Table

REGISTRARS = Table(
    "deformable transform",
    {
        "greedy": "warpwise.registrars.greedy:Greedy",
        "svf": "warpwise.registrars.svf:SVF",
        "symmetric": "warpwise.registrars.svf:SymmetricSVF",
    },
)
