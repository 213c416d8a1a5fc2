"""The part of a pair that deformable solvers work on, and the way back to the whole grid."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from warpwise.events import Event
from warpwise.ops import kernels
from warpwise.pair import Pair
from warpwise.registrars.base import Passed, Solution
from warpwise.registrars.crop import Box, anchored, foreground
from warpwise.shapes import Triple, VectorField, VectorFieldElsewhere


@dataclass(frozen=True, eq=False)
class Part:
    """A pair cut down to the box of both foregrounds.

    Attributes:
        pair: the part; box: where it lies; full: voxels of the whole fixed grid.
        start: what another solver found on the whole grid, where it goes on from that.
    """

    pair: Pair
    box: Box
    full: Triple
    start: Solution | None

    @classmethod
    def of(cls, pair: Pair, start: Solution | None) -> "Part":
        """The part of a pair."""
        box = foreground(pair)
        x, y, z = pair.fixed.shape
        return cls(anchored(pair.cropped(box.start, box.shape)), box, (x, y, z), start)

    def begun(self) -> VectorField | None:
        """The displacement to begin with (3, X, Y, Z), voxels of the part; none: rest."""
        if self.start is None:
            return None
        inside = tuple(slice(s, s + n) for s, n in zip(self.box.start, self.box.shape, strict=True))
        return np.ascontiguousarray(self.start.field[(slice(None), *inside)])

    def whole(self, field: VectorField, reach: Triple) -> VectorFieldElsewhere:
        """A field in voxels of its own nodes, `reach` voxels apart, as one in voxels of the full grid on all of them."""
        scaled = field if reach == (1, 1, 1) else field * np.array(reach, np.float32)[:, None, None, None]
        fine = scaled if reach == (1, 1, 1) else kernels.upsample(scaled, self.box.shape, reach)
        return self.box.embed(fine, self.full)

    def passed(self, name: str, moved: VectorField, reach: Triple, history: Sequence[Event]) -> Passed:
        """What is known after a scale: a displacement, voxels of its own nodes, and the energy that it ended with."""
        return Passed.between(name, moved, self.pair.fixed.grid, reach, energy=history[-1].energy if history else None)

    def solution(
        self,
        moved: VectorField,
        reach: Triple,
        *,
        velocity: VectorField | None = None,
        history: list[Event],
        stops: list[str],
        passed: Sequence[Passed] = (),
    ) -> Solution:
        """What a solver answers, with what is known of its start."""
        whole = None if velocity is None else self.whole(velocity, reach)
        found = Solution(self.whole(moved, reach), whole, history=tuple(history), stops=tuple(stops), passed=tuple(passed))
        if self.start is None:
            return found
        found = replace(found, passed=(*self.start.passed, *found.passed))
        return replace(found, uncertainty=self.start.uncertainty, feature_uncertainty=self.start.feature_uncertainty)
