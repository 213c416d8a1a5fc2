"""What solvers take and give."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from warpwise.pair import Pair

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Step:
    """One iteration, as told to `on_step`."""

    stage: str
    level: int
    iteration: int
    iterations: int
    energy: float


OnStep = Callable[[Step], None]


def ignore(step: Step) -> None:
    """The callback for those who do not want to know."""


@dataclass(frozen=True, eq=False)
class Solution:
    """What a deformable solver found, in voxels of the pair's fixed grid.

    Attributes:
        field: (3, X, Y, Z); moves fixed points before `pair.to_moving`.
        velocity: the same for a stationary velocity field whose exponential `field` is, else None.
        history: every step, in order.
        stops: why each level ended, coarse to fine.
        uncertainty: (X, Y, Z), mm: standard deviation of where a voxel goes, where it is known.
        feature_uncertainty: (X, Y, Z): standard deviation of the fixed image's learned features, where they have one.
    """

    field: Array
    velocity: Array | None = None
    history: tuple[Step, ...] = ()
    stops: tuple[str, ...] = ()
    uncertainty: Array | None = None
    feature_uncertainty: Array | None = None


class Registrar(Protocol):
    """A deformable solver: frozen settings with one method."""

    def solve(self, pair: Pair, *, on_step: OnStep = ignore) -> Solution:
        """The field that brings the moving image onto the fixed one."""
        ...


@dataclass
class Recorder:
    """Keeps the history of a run and judges whether a level still gets better."""

    on_step: OnStep
    stage: str
    tolerance: float
    window: int = 10
    steps: list[Step] = field(default_factory=list[Step])
    energies: list[float] = field(default_factory=list[float])

    def begin(self) -> None:
        """A new level: forget its predecessor's energies."""
        self.energies.clear()

    def add(self, level: int, iterations: int, energy: float) -> bool:
        """Note one iteration; True once the best energy of the last `window` is not better than before them."""
        step = Step(self.stage, level, len(self.energies) + 1, iterations, energy)
        self.steps.append(step)
        self.energies.append(energy)
        self.on_step(step)
        if len(self.energies) <= self.window:
            return False
        earlier, recent = min(self.energies[: -self.window]), min(self.energies[-self.window :])
        return earlier - recent < self.tolerance * abs(earlier)
