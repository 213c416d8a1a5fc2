"""Level 3 by gradient under a solver: weights of the energy that it minimises, from people whose labels are known.

λ falls along what it does, through the displacement that answers to it, to an objective U of labels and roughness. The
displacement stands at a stationary point, however the solver came there (Lorraine et al., AISTATS 2020; for registration
Jena et al., Medical Image Analysis 2025). The result is a plain Method.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from warpwise.errors import RunError
from warpwise.events import OnEvent, ignore, note
from warpwise.image import upright
from warpwise.io.checks import whole
from warpwise.io.run_folder import appearing, claim_folder, locked
from warpwise.io.scan import read_both
from warpwise.levels import loop
from warpwise.levels.checkpoint import State
from warpwise.levels.hypergradient import Variables, hypergradient
from warpwise.levels.lambdas import LambdaLevel, Lambdas
from warpwise.levels.settings import yaml_of
from warpwise.levels.solved import Solved, nearer
from warpwise.levels.solver_tuning_settings import SolverTuningSettings, read_solver_tuning
from warpwise.levels.trials import Pairs, described, pairs_of
from warpwise.methods import Method
from warpwise.objective import Objective
from warpwise.pair import Pair
from warpwise.registrars.deformable.contrast import without_shading
from warpwise.registrars.deformable.energy import Energy, EnergyDescent
from warpwise.registration.deform import comparable
from warpwise.registration.linear_stages import LinearStages
from warpwise.registration.prepare import prepare
from warpwise.regularizers.budget import Budget
from warpwise.resampling import brought
from warpwise.similarity.codes import Codes
from warpwise.terms.term import Term

CONFIG, TUNED, LINEAR = "config.yaml", "tuned.yaml", "linear"
STEEP = 0.02  # a slope above this share of that at rest: the solver stands at no minimum


@dataclass(frozen=True, eq=False)
class LabelledPair:
    """A pair under its linear map, with label maps as channels; alike: whether its images show tissue alike."""

    pair: Pair
    alike: bool


@dataclass(kw_only=True, eq=False)
class SolverTuning(LambdaLevel):
    """The weights of the objective that a solver minimises.

    Attributes:
        method: that is tuned; names: of its similarities.
        ready: (number of a pair, seed of its labels) → the pair; count: of pairs.
        outer: U; seed: of the pairs' order.
        residuals: of the steps, the solver's slope as a share of that at rest.
    """

    method: Method
    names: tuple[str, ...]
    ready: Callable[[int, int], LabelledPair]
    count: int
    outer: Objective
    newton_steps: int
    seed: int = 0
    residuals: list[float] = field(default_factory=list[float])

    def draw(self, step: int) -> list[LabelledPair]:
        """The pairs of a step: all in turns, anew in another order each time."""
        out: list[LabelledPair] = []
        if self.frozen:
            return out
        for n in range(step * self.settings.batch, (step + 1) * self.settings.batch):
            epoch, place = divmod(n, self.count)
            order = np.random.default_rng([self.seed, epoch]).permutation(self.count)
            out.append(self.ready(int(order[place]), n))
        return out

    def step(self, step: int, drawn: list[LabelledPair]) -> dict[str, float]:
        """Register, and move once; the weights of terms, U, the gradient, and how steep the energy was."""
        if self.frozen or not drawn:
            return {}
        found: list[dict[str, Tensor]] = []
        failed = 0
        for one in drawn:
            try:
                solved = self.solved(one)
            except RunError:
                failed += 1  # its energy is not finite
                continue
            if not self.scaled:
                self._scale(solved)
            found.append({**self.gradient(solved), "residual": torch.tensor(solved.residual())})
        if not found:
            return {"failed": 1.0}
        means = {name: torch.stack([one[name] for one in found]).mean(0) for name in found[0]}
        said = {name: float(means.pop(name)) for name in ("outer", "residual")}
        self.residuals.append(said["residual"])
        return {**said, "failed": failed / len(drawn), **self.moves_by(step, means)}

    def solved(self, one: LabelledPair) -> Solved:
        """A pair registered by the weights as they stand."""
        terms = replace(self.whole().terms(), labels=None, landmarks=None).settled(alike=one.alike)
        registrar = self.method.registrar
        assert isinstance(registrar, Energy)
        exact = registrar.replace(sampling="cubic")
        descent = exact.build(terms)
        assert isinstance(descent, EnergyDescent)
        problem, found = descent.descended(one.pair)
        there = problem.work.terms.similarities
        names = tuple(name for name, term in zip(self.names, terms.similarities, strict=True) if term in there)
        return nearer(Solved(problem, names, self.smoothness, found), steps=self.newton_steps).kept()

    def _scale(self, solved: Solved) -> None:
        """Divide shares by what their terms come to now."""
        for name, value in solved.values(solved.inner()).items():
            if name in self.lambdas.scales:
                self.lambdas.scales[name].copy_(value.detach().abs().clamp(min=1e-6))
        self.scaled = True
        self._publish()

    def whole(self) -> Method:
        """The method with the weights as they are now."""
        return self.method.replace(objective={**self.method.objective, **self.tuned()})

    @property
    def smoothness(self) -> str:
        """The name of the diffusion."""
        return next(name for name, term in self.terms.items() if term.row() == "diffusion" and term.weight > 0)

    def gradient(self, solved: Solved) -> dict[str, Tensor]:
        """dU/d(free number) of each, and U itself as `outer`.

        Overlap is that of the field which a registration would deliver; what that mends is taken for a constant. A budget
        is of the minimum as it is: weights whose minima fold are too small, however well folds are undone afterwards. Where
        the energy bends downwards, conjugate gradients go as far as it bends upwards.
        """
        value: list[Tensor] = []
        bare = replace(solved, mended=None)

        def outer(_: Variables, inner: Variables) -> Tensor:
            alignments = {True: bare.alignment(inner), False: solved.alignment(inner)}
            values = {name: term(alignments[isinstance(term, Budget)]) for name, term in self.outer.terms.items()}
            value.append(self.outer.total(values))
            return value[-1]

        def inner(free: Variables, at: Variables) -> Tensor:
            return solved.loss(self.lambdas.of(free), at)

        estimator = solved.estimator(self.lambdas.of, iterations=self.settings.iterations)
        gradient = hypergradient(outer, inner, self.lambdas.free, solved.inner(), estimator=estimator, lenient=True)
        return {**gradient, "outer": value[-1].detach()}

    def state_dict(self) -> State:
        return {**super().state_dict(), "residuals": torch.tensor(self.residuals, dtype=torch.float64)}

    def load_state_dict(self, state: State) -> None:
        super().load_state_dict(state)
        kept = state["residuals"]
        assert isinstance(kept, Tensor)
        self.residuals[:] = kept.tolist()

    def warnings(self) -> list[str]:
        """What a person should know of the tuning."""
        out = super().warnings()
        if self.residuals and (steep := float(np.median(self.residuals))) > STEEP:
            out.append(
                f"The solver ended where the energy still had {100 * steep:.0f} % of its slope at rest, in the median; a "
                "gradient by λ is exact at a minimum alone, which more newton_steps come nearer to."
            )
        return out


def tune(
    settings: SolverTuningSettings | None, folder: Path, *, overwrite: bool = False, on_event: OnEvent = ignore
) -> tuple[Method, Method]:
    """Tune a method's objective; the method before, and now. The folder then holds tuned.yaml, which `register --method`
    takes, and history.jsonl.

    Args:
        settings: of a new run; None: go on with that of the folder.

    Raises:
        InputError: the data cannot be used, or there is nothing to go on with.
        KeyboardInterrupt: it was asked to end, and wrote its state first.
    """
    resume = settings is None
    # Its own from now on, whatever becomes of the file of the method.
    settings = read_solver_tuning(folder / CONFIG) if settings is None else settings.settled()
    pairs = pairs_of(settings.data)
    if not resume:
        claim_folder(folder, [CONFIG, loop.LAST], overwrite=overwrite)
    with locked(folder):
        if not resume:
            loop.forget(folder)
            with appearing(folder, without=[TUNED]) as scratch:
                (scratch / CONFIG).write_text(yaml_of(settings), encoding="utf-8")
        level = level_of(settings, pairs, folder)
        schedule = loop.Schedule(steps=settings.steps, validate_every=max(1, settings.steps // 10))
        loop.run([level], schedule, folder, resume=resume, on_event=on_event)
        for word in level.warnings():
            on_event(note(word))
        return level.method, level.whole()


def level_of(settings: SolverTuningSettings, pairs: Pairs, folder: Path) -> SolverTuning:
    """The level at its first step."""
    method, tuning = settings.base(), settings.tuning
    terms = settings.terms
    start = {name: float(term.weight) for name, term in terms.items()}
    lambdas = Lambdas(start=start, factors=tuning.factors(terms), mixtures=tuning.mixtures(terms))

    def publish(objective: Mapping[str, Term]) -> None:
        with appearing(folder) as scratch:
            whole = {**method.objective, **objective}
            (scratch / TUNED).write_text(described(method.replace(objective=whole)), encoding="utf-8")

    ready = partial(made_ready, pairs, method, LinearStages(folder / LINEAR), settings)
    return SolverTuning(
        lambdas=lambdas, values={name: torch.tensor(value) for name, value in start.items()}, settings=tuning,
        steps=settings.steps, terms=terms, publish=publish, method=method, names=settings.names, ready=ready,
        count=len(pairs.pairs), outer=Objective.of(tuning.outer), newton_steps=settings.newton_steps,
        seed=settings.seed,
    )  # fmt: skip


def made_ready(
    pairs: Pairs, method: Method, stages: LinearStages, settings: SolverTuningSettings, number: int, turn: int
) -> LabelledPair:
    """A pair read, under its linear map, with some of the labels that both maps hold, drawn by turn."""
    scans = read_both(*pairs.pairs[number])
    blind = (scans[0].replaced(labels=None, landmarks=None), scans[1].replaced(labels=None, landmarks=None))
    prepared = prepare(blind, method.images, method.terms())
    aligned, _ = stages.aligned(blind, prepared.pair, method)
    pair, found = comparable(aligned.applied(prepared.pair), method.terms())
    pair = without_shading(pair) if found.uneven else pair
    maps: list[np.ndarray] = []
    for scan, volume in zip(scans, (pair.fixed, pair.moving), strict=True):
        assert scan.labels is not None
        there = brought(scan.labels, upright(scan.image)).data[0]
        maps.append(whole(there, name=scan.labels.name).reshape(volume.shape))
    both = sorted(set(np.unique(maps[0]).tolist()) & set(np.unique(maps[1]).tolist()) & set(pairs.labels))
    chosen = np.random.default_rng([settings.seed, turn]).permutation(both)[: settings.labels_at_once]
    codes = Codes.apart(sorted(int(value) for value in chosen))
    fixed, moving = (
        replace(volume, codes=codes.of(map_)) for volume, map_ in zip((pair.fixed, pair.moving), maps, strict=True)
    )
    return LabelledPair(replace(pair, fixed=fixed, moving=moving), found.alike)
