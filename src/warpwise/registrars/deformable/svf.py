"""Registration by a stationary velocity field: φ = exp(v), φ⁻¹ = exp(−v); also in a symmetric form."""

from dataclasses import dataclass

import numpy as np

from warpwise.ops import kernels
from warpwise.pair import Pair
from warpwise.registrars.base import OnStep, Solution, ignore
from warpwise.registrars.deformable import descent
from warpwise.registrars.deformable.descent import Array, DescentSettings, LevelWork, Motion
from warpwise.registrars.deformable.greedy import Compositional
from warpwise.transforms.velocity import exponential, logarithm


@dataclass(frozen=True)
class SVF:
    """v ← smooth(v + step), the first-order form of log-demons (Vercauteren et al., NeuroImage 2009)."""

    settings: DescentSettings
    similarity: str = "lncc"
    start: Solution | None = None

    def solve(self, pair: Pair, *, on_step: OnStep = ignore) -> Solution:
        """The velocity whose exponential brings the moving image onto the fixed one."""
        return descent.solve(
            pair,
            self.settings,
            similarity=self.similarity,
            motion=Exponential,
            stage="svf",
            on_step=on_step,
            start=self.start,
        )


@dataclass(frozen=True)
class SymmetricSVF:
    """Compares both images half-way, fixed∘exp(−v/2) with moving∘exp(v/2): exchanging them only changes v's sign."""

    settings: DescentSettings
    similarity: str = "lncc"
    start: Solution | None = None

    def solve(self, pair: Pair, *, on_step: OnStep = ignore) -> Solution:
        """The velocity whose exponential brings the moving image onto the fixed one."""
        return descent.solve(
            pair,
            self.settings,
            similarity=self.similarity,
            motion=Symmetric,
            stage="symmetric",
            on_step=on_step,
            start=self.start,
        )


def integrate(velocity: Array) -> Array:
    """exp(v), with as many squarings as bring the longest vector below a quarter of a voxel."""
    longest = float(np.sqrt(np.einsum("dxyz,dxyz->xyz", velocity, velocity).max()))
    squarings = int(np.clip(np.ceil(np.log2(max(longest, 1e-6) / 0.25)), 1, 12))
    return exponential(velocity, squarings=squarings)


class Exponential(Motion):
    """A velocity field, changed by addition."""

    def __init__(self, work: LevelWork, settings: DescentSettings) -> None:
        self.moved = Compositional(work, settings)

    def energy_and_force(self, field: Array, force: Array) -> float:
        return self.moved.energy_and_force(integrate(field), force)

    def stepped(self, field: Array, step: Array, spare: Array) -> None:
        np.add(field, step, out=spare)
        kernels.gaussian(spare, self.moved.sigma, out=field)

    def displacement(self, field: Array) -> Array:
        return integrate(field)

    @staticmethod
    def field_of(displacement: Array) -> Array:
        return logarithm(displacement)


class Symmetric(Motion):
    """A velocity field that moves both images half of the way."""

    def __init__(self, work: LevelWork, settings: DescentSettings) -> None:
        self.work = work
        self.whole = Exponential(work, settings)
        self.warped, self.middle, self.derivative = work.blank(), work.blank(), work.blank()
        self.evaluate = work.fused(self.middle)
        self.evaluate_fixed = work.fused(self.warped)
        self.voxels = np.empty((3, *work.nodes), np.float32)

    def energy_and_force(self, field: Array, force: Array) -> float:
        work, warped = self.work, self.warped
        half = np.float32(0.5)
        at = work.in_voxels(integrate(half * field), self.voxels)
        kernels.warp(work.moving, at, work.pair.to_moving, factors=work.factors, out=warped)
        at = work.in_voxels(integrate(-half * field), self.voxels)
        kernels.warp(work.fixed, at, np.eye(4), factors=work.factors, out=self.middle)
        # Similarities are symmetric, so the derivative by the fixed image is that of the exchanged pair.
        self.evaluate_fixed(self.middle, self.derivative)
        kernels.force(self.derivative, self.middle, factors=work.factors, out=self.voxels)
        energy = self.evaluate(warped, self.derivative)
        kernels.force(self.derivative, warped, factors=work.factors, out=force)
        force -= self.voxels
        force *= half
        return energy

    def stepped(self, field: Array, step: Array, spare: Array) -> None:
        self.whole.stepped(field, step, spare)

    def displacement(self, field: Array) -> Array:
        return integrate(field)

    @staticmethod
    def field_of(displacement: Array) -> Array:
        return logarithm(displacement)
