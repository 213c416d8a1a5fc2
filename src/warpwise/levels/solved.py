"""A pair that the energy solver has registered, as an inner problem of the hypergradient engine.

The solver's own kernels give the value and the slope of every term; second derivatives are differences of slopes, which
cubic sampling makes smooth, and conjugate gradients are preconditioned by the solver's own Gauss-Newton matrix. Nothing of
the solver's way is stored, and no term needs a second derivative.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from warpwise import ops
from warpwise.alignment import Alignment
from warpwise.levels.estimators import ConjugateGradient, DifferencedHessian
from warpwise.levels.hypergradient import Gradients, Product, Variables, perhaps
from warpwise.levels.hypergradient import Problem as Inner
from warpwise.ops import kernels
from warpwise.registrars.deformable import fold
from warpwise.registrars.deformable.energy import Problem, steepness
from warpwise.shapes import Array, VectorField
from warpwise.similarity.base import Fused

LENGTH = 0.02  # voxels: of the differences of slopes
LONGEST = 0.5  # voxels: of a Newton step
HALVINGS = 6  # of a Newton step
SAME = 1e-6  # of an energy: rounding
SOLVES = 8  # conjugate gradients of the preconditioner


@dataclass(frozen=True, eq=False)
class Solved:
    """An energy Σ λ_i·ℓ_i at the displacement where its solver stands.

    Attributes:
        problem: of the finest scale, by the weights that it was solved with.
        names: of the similarities that take part, in the problem's order; smoothness: of the diffusion.
        field: (3, X, Y, Z), voxels of the problem's nodes.
        mended: what is added to it where a registration would undo folds and rest at sides that were cut; None: nothing.
    """

    problem: Problem
    names: tuple[str, ...]
    smoothness: str
    field: VectorField
    mended: VectorField | None = None

    def inner(self) -> dict[str, Tensor]:
        """Where the solver stands, as the inner variable of the engine."""
        return {"u": torch.from_numpy(self.field.copy())}

    def values(self, inner: Variables) -> dict[str, Tensor]:
        """Every term by itself at a displacement, which can be differentiated once."""
        names = (*self.names, self.smoothness)
        return dict(zip(names, _Terms.apply(inner["u"], self), strict=True))

    def loss(self, weights: Mapping[str, Tensor], inner: Variables) -> Tensor:
        """The energy by any weights, 0-dim."""
        return torch.stack([weights[name] * value for name, value in self.values(inner).items()]).sum()

    def along(self, weights: Mapping[str, Tensor], vector: Tensor) -> Tensor:
        """Slope of the energy by any weights where the solver stands, along a vector, 0-dim; it is linear in them."""
        _, slopes = self.terms(self.field)
        names = (*self.names, self.smoothness)
        parts = [
            weights[name] * float(np.vdot(slope.astype(np.float64), vector.numpy()))
            for name, slope in zip(names, slopes, strict=True)
        ]
        return torch.stack(parts).sum()

    def kept(self) -> "Solved":
        """The same with what a registration would mend."""
        x, y, z = self.field.shape[1:]
        kept, _ = fold.repair(self.problem.work.rested(self.field), (1, 1, 1), (x, y, z))
        return replace(self, mended=kept - self.field)

    def energy(self, u: Tensor) -> Tensor:
        """The energy at a displacement, by the weights that it was solved with; it can be differentiated once."""
        return _Energy.apply(u, self)

    def slope(self, field: VectorField) -> VectorField:
        """Of the energy at a displacement, by the weights that it was solved with."""
        return self.valued(field)[1]

    def valued(self, field: VectorField) -> tuple[float, VectorField]:
        """Energy and slope at a displacement, by the weights that it was solved with."""
        weights = [*(term.weight for term in self.problem.work.terms.similarities), self.problem.weight]
        values, slopes = self.terms(field)
        slope = sum((np.float32(w) * s for w, s in zip(weights, slopes, strict=True)), np.zeros_like(field))
        return float(np.dot(weights, values)), np.asarray(slope, np.float32)

    def residual(self) -> float:
        """How steep the energy is where the solver stands, as a share of how steep it is at rest."""
        return steepness(self.slope(self.field)) / max(steepness(self.slope(np.zeros_like(self.field))), 1e-30)

    def estimator(
        self, weights: Callable[[Variables], Mapping[str, Tensor]], *, iterations: int, tolerance: float = 0.01
    ) -> ConjugateGradient:
        """How the displacement answers to outer variables of which the weights are functions."""

        def mixed(problem: Inner, vector: list[Tensor]) -> Gradients:
            return perhaps(self.along(weights(problem.outer), vector[0]), problem.outer)

        return ConjugateGradient(
            iterations,
            tolerance=tolerance,
            curvature=DifferencedHessian(LENGTH),
            mixed=mixed,
            precondition=self.preconditioner(),
            truncated=True,
        )

    def stepped(self, slope: VectorField, *, solves: int) -> VectorField | None:
        """The field after a Newton step, or the first of ever shorter ones that lowers the energy; None where none does."""
        inner = Inner.at(lambda _, at: self.energy(at["u"]), {}, self.inner())
        estimator = self.estimator(dict, iterations=solves, tolerance=0.1)
        step = estimator.inverse(inner, [torch.from_numpy(slope)])[0].numpy()
        step = step * np.float32(min(1.0, LONGEST / max(float(np.abs(step).max()), 1e-30)))
        energy = self.valued(self.field)[0]
        for halving in range(HALVINGS):
            field = np.asarray(self.field - np.float32(0.5**halving) * step, np.float32)
            now, there = self.valued(field)
            # Near the end energies cannot be told apart, and slopes still can.
            alike = abs(now - energy) < SAME * abs(energy)
            if now < energy or (alike and steepness(there) < steepness(slope)):
                return field
        return None

    def preconditioner(self) -> Product:
        """v ↦ about H⁻¹·v: the solver's own Gauss-Newton matrix, solved by a few iterations."""
        self.problem.value(self.field)
        _, matrix = self.problem.normal_equations()
        diffusion, voxels = 2 * self.problem.weight, self.problem.voxels  # the matrix is of the energy of all voxels

        def precondition(vector: list[Tensor]) -> list[Tensor]:
            right = vector[0].numpy()
            size = float(np.abs(right).max())  # a gradient of a mean is far from 1
            if size == 0.0:
                return [torch.zeros_like(vector[0])]
            solved = kernels.normal_solve(
                matrix, np.asarray(right / size, np.float32), diffusion, iterations=SOLVES, tolerance=1e-2
            )
            return [torch.from_numpy(solved * np.float32(size * voxels))]

        return precondition

    def alignment(self, inner: Variables) -> Alignment:
        """The pair under a displacement, mended, with labels where it has them, for an outer objective."""
        pair, weight = self.problem.work.pair, self.problem.work.weight
        planar = pair.planar

        def batch(array: Array) -> Tensor:
            tensor = torch.from_numpy(np.ascontiguousarray(array))[None]
            return tensor[..., 0, :] if planar else tensor

        u = inner["u"][None]
        u = u if self.mended is None else u + torch.from_numpy(self.mended)
        u = u[:, [0, 2], :, 0] if planar else u
        fixed, moving = batch(pair.fixed.data), batch(pair.moving.data)
        labels: list[Tensor | None] = [None, None]
        if pair.fixed.codes is not None and pair.moving.codes is not None:
            labels = [batch(pair.fixed.codes), batch(pair.moving.codes)]
        return Alignment(
            fixed,
            ops.warp(moving, u),
            u,
            None if weight is None else batch(weight),
            labels[0],
            None if labels[1] is None else ops.warp(labels[1], u),
            moving=moving,
            moving_labels=labels[1],
        )

    def terms(self, field: VectorField) -> tuple[list[float], list[VectorField]]:
        """Value and slope (3, X, Y, Z) of every term at a displacement, each at weight 1."""
        work = self.problem.work
        coefficients = self.problem.coefficients
        assert coefficients is not None  # of cubic sampling
        warped = work.blank()
        slopes = np.empty((len(warped), 3, *warped.shape[1:]), np.float32)
        kernels.warp_cubic(coefficients, field, out=warped, slopes=slopes)
        values: list[float] = []
        gradients: list[VectorField] = []
        for at, evaluate in self._evaluations:
            derivative = np.empty_like(warped[at])
            values.append(evaluate(warped[at], derivative))
            gradients.append(np.einsum("cxyz,caxyz->axyz", derivative, slopes[at]))
        edges = np.empty_like(field)
        values.append(kernels.laplacian(field, out=edges) / self.problem.voxels)
        gradients.append(np.float32(2 / self.problem.voxels) * edges)
        return values, gradients

    @cached_property
    def _evaluations(self) -> list[tuple[slice, Fused]]:
        work = self.problem.work
        terms = work.terms.similarities
        parts = work.parts()[: len(terms)]  # without labels: these are what the energy is judged by
        return [
            (at, term.fused(work.fixed[at], work.weight, shares / np.float32(term.weight))) for at, term, shares in parts
        ]


