"""Regularizers: what a deformation costs. Lower is better."""

from warpwise.tables import Table

REGULARIZERS = Table(
    "regularizer",
    {
        "diffusion": "warpwise.regularizers.smoothness:Diffusion",
        "bending": "warpwise.regularizers.smoothness:Bending",
        "folding": "warpwise.regularizers.folding:Folding",
        "inverse-consistency": "warpwise.regularizers.folding:InverseConsistency",
        "kl": "warpwise.regularizers.posterior:KullbackLeibler",
    },
)

__all__ = ["REGULARIZERS"]
