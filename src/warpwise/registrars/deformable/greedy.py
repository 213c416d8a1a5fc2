"""Greedy diffeomorphic registration: compose small smoothed steps, keep the displacement smooth."""

from dataclasses import dataclass

import numpy as np

from warpwise.ops import kernels
from warpwise.pair import Pair
from warpwise.registrars.base import OnStep, Solution, ignore
from warpwise.registrars.deformable import descent
from warpwise.registrars.deformable.descent import Array, DescentSettings, LevelWork, Motion


@dataclass(frozen=True)
class Greedy:
    """The solver of `greedy` and FireANTs: φ ← smooth(φ∘(id + step)).

    Because a step is composed on the right, the gradient of the energy by it needs only central differences of the
    warped image.
    """

    settings: DescentSettings
    similarity: str = "lncc"
    start: Solution | None = None

    def solve(self, pair: Pair, *, on_step: OnStep = ignore) -> Solution:
        """The displacement that brings the moving image onto the fixed one."""
        return descent.solve(
            pair,
            self.settings,
            similarity=self.similarity,
            motion=Compositional,
            stage="greedy",
            on_step=on_step,
            start=self.start,
        )


class Compositional(Motion):
    """A displacement field, changed by composition."""

    def __init__(self, work: LevelWork, settings: DescentSettings) -> None:
        self.work = work
        self.evaluate = work.fused(work.fixed)
        self.warped, self.derivative = work.blank(), work.blank()
        self.voxels = np.empty((3, *work.nodes), np.float32)
        _, self.sigma = work.sigmas(settings)

    def energy_and_force(self, field: Array, force: Array) -> float:
        work = self.work
        at = work.in_voxels(field, self.voxels)
        kernels.warp(work.moving, at, work.pair.to_moving, factors=work.factors, out=self.warped)
        energy = self.evaluate(self.warped, self.derivative)
        kernels.force(self.derivative, self.warped, factors=work.factors, out=force)
        return energy

    def stepped(self, field: Array, step: Array, spare: Array) -> None:
        kernels.compose(field, step, out=spare)
        kernels.gaussian(spare, self.sigma, out=field)

    def displacement(self, field: Array) -> Array:
        return field

    @staticmethod
    def field_of(displacement: Array) -> Array:
        return np.ascontiguousarray(displacement)
