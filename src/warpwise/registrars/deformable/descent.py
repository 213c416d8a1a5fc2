"""The loop that deformable solvers share: scales, steps of bounded length, and when to stop."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from warpwise.errors import RunError
from warpwise.events import OnEvent, ignore
from warpwise.objective import SolverTerms
from warpwise.ops import kernels
from warpwise.pair import Pair
from warpwise.registrars.base import Passed, Recorder, Registrar, Solution
from warpwise.registrars.deformable import MOTIONS, fold
from warpwise.registrars.deformable.contrast import mapped_for
from warpwise.registrars.deformable.landmarks import Pull
from warpwise.registrars.deformable.motions import Kind, Motion
from warpwise.registrars.deformable.part import Part
from warpwise.registrars.deformable.work import DescentSettings, ScaleWork, usable_scales
from warpwise.shapes import Array, Triple, VectorField


class Greedy(DescentSettings):
    """A displacement that small smoothed steps are composed on."""

    kind: Literal["greedy"] = "greedy"

    def build(self, terms: SolverTerms) -> Registrar:
        """Ready for any pair."""
        return Descent(self, self.kind, terms)


class SVF(DescentSettings):
    """A stationary velocity field: φ = exp(v), φ⁻¹ = exp(−v)."""

    kind: Literal["svf"] = "svf"

    def build(self, terms: SolverTerms) -> Registrar:
        """Ready for any pair."""
        return Descent(self, self.kind, terms)


class SymmetricSVF(DescentSettings):
    """A velocity field that moves both images half of the way."""

    kind: Literal["symmetric"] = "symmetric"

    def build(self, terms: SolverTerms) -> Registrar:
        """Ready for any pair."""
        return Descent(self, self.kind, terms)


@dataclass(frozen=True)
class Descent:
    """A deformable solver: how it moves, what is moved, and what it minimises."""

    settings: DescentSettings
    stage: Kind
    terms: SolverTerms

    def fits(self, pair: Pair) -> tuple[str, ...]:  # noqa: ARG002 - a solver takes any pair
        """Nothing: a solver takes any pair."""
        return ()

    def solve(self, pair: Pair, *, start: Solution | None = None, on_step: OnEvent = ignore) -> Solution:
        """Coarse to fine over the box of both foregrounds, from a start where one is given, else from rest; the field is
        kept free of folds at every scale.

        Raises:
            RunError: the energy is not finite however short the steps are.
        """
        motion: type[Motion] = MOTIONS[self.stage]
        recorder = Recorder(on_step, self.stage, self.settings.tolerance)
        stops: list[str] = []
        passed: list[Passed] = []
        reach: Triple = (1, 1, 1)
        part = Part.of(pair, start)
        moved = part.begun()
        field = None if moved is None else motion.field_of(moved)
        for scale in usable_scales(pair, self.settings.scales):
            mapped = mapped_for(self.terms, part.pair, moved, reach)
            work = ScaleWork.build(part.pair, scale, self.terms, part.box, mapped)
            moves = motion(work)
            field, stop = descend(work, (field, reach), moves, self.settings, recorder)
            reach = work.reach
            stops.append(stop)
            field, moved = unfold(work.rested(field), moves)
            passed.append(part.passed(f"scale {scale.image}", moved, reach, recorder.steps))
        assert field is not None
        assert moved is not None
        velocity = None if moved is field else field
        return part.solution(moved, reach, velocity=velocity, history=recorder.steps, stops=stops, passed=passed[:-1])


def unfold(field: VectorField, moves: Motion) -> tuple[VectorField, VectorField]:
    """A field and its displacement, with no folded cell between the nodes; the full grid is checked at the end."""
    x, y, z = field.shape[1:]
    moved = moves.displacement(field)
    if moved is field:
        field, _ = fold.repair(field, (1, 1, 1), (x, y, z))
        return field, field
    field = field.copy()
    for attempt in range(fold.ROUNDS):
        nodes, count = fold.folded_nodes(moved, (1, 1, 1), (x, y, z), fold.FLOOR)
        if count == 0:
            return field, moved
        # A velocity carries a fold along its path: calm it where it starts and where it arrives.
        fold.calm(field, np.unique(np.concatenate([nodes, fold.arrivals(nodes, moved)]), axis=0), attempt)
        moved = moves.displacement(field)
    raise RunError("A velocity field kept folding.", hint="Use --transform greedy.")


def descend(
    work: ScaleWork,
    coarser: tuple[VectorField | None, Triple],
    moves: Motion,
    settings: DescentSettings,
    recorder: Recorder,
) -> tuple[Array, str]:
    """Run one scale; if the energy rises or stops being finite, begin the scale again with steps half as long.

    Args:
        coarser: the field to begin with, if any, and how many voxels of the full grid its nodes are apart; it is brought
            to this scale anew for every attempt, which takes less memory than to keep it.

    Raises:
        RunError: the energy is not finite however short the steps are.
    """
    energy = 0.0

    def begun() -> VectorField:
        field = work.adopt(*coarser)
        return field.copy() if field is coarser[0] else field

    for retry in range(4):
        recorder.begin()
        lower, stop, energy = _descend(work, begun(), moves, settings, recorder, 0.5**retry)
        if stop != ROSE:
            return lower, stop
    if not np.isfinite(energy):
        scale, step = work.settings.image, work.settings.step
        raise RunError(f"Registration diverged at scale {scale} with steps of {step} voxels.")
    return begun(), "no better step"


ROSE = "the energy rose"
# Between thick slices a step that overshoots makes the next one overshoot more, until rounding decides where points go;
# on cubes such steps bounce harmlessly, and without them Dice is .002 lower.
SHORTER, LONGER, SHORTEST = 0.7, 1.1, 0.1
PATIENCE = 3  # iterations until the energy must be below the first: smoothing of an inherited field may cost a little


def _descend(
    work: ScaleWork, field: VectorField, moves: Motion, settings: DescentSettings, recorder: Recorder, most: float
) -> tuple[Array, str, float]:
    iterations = work.settings.iterations
    sigma, _ = work.sigmas()
    force, spare, momentum = np.empty_like(field), np.empty_like(field), np.zeros_like(field)
    landmarks = work.terms.landmarks
    pull = None if landmarks is None or work.pair.fixed.points is None else Pull(work.pair, landmarks, work.factors)
    metric, share = work.metric(), most
    first = last = np.inf
    for iteration in range(iterations):
        energy = moves.energy_and_force(field, force)
        if pull is not None:
            energy += pull.look(moves.displacement(field))
        first = energy if iteration == 0 else first
        if work.thick and iteration >= PATIENCE:
            share = max(share * SHORTER, SHORTEST * most) if energy > last else min(share * LONGER, most)
        last = energy
        worse = iteration >= min(PATIENCE, iterations - 1) and energy > first
        if worse or not np.isfinite(energy):
            return field, ROSE, energy
        if recorder.add(work.settings.image, iterations, energy):
            return field, "converged", energy
        if metric is not None:
            force *= metric
        kernels.gaussian(force, sigma, out=spare)
        typical = kernels.typical_length(spare, settings.quantile)
        if typical == 0.0 and pull is None:
            return field, "no force", energy
        near = share if work.thick else 1.0  # what must go with the length of a step
        length = share * work.settings.step * (1 - (1 - settings.decay) * iteration / max(iterations - 1, 1))
        gain = -(1 - settings.momentum) * length / max(typical, 1e-30)
        kernels.momentum_step(
            spare, momentum, keep=settings.momentum, gain=gain, cap=settings.cap, taper=work.taper, out=force
        )
        if pull is not None:
            pull.add(force, cap=settings.cap * near)
        moves.stepped(field, force, spare, near)
    return field, "all iterations", first
