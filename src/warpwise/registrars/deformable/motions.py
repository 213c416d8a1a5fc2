"""What deformable solvers move: a displacement that is composed, or a stationary velocity."""

from abc import ABC, abstractmethod
from typing import Literal

import numpy as np

from warpwise.ops import kernels
from warpwise.registrars.deformable.work import ScaleWork
from warpwise.shapes import VectorField
from warpwise.transforms.velocity import exponential, logarithm

Kind = Literal["greedy", "svf", "symmetric"]


class Motion(ABC):
    """What is moved at one scale: how a field deforms the images, and how a step changes it."""

    @abstractmethod
    def __init__(self, work: ScaleWork) -> None:
        """Buffers for one scale."""

    @abstractmethod
    def energy_and_force(self, field: VectorField, force: VectorField) -> float:
        """Energy at a field; force becomes the derivative by a small displacement composed on the right."""

    @abstractmethod
    def stepped(self, field: VectorField, step: VectorField, spare: VectorField, share: float) -> None:
        """Change the field, in place, by a step (both in voxels of its nodes), and smooth it by this share of the whole:
        where steps are short, smoothing must be little, or it undoes more than they do."""

    @abstractmethod
    def displacement(self, field: VectorField) -> VectorField:
        """The displacement that the field stands for, voxels of the nodes."""

    @staticmethod
    @abstractmethod
    def field_of(displacement: VectorField) -> VectorField:
        """The field that stands for a displacement."""


class Compositional(Motion):
    """The motion of `greedy` and FireANTs: φ ← smooth(φ∘(id + step)).

    Because a step is composed on the right, the gradient of the energy by it needs only central differences of the
    warped image.
    """

    def __init__(self, work: ScaleWork) -> None:
        self.work = work
        self.evaluate = work.fused(work.fixed)
        self.warped, self.derivative = work.blank(), work.blank()
        self.voxels = np.empty((3, *work.nodes), np.float32)
        _, self.sigma = work.sigmas()

    def energy_and_force(self, field: VectorField, force: VectorField) -> float:
        work = self.work
        at = work.in_voxels(field, self.voxels)
        kernels.warp(work.moving, at, work.pair.to_moving, factors=work.factors, out=self.warped)
        energy = self.evaluate(self.warped, self.derivative)
        kernels.force(self.derivative, self.warped, factors=work.factors, out=force)
        return energy

    def stepped(self, field: VectorField, step: VectorField, spare: VectorField, share: float) -> None:
        kernels.compose(field, step, out=spare)
        smoothed(spare, self.sigma, share, out=field)

    def displacement(self, field: VectorField) -> VectorField:
        return field

    @staticmethod
    def field_of(displacement: VectorField) -> VectorField:
        return np.ascontiguousarray(displacement)


class Exponential(Motion):
    """φ = exp(v), v ← smooth(v + step): the first-order form of log-demons (Vercauteren et al., NeuroImage 2009)."""

    def __init__(self, work: ScaleWork) -> None:
        self.moved = Compositional(work)

    def energy_and_force(self, field: VectorField, force: VectorField) -> float:
        return self.moved.energy_and_force(integrate(field), force)

    def stepped(self, field: VectorField, step: VectorField, spare: VectorField, share: float) -> None:
        added(field, step, spare, self.moved.sigma, share)

    def displacement(self, field: VectorField) -> VectorField:
        return integrate(field)

    @staticmethod
    def field_of(displacement: VectorField) -> VectorField:
        return logarithm(displacement)


class Symmetric(Motion):
    """Compares both images half-way, fixed∘exp(−v/2) with moving∘exp(v/2): exchanging them only changes v's sign."""

    def __init__(self, work: ScaleWork) -> None:
        self.work = work
        _, self.sigma = work.sigmas()
        self.warped, self.middle, self.derivative = work.blank(), work.blank(), work.blank()
        self.evaluate = work.fused(self.middle)
        self.evaluate_fixed = work.fused(self.warped)
        self.voxels = np.empty((3, *work.nodes), np.float32)

    def energy_and_force(self, field: VectorField, force: VectorField) -> float:
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

    def stepped(self, field: VectorField, step: VectorField, spare: VectorField, share: float) -> None:
        added(field, step, spare, self.sigma, share)

    def displacement(self, field: VectorField) -> VectorField:
        return integrate(field)

    @staticmethod
    def field_of(displacement: VectorField) -> VectorField:
        return logarithm(displacement)


def integrate(velocity: VectorField) -> VectorField:
    """exp(v), with as many squarings as bring the longest vector below a quarter of a voxel."""
    longest = float(np.sqrt(np.einsum("dxyz,dxyz->xyz", velocity, velocity).max()))
    squarings = int(np.clip(np.ceil(np.log2(max(longest, 1e-6) / 0.25)), 1, 12))
    return exponential(velocity, squarings=squarings)


def added(velocity: VectorField, step: VectorField, spare: VectorField, sigma: list[float], share: float) -> None:
    """velocity ← smooth(velocity + step), in place."""
    np.add(velocity, step, out=spare)
    smoothed(spare, sigma, share, out=velocity)


def smoothed(field: VectorField, sigma: list[float], share: float, *, out: VectorField) -> VectorField:
    """out ← field + share · (its Gaussian − field)."""
    kernels.gaussian(field, sigma, out=out)
    if share < 1:
        out -= field
        out *= np.float32(share)
        out += field
    return out
