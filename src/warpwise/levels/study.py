"""Level 3 without gradients: a study proposes settings, tries them, and remembers; it may be killed at any time.

A proposal is one set of values. Optuna's trials are attempts at it: whatever a killed process left running is queued again
with the same values, so that in the end each proposal was answered once. All of it stands in a journal on disk, which
several processes write to.
"""

import logging
import math
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from warpwise.errors import InputError
from warpwise.levels.samplers import Kind, chosen, distributions, sampler, texts
from warpwise.levels.space import Values
from warpwise.levels.study_settings import Direction, StudySettings
from warpwise.levels.trials import Figures, Outcome
from warpwise.settings import Settings

JOURNAL, ASKING = "journal.log", "journal.ask.lock"
PROPOSAL, WHY, ROWS, FIGURES, SECONDS, LOAD = "proposal", "why", "rows", "figures", "seconds", "load"
BASE_OUTCOME = "base"
BROKEN = 1e9  # the excess of a figure that is not finite
MAIN, BASELINE = "study", "random"
"""Names of the two searches in a journal: the one that was asked for, and a random one of equal budget."""


class Pruned(Exception):  # noqa: N818 - not an error
    """What ends a trial that does badly."""


@dataclass(frozen=True)
class Proposal:
    """One set of values, and what became of it.

    Attributes:
        number: from 0; values: by path; state: complete, pruned, failed, running or waiting.
        figures: as far as they were measured; rows: of each pair; why: it failed.
        seconds: that it took; steps: objective after so many pairs or validations.
        feasible: whether all constraints hold.
    """

    number: int
    values: Values
    state: str
    figures: dict[str, float]
    rows: tuple[dict[str, Any], ...]
    why: str
    seconds: float
    load: float
    steps: dict[int, float]
    feasible: bool