class _Terms(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, solved: Solved) -> Tensor:
        values, gradients = solved.terms(np.ascontiguousarray(u.detach().numpy()))
        ctx.save_for_backward(torch.from_numpy(np.stack(gradients)))
        return torch.tensor(values, dtype=torch.float64)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        (slopes,) = ctx.saved_tensors
        return torch.tensordot(gradients[0].to(slopes.dtype), slopes, 1), None


class _Energy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, solved: Solved) -> Tensor:
        value, slope = solved.valued(np.ascontiguousarray(u.detach().numpy()))
        ctx.save_for_backward(torch.from_numpy(slope))
        return torch.tensor(value, dtype=torch.float64)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        (slope,) = ctx.saved_tensors
        return gradients[0].to(slope.dtype) * slope, None


def nearer(solved: Solved, *, steps: int, solves: int = 20, enough: float = 1e-3) -> Solved:
    """Nearer to the minimum by Newton's steps, whose Hessian is a difference of slopes: the solver's own steps, by its
    Gauss-Newton matrix, near it ever more slowly.

    Args:
        steps, solves: at most so many, and conjugate gradients in each; enough: ends at this share of the slope at rest.
    """
    rest = steepness(solved.slope(np.zeros_like(solved.field)))
    for _ in range(steps):
        slope = solved.slope(solved.field)
        lower = None if steepness(slope) <= enough * rest else solved.stepped(slope, solves=solves)
        if lower is None:
            break
        solved = replace(solved, field=lower)
    return solved
