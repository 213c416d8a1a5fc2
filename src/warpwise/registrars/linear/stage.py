"""The linear stage of a registration, whole: what it looks at, where it begins, by what it compares."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from warpwise.pair import Pair
from warpwise.registrars.base import OnStep, ignore
from warpwise.registrars.crop import focused
from warpwise.registrars.linear import affine, starts
from warpwise.registrars.linear.affine import AffineSettings, AffineSolution
from warpwise.registrars.linear.contrast import ALIKE, agreement


@dataclass(frozen=True, eq=False)
class Linear:
    """What the linear stage found.

    Attributes:
        seen: the two objects alone, at the start.
        similarity: by which they were compared.
    """

    seen: Pair
    start: starts.Start
    similarity: str
    solution: AffineSolution

    @property
    def world(self) -> NDArray[np.float64]:
        """Fixed mm → moving mm, 4×4."""
        return self.seen.moving_grid.affine @ self.solution.to_moving @ self.seen.grid.inverse_affine


def unaligned(pair: Pair) -> Linear:
    """No linear stage: the images lie as `pair.to_moving` has it."""
    seen = focused(pair)
    start = starts.given(seen)
    return Linear(seen, start, "none", AffineSolution(seen.to_moving, -start.correlation, (), ("not wanted",)))


def align(
    pair: Pair, settings: AffineSettings, *, similarity: str = "auto", given: bool = False, on_step: OnStep = ignore
) -> Linear:
    """Search a start (unless one is given in `pair.to_moving`) and register linearly from there.

    Only the two objects are looked at, so that empty space round them does not matter. Similarities that compare
    structure alone (auto, lncc, mind) stand for lncc where tissue looks alike, else for mutual information.
    """
    seen = focused(pair)
    start = starts.given(seen) if given else starts.choose(seen)
    seen = seen.moved(start.to_moving)
    chosen = similarity if similarity in ("ncc", "mse", "mi") else ("lncc" if agreement(seen) > ALIKE else "mi")
    return Linear(seen, start, chosen, affine.solve(seen, settings, similarity=chosen, on_step=on_step))
