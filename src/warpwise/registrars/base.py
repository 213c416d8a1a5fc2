"""What solvers take and give."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from warpwise.events import Event, OnEvent, ignore
from warpwise.grid import Grid
from warpwise.pair import Pair
from warpwise.shapes import Map, VectorField


@dataclass(frozen=True, eq=False)
class Passed:
    """What was known on the way: after a scale of a solver, or a stage of a network.

    Attributes:
        name: for people.
        field: (3, *nodes), voxels of the nodes; nodes: where they lie.
        energy: in the end, of a solver.
    """

    name: str
    field: VectorField
    nodes: Grid
    energy: float | None = None

    @classmethod
    def between(
        cls, name: str, field: VectorField, grid: Grid, reach: Sequence[float], *, energy: float | None = None
    ) -> "Passed":
        """A field whose nodes are so many voxels of a grid apart, the first at voxel 0; it goes on beyond the last one, as
        solvers have it, as far as there are voxels."""
        beyond = [(0, 0)] + [(0, int(n > 1)) for n in field.shape[1:]]
        field = np.pad(field, beyond, mode="edge")
        return cls(name, field, Grid(field.shape[1:], grid.affine @ np.diag([*reach, 1.0])), energy)


@dataclass(frozen=True, eq=False)
class Solution:
    """What a registrar answers, in voxels of the pair's fixed grid.

    Attributes:
        field: (3, X, Y, Z); moves fixed points before `pair.to_moving`.
        velocity: the same for a stationary velocity field whose exponential `field` is, else None.
        history: every step, in order.
        stops: why each scale ended, coarse to fine.
        uncertainty: (X, Y, Z), mm: standard deviation of where a voxel goes, where it is known.
        feature_uncertainty: (X, Y, Z): standard deviation of the fixed image's learned features, where they have one.
        passed: what was known before, coarse to fine.
    """

    field: VectorField
    velocity: VectorField | None = None
    history: tuple[Event, ...] = ()
    stops: tuple[str, ...] = ()
    uncertainty: Map | None = None
    feature_uncertainty: Map | None = None
    passed: tuple[Passed, ...] = ()


PREDICTED = "predicted"
"""The stage of a registrar that minimises nothing: one pass of a network."""


class Registrar(Protocol):
    """A way to deform, ready to be used on any pair."""

    @property
    def stage(self) -> str:
        """What its events and its part of a record are called."""
        ...

    def fits(self, pair: Pair) -> tuple[str, ...]:
        """Words on how a pair differs from what this registrar is for.

        Raises:
            InputError: it cannot be registered so at all.
        """
        ...

    def solve(self, pair: Pair, *, start: Solution | None = None, on_step: OnEvent = ignore) -> Solution:
        """The field that brings the moving image onto the fixed one, from a start where one is given."""
        ...


@dataclass
class Recorder:
    """Keeps the history of a run and judges whether a scale still gets better."""

    on_step: OnEvent
    stage: str
    tolerance: float
    window: int = 10
    steps: list[Event] = field(default_factory=list[Event])
    energies: list[float] = field(default_factory=list[float])

    def begin(self) -> None:
        """A new scale: forget its predecessor's energies."""
        self.energies.clear()

    def add(self, scale: int, iterations: int, energy: float) -> bool:
        """Note one iteration; True once the best energy of the last `window` is not better than before them."""
        step = Event(self.stage, len(self.energies) + 1, iterations, {"energy": energy}, scale)
        self.steps.append(step)
        self.energies.append(energy)
        self.on_step(step)
        if len(self.energies) <= self.window:
            return False
        earlier, recent = min(self.energies[: -self.window]), min(self.energies[-self.window :])
        return earlier - recent < self.tolerance * abs(earlier)
