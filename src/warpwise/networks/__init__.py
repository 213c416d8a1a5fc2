"""Networks that take a fixed and a moving image on one grid, and say where each voxel goes."""

from warpwise.tables import Table

NETWORKS = Table(
    "network",
    {
        "voxelmorph": "warpwise.networks.unet:VoxelMorphSettings",
        "vm-diff": "warpwise.networks.unet:VMDiffSettings",
        "transmorph": "warpwise.networks.transformer:TransMorphSettings",
        "pyramid": "warpwise.networks.pyramid:PyramidSettings",
        "symmetric": "warpwise.networks.symmetric:SymmetricSettings",
        "features": "warpwise.networks.probabilistic:MatchingSettings",
        "cascade": "warpwise.networks.propagation:CascadeSettings",
    },
)
"""Name → settings, whose `build(dim=…, channels=…)` makes the network."""
