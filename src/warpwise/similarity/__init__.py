"""Similarities: how well the warped moving image matches the fixed one. Lower is better, everywhere."""

from warpwise.similarity.base import Fused, Similarity
from warpwise.tables import Table

SIMILARITIES = Table(
    "similarity",
    {
        "lncc": "warpwise.similarity.local:LNCC",
        "ncc": "warpwise.similarity.intensity:NCC",
        "mse": "warpwise.similarity.intensity:MSE",
        "mi": "warpwise.similarity.information:MutualInformation",
        "mind": "warpwise.similarity.descriptor:MIND",
    },
)

__all__ = ["SIMILARITIES", "Fused", "Similarity"]