class Study:
    """One search in a journal: ask for values, tell what they came to.

    Args:
        settings: of the study; base: what its space changes; folder: of the journal.
        name: `study`, or `random` for the search that it is compared with.

    Raises:
        InputError: the space does not fit the base.

    Example:
        >>> from warpwise.methods import Method
        >>> import tempfile
        >>> settings = StudySettings.parse({
        ...     "method": "fast", "data": {"dataset": "somewhere"}, "sampler": "random",
        ...     "space": {"registrar.cap": {"low": 0.1, "high": 0.5}},
        ... })
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     study = Study(settings, Method.named("fast"), Path(folder))
        ...     number, values = study.ask()
        ...     study.tell(number, Outcome({"dice": 0.8}))
        ...     [(p.number, p.state, p.figures) for p in study.proposals()]
        [(0, 'complete', {'dice': 0.8})]
    """

    def __init__(self, settings: StudySettings, base: Settings, folder: Path, name: str = MAIN) -> None:
        self.settings, self.base, self.folder, self.name = settings, base, folder, name
        self.space = settings.search_space
        self.known: dict[str, BaseDistribution] = distributions(self.space, self.space.check(base))
        folder.mkdir(parents=True, exist_ok=True)
        directions: list[StudyDirection | Direction] = [*settings.objectives.values()]
        with quiet():
            self.optuna = optuna.create_study(
                storage=storage(folder), study_name=name, directions=directions, load_if_exists=True,
                pruner=pruner(settings) if len(directions) == 1 else NopPruner(),
            )  # fmt: skip
        self._open: dict[int, optuna.Trial] = {}
        if not self.optuna.get_trials(deepcopy=False) and (begun := self.space.of(base)) is not None:
            self.optuna.enqueue_trial(
                texts(self.space, begun), user_attrs={PROPOSAL: 0}
            )  # what it begins with is a proposal, too

    @property
    def kind(self) -> Kind:
        """Which sampler proposes."""
        if self.name == BASELINE:
            return "random"
        return "published" if self.settings.faithful else self.settings.sampler

    @property
    def base_outcome(self) -> Outcome | None:
        """What the settings that are changed come to by themselves; None where that was not measured yet."""
        kept = self.optuna.user_attrs.get(BASE_OUTCOME)
        return None if kept is None else Outcome(kept[FIGURES], tuple(kept[ROWS]))

    @base_outcome.setter
    def base_outcome(self, outcome: Outcome) -> None:
        self.optuna.set_user_attr(BASE_OUTCOME, {FIGURES: outcome.figures, ROWS: [*outcome.rows]})

    def ask(self) -> tuple[int, Values] | None:
        """The number and the values of the next proposal; None where all were made."""
        with FileLock(self.folder / ASKING):
            trials = self.optuna.get_trials(deepcopy=False)
            waiting = [trial for trial in trials if trial.state == TrialState.WAITING]
            taken = {number for trial in trials if (number := trial.user_attrs.get(PROPOSAL)) is not None}
            coming = waiting[0].user_attrs[PROPOSAL] if waiting else len(taken)
            if coming >= self.settings.trials:
                return None
            random = self.name == BASELINE
            self.optuna.sampler = sampler(
                self.kind, self.space, self.known, seed=self.settings.seed * 100_003 + 50_021 * random + coming,
                startup=self.settings.startup,
            )  # fmt: skip
            with quiet():
                trial = self.optuna.ask()
                if not waiting:
                    trial.set_user_attr(PROPOSAL, coming)
                values: Values = {}
                for path, parameter in self.space.parameters.items():
                    if parameter.allowed_by(values):
                        values[path] = chosen(parameter, suggested(trial, path, self.known[path]))
        self._open[coming] = trial
        return coming, values

    def report(self, number: int, step: int, figures: Figures) -> None:
        """Tell how far a trial is.

        Raises:
            Pruned: it does badly, and others should have its time.
        """
        trial = self._open[number]
        trial.set_user_attr(FIGURES, dict(figures))
        value = self._values(figures)[0]
        # What breaks a constraint sets no bar for others, and tells where constraints hold.
        if (
            len(self.settings.objectives) > 1
            or not math.isfinite(value)
            or max(self.excess(figures).values(), default=0) > 0
        ):
            return
        trial.report(value, step)
        if trial.should_prune():
            raise Pruned

    def tell(self, number: int, outcome: Outcome | None, *, why: str = "", seconds: float = 0.0) -> None:
        """Tell what a trial came to; None where it was pruned, or failed for a reason."""
        trial = self._open.pop(number)
        trial.set_user_attr(SECONDS, round(seconds, 3))
        trial.set_user_attr(LOAD, round(load(), 1))
        with quiet():
            if outcome is not None:
                trial.set_user_attr(FIGURES, outcome.figures)
                trial.set_user_attr(ROWS, [*outcome.rows])
                values = self._values(outcome.figures)
                if all(map(math.isfinite, values)):
                    for name, excess in self.excess(outcome.figures).items():
                        trial.set_constraint(name, excess)
                    self.optuna.tell(trial, values)
                    return
                why = f"not finite: {outcome.figures}"
            if why:
                trial.set_user_attr(WHY, why)
            elif outcome is None:
                for name, excess in self.excess(trial.user_attrs[FIGURES]).items():
                    trial.set_constraint(name, excess)
            self.optuna.tell(trial, state=TrialState.FAIL if why else TrialState.PRUNED)

    def excess(self, figures: Figures) -> dict[str, float]:
        """By how much each constraint is broken; 0 or less where it holds."""
        bounded = any(bound.of_base for bound in self.settings.constraints.values())
        base = self.base_outcome if bounded else None  # read from the journal: not for nothing
        out: dict[str, float] = {}
        for name, bound in self.settings.constraints.items():
            unit = self._figure({} if base is None else base.figures, name) if bound.of_base else 1.0
            value = bound.excess(self._figure(figures, name), unit)
            out[name] = value if math.isfinite(value) else BROKEN
        return out

    def _values(self, figures: Figures) -> list[float]:
        return [self._figure(figures, name) for name in self.settings.objectives]

    def _figure(self, figures: Figures, name: str) -> float:
        if name not in figures:
            raise InputError(f"{name!r} is not measured.", hint=f"Known: {', '.join(figures)}.")
        return float(figures[name])

    def requeue(self) -> list[int]:
        """Queue again what was left running by processes that are no more; their numbers. Nobody else may be at work."""
        trials = self.optuna.get_trials(deepcopy=False)
        settled = {
            trial.user_attrs.get(PROPOSAL)
            for trial in trials
            if trial.state == TrialState.WAITING or (trial.state.is_finished() and not orphan(trial))
        }
        again: list[int] = []
        for trial in trials:
            if trial.state != TrialState.RUNNING:
                continue
            number = trial.user_attrs.get(PROPOSAL)
            # Queued before it is closed: a kill in between leaves it running, and it is not queued a second time.
            if number is not None and number not in settled:
                whole = {*self.space.active(self._chosen(trial))} <= trial.params.keys()
                self.optuna.enqueue_trial(trial.params if whole else {}, user_attrs={PROPOSAL: number})
                settled.add(number)
                again.append(number)
            with quiet():
                self.optuna.tell(trial.number, state=TrialState.FAIL)  # without a reason: an orphan
        return again

    def proposals(self) -> list[Proposal]:
        """All that was proposed, by number, and what became of each."""
        out: dict[int, Proposal] = {}
        for trial in self.optuna.get_trials(deepcopy=False):
            number = trial.user_attrs.get(PROPOSAL)
            if number is not None and not orphan(trial):
                out[number] = self._proposal(number, trial)
        return [out[number] for number in sorted(out)]

    def _proposal(self, number: int, trial: FrozenTrial) -> Proposal:
        states = {TrialState.FAIL: "failed"}
        return Proposal(
            number=number,
            values=self._chosen(trial),
            state=states.get(trial.state, trial.state.name.lower()),
            figures=trial.user_attrs.get(FIGURES, {}),
            rows=tuple(trial.user_attrs.get(ROWS, ())),
            why=trial.user_attrs.get(WHY, ""),
            seconds=trial.user_attrs.get(SECONDS, 0.0),
            load=trial.user_attrs.get(LOAD, 0.0),
            steps=dict(trial.intermediate_values),
            feasible=FIGURES in trial.user_attrs and max(self.excess(trial.user_attrs[FIGURES]).values(), default=0) <= 0,
        )

    def _chosen(self, trial: FrozenTrial) -> Values:
        return {path: chosen(self.space.parameters[path], value) for path, value in trial.params.items()}


