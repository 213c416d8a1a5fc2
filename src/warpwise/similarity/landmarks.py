"""Corresponding points that should meet, as a term of solvers."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from warpwise.pair import Pair
from warpwise.shapes import Points
from warpwise.terms.term import Term


class Landmarks(Term):
    """Mean squared distance of corresponding points; every stage of a solver pulls at them.

    Attributes:
        distance: share of half the fixed image's diagonal; points that far off cost as much as images that share nothing.
    """

    term: Literal["landmarks"] = "landmarks"
    distance: float = Field(default=0.05, gt=0)

    def energy(self, pair: Pair, residuals: Points) -> float:
        """weight · mean |r|² / distance², for residuals (n, 3) in voxels of the moving grid."""
        mm = residuals @ pair.moving.grid.affine[:3, :3].T
        return self.weight * float((mm * mm).sum(1).mean()) / self.distance_mm(pair) ** 2

    def distance_mm(self, pair: Pair) -> float:
        """The distance that costs `weight`."""
        return self.distance * pair.radius_mm


def residuals(pair: Pair, displaced: Points, to_moving: NDArray[np.float64]) -> Points:
    """Where displaced fixed points (n, 3) arrive, less where they belong, voxels of the moving grid."""
    assert pair.moving.points is not None
    return displaced @ to_moving[:3, :3].T + to_moving[:3, 3] - pair.moving.points
