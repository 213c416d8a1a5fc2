"""The energy solver: second-order steps down to a stationary point of the objective as it is stated."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from warpwise.errors import InputError, RunError
from warpwise.events import OnEvent, ignore
from warpwise.objective import SolverTerms
from warpwise.ops import kernels
from warpwise.pair import Pair
from warpwise.registrars.base import Passed, Recorder, Registrar, Solution
from warpwise.registrars.deformable import fold
from warpwise.registrars.deformable.contrast import mapped_for
from warpwise.registrars.deformable.part import Part
from warpwise.registrars.deformable.work import ScaleSettings, ScaleWork, usable_scales
from warpwise.settings import Settings
from warpwise.shapes import Array, VectorField
from warpwise.similarity.base import Similarity

STAGE = "energy"
HALVINGS = 6  # of a step that does not lower the energy
STILL = np.eye(4)


def curved(similarity: Similarity) -> bool:
    """Whether a similarity has the second derivative that these steps need."""
    return similarity.curvature(np.ones((1, 1, 1, 1), np.float32), None, np.ones(1, np.float32)) is not None


class EnergyScale(Settings):
    """One scale of the pyramid.

    Attributes:
        image: how often images and field are halved.
        iterations: at most so many.
        radius: of local windows, voxels of this scale, where the similarity itself names none.
    """

    image: int = Field(ge=0)
    iterations: int = Field(ge=1)
    radius: int = Field(default=2, ge=0)


class Energy(Settings):
    """Minimises similarity + λ·mean ‖∇u‖² of the whole displacement u: the objective's terms, `diffusion` among them.

    A step solves (A + 2λ·L)·δ = −∇E, A the Gauss-Newton matrix of the similarities, by conjugate gradients, and is halved
    until the energy falls. So steps are as long as the evidence is strong against smoothness, and where images say nothing
    the field is the smoothest one that fits its surroundings.

    Attributes:
        scales: coarse to fine.
        solves: conjugate gradients a step, at most.
        tolerance: a scale ends when a step lowers the energy by less than this share of what its largest step did; 0:
            when no step lowers it.
        sampling: of the moving image. With cubic B-splines the energy is smooth, and steps end where its slope is 0, which
            implicit gradients need; linear is several times as fast, and its kinks stop the descent a little above.
    """

    kind: Literal["energy"] = "energy"
    scales: tuple[EnergyScale, ...] = Field(
        default=(
            EnergyScale(image=3, iterations=8),
            EnergyScale(image=2, iterations=10),
            EnergyScale(image=1, iterations=10),
            EnergyScale(image=0, iterations=5, radius=4),
        ),
        min_length=1,
    )
    solves: int = Field(default=12, ge=1)
    tolerance: float = Field(default=0.005, ge=0)
    sampling: Literal["linear", "cubic"] = "linear"
    smoothness: ClassVar[str] = "diffusion"
    bytes_a_voxel: ClassVar[int] = 230  # measured, images of unlike contrast

    def build(self, terms: SolverTerms) -> Registrar:
        """Ready for any pair.

        Raises:
            InputError: a similarity has no second derivative, or there is no diffusion.
        """
        for term in terms.similarities:
            if not curved(term):
                raise InputError(
                    f"Similarity {term.row()!r} cannot be minimised by second-order steps.", hint="Take lncc, mse or mind."
                )
        if terms.diffusion is None:
            raise InputError("The energy solver needs a diffusion.", hint="For example smoothness: {term: diffusion}.")
        return EnergyDescent(self, terms, terms.diffusion.weight)


class Problem:
    """The energy of one scale: similarities of the images, the moving one read at x + u(x), and weight·mean ‖∇u‖².

    Attributes:
        voxels: of the grid, by which the diffusion is averaged.
    """

    def __init__(self, work: ScaleWork, weight: float, *, cubic: bool = False) -> None:
        self.work, self.weight = work, weight
        self.voxels = int(np.prod(work.nodes))
        self.evaluate = work.fused(work.fixed)
        self.warped, self.derivative = work.blank(), work.blank()
        self.edges = np.empty((3, *work.nodes), np.float32)
        self.coefficients = kernels.spline_coefficients(work.moving) if cubic else None
        self.field: VectorField | None = None

    def value(self, field: VectorField) -> float:
        """Energy at a displacement."""
        if self.coefficients is None:
            kernels.warp(self.work.moving, field, STILL, out=self.warped)
        else:
            kernels.warp_cubic(self.coefficients, field, out=self.warped)
        self.field = field
        data = self.evaluate(self.warped, self.derivative)
        return data + self.weight * kernels.laplacian(field, out=self.edges) / self.voxels

    def normal_equations(self) -> tuple[VectorField, Array]:
        """Gradient (3, X, Y, Z) and Gauss-Newton matrix (6, X, Y, Z) of the energy times the number of voxels.

        Both are taken where `value` was asked last.

        Under linear sampling slopes are central differences of the warped image: its own jump at every voxel, and steps by
        them end far earlier (Dice 0.577 instead of 0.612 on a pair of brains, in twice the time).
        """
        slopes = None
        if self.coefficients is not None:
            assert self.field is not None
            slopes = np.empty((len(self.warped), 3, *self.warped.shape[1:]), np.float32)
            kernels.warp_cubic(self.coefficients, self.field, out=self.warped, slopes=slopes)
        curvature = self.work.curvature(self.warped)
        gradient, matrix = kernels.normal_field(self.derivative, curvature, self.warped, slopes)
        gradient *= np.float32(self.voxels)
        matrix *= np.float32(self.voxels)
        gradient += np.float32(2 * self.weight) * self.edges
        return gradient, matrix


@dataclass(frozen=True, eq=False)
class Ended:
    """One scale at its end.

    Attributes:
        found: the field on the problem's nodes; kept: the same without folds, at rest at sides that were cut.
        why: it ended; first, last: how steep the energy was where it began, and is for what is kept.
    """

    problem: Problem
    found: VectorField
    kept: VectorField
    why: str
    first: float
    last: float


@dataclass(frozen=True)
class EnergyDescent:
    """The energy solver, ready for any pair."""

    settings: Energy
    terms: SolverTerms
    weight: float
    stage: str = STAGE

    def fits(self, pair: Pair) -> tuple[str, ...]:
        """A word where the pair has landmarks: they do not guide it."""
        guides = self.terms.landmarks is not None and pair.fixed.points is not None
        return ("The energy solver is not guided by landmarks; they are only measured.",) if guides else ()

    def solve(self, pair: Pair, *, start: Solution | None = None, on_step: OnEvent = ignore) -> Solution:
        """Coarse to fine over the box of both foregrounds, from a start where one is given, else from rest; the field is
        kept free of folds at every scale. Why a scale ended says how steep the energy is there, where folds and sides that
        were cut have been seen to.

        Raises:
            RunError: the energy is not finite where a scale begins.
        """
        recorder = Recorder(on_step, self.stage, tolerance=-1.0)
        part = Part.of(pair, start)
        end: Ended | None = None
        stops: list[str] = []
        passed: list[Passed] = []
        for end in self._scaled(part, recorder):
            stops.append(f"{end.why}, gradient {end.last / max(end.first, 1e-30):.2g} of its start")
            work = end.problem.work
            passed.append(part.passed(f"scale {work.settings.image}", end.kept, work.reach, recorder.steps))
        assert end is not None
        reach = end.problem.work.reach
        return part.solution(end.kept, reach, history=recorder.steps, stops=stops, passed=passed[:-1])

    def descended(self, pair: Pair) -> tuple[Problem, VectorField]:
        """The energy of a pair's finest scale, and the field on its nodes at which its descent ends, whether that folds or
        not: for whoever asks how a minimum moves with the energy."""
        *_, end = self._scaled(Part.of(pair, None), Recorder(ignore, self.stage, tolerance=-1.0))
        return end.problem, end.found

    def _scaled(self, part: Part, recorder: Recorder) -> Generator[Ended]:
        """What becomes of one scale after the other."""
        field, reach = part.begun(), (1, 1, 1)
        scales = [ScaleSettings(field=s.image, **s.model_dump()) for s in self.settings.scales]
        for scale in usable_scales(part.pair, tuple(scales)):
            mapped = mapped_for(self.terms, part.pair, field, reach)
            work = ScaleWork.build(part.pair, scale, self.terms, part.box, mapped, resampled=True)
            field, reach = np.ascontiguousarray(work.adopt(field, reach)), work.reach
            problem = Problem(work, self.weight, cubic=self.settings.sampling == "cubic")
            found, why, (first, last) = self._descend(problem, field, recorder)
            x, y, z = found.shape[1:]
            field, _ = fold.repair(work.rested(found), (1, 1, 1), (x, y, z))
            if not np.array_equal(field, found):
                problem.value(field)
                last = steepness(problem.normal_equations()[0])
            yield Ended(problem, found, field, why, first, last)

    def _descend(
        self, problem: Problem, field: VectorField, recorder: Recorder
    ) -> tuple[VectorField, str, tuple[float, float]]:
        """One scale: the field, why it ended, and the gradient's norm at its start and end."""
        recorder.begin()
        iterations, scale = problem.work.settings.iterations, problem.work.settings.image
        energy = problem.value(field)
        if not np.isfinite(energy):
            raise RunError(f"The energy at scale {scale} is not finite.")
        gradient, matrix = problem.normal_equations()
        first = norm = steepness(gradient)
        most, why = 0.0, "all iterations"
        for _ in range(iterations):
            recorder.add(scale, iterations, energy)
            if norm == 0.0:
                why = "no force"
                break
            solves = self.settings.solves
            step = kernels.normal_solve(matrix, -gradient, 2 * self.weight, iterations=solves, tolerance=1e-2)
            lowered = self._searched(problem, field, step, energy)
            if lowered is None and self.settings.sampling == "cubic":
                lowered = field + step, problem.value(field + step)
            if lowered is None or not np.isfinite(lowered[1]):
                why = "no better step"
                break
            candidate, now = lowered
            gradient, matrix = problem.normal_equations()
            less = steepness(gradient)
            if now >= energy and less >= norm:
                # Where the energy cannot be told from what it was, its slope must fall.
                why = "no better step"
                break
            gain, field, energy, norm = energy - now, candidate, now, less
            most = max(most, gain)
            if self.settings.tolerance > 0 and gain < self.settings.tolerance * most:
                why = "converged"
                break
        recorder.add(scale, iterations, energy)
        return field, why, (first, norm)

    @staticmethod
    def _searched(
        problem: Problem, field: VectorField, step: VectorField, energy: float
    ) -> tuple[VectorField, float] | None:
        """The first of ever shorter steps that lowers the energy; None where none does."""
        for halving in range(HALVINGS):
            candidate = np.asarray(field + np.float32(0.5**halving) * step, np.float32)
            now = problem.value(candidate)
            if now < energy:
                return candidate, now
        return None


def steepness(gradient: VectorField) -> float:
    """Norm of a gradient over all nodes."""
    return float(np.linalg.norm(gradient.astype(np.float64)))