def orphan(trial: FrozenTrial) -> bool:
    """Whether an attempt was closed because its process was gone: what fails by itself has a reason."""
    return trial.state == TrialState.FAIL and WHY not in trial.user_attrs


def suggested(trial: optuna.Trial, path: str, known: BaseDistribution) -> Any:
    """What a trial has at a path, as Optuna has it."""
    if isinstance(known, IntDistribution):
        return trial.suggest_int(path, known.low, known.high, step=known.step, log=known.log)
    if isinstance(known, FloatDistribution):
        return trial.suggest_float(path, known.low, known.high, step=known.step, log=known.log)
    assert isinstance(known, CategoricalDistribution)
    return trial.suggest_categorical(path, known.choices)


def pruner(settings: StudySettings) -> BasePruner:
    """What ends trials early: the best of so many go on (ASHA); or, as published, those above the median."""
    if not settings.pruning:
        return NopPruner()
    if settings.faithful:
        return MedianPruner(n_startup_trials=5)
    return SuccessiveHalvingPruner(min_resource=1, reduction_factor=settings.reduction)


def storage(folder: Path) -> JournalStorage:
    """The journal of a folder; several processes may write to it."""
    place = str(folder / JOURNAL)
    return JournalStorage(JournalFileBackend(place, lock_obj=JournalFileOpenLock(place)))


def mend(folder: Path) -> None:
    """What a killed process left of a journal: a line that is not whole, and locks. Nobody else may be at work."""
    for left in [folder / f"{JOURNAL}.lock", *folder.glob(f"{JOURNAL}.lock*.rename")]:
        left.unlink(missing_ok=True)
    journal = folder / JOURNAL
    if not journal.exists():
        return
    content = journal.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        with journal.open("r+b") as file:
            file.truncate(len(whole))


@contextmanager
def quiet() -> Generator[None]:
    """Within, Optuna says nothing: whoever listens is told by events."""
    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def load() -> float:
    """How busy the machine is; 0 where that is not known."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
