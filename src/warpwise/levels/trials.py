"""What a trial of a study does: register pairs by a method, or train a network; and what it measures."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from warpwise.data.pairs import PairOfScans, balanced, of_one_person
from warpwise.data.people import parts, person, scans_of, unjudged
from warpwise.errors import InputError, RunError
from warpwise.events import Event
from warpwise.io.datasets import Dataset, read_dataset
from warpwise.io.scan import Scan
from warpwise.levels.measurement import Row, run_method
from warpwise.levels.settings import TrainingSettings, yaml_of
from warpwise.levels.study_settings import StudyData, StudySettings
from warpwise.levels.training import CONFIG, Run, train
from warpwise.methods import Method
from warpwise.registration.linear_stages import LinearStages
from warpwise.settings import Settings

NAMES = {"folded_percent": "percent_folded", "ndv_percent": "percent_ndv"}
"""Figures of a validation as those of a method are called."""
BASE = -1
"""The number of what a study begins with, which is no proposal of its."""

Figures = Mapping[str, float]
Report = Callable[[int, Figures], None]
"""(how far, means so far) → nothing; raises whatever ends the trial early."""


@dataclass(frozen=True)
class Outcome:
    """What a trial came to.

    Attributes:
        figures: by name; rows: of each pair, plain data, for methods.
    """

    figures: dict[str, float]
    rows: tuple[dict[str, Any], ...] = ()


class Trial(Protocol):
    """What can be tried with any settings."""

    def __call__(self, settings: Any, number: int, report: Report) -> Outcome:
        """Try these settings as trial number `number`; tell the figures as they come.

        Raises:
            InputError, RunError: these settings do not work.
        """
        ...

    def of(self, search: str) -> "Trial":
        """The same for one of several searches, whose numbers are its own."""
        ...


def trial_of(study: StudySettings, folder: Path) -> Trial:
    """What a study tries; what all trials share is kept in the folder.

    Raises:
        InputError: its data cannot be used.
    """
    if study.config is not None:
        return Trainings(folder, study.last)
    assert study.data is not None
    return Registrations(pairs_of(study.data), LinearStages(folder / "linear"), study.reduction)


@dataclass(frozen=True)
class Registrations:
    """A method on pairs of people: a ninth of them first, then a third, then all.

    Attributes:
        pairs: whose label maps measure; linear: where linear stages are kept; reduction: from all pairs to a third.
    """

    pairs: "Pairs"
    linear: LinearStages
    reduction: int = 3

    def __call__(self, settings: Method, number: int, report: Report) -> Outcome:  # noqa: ARG002 - all trials are alike
        registrar = settings.build()
        stops = rungs(len(self.pairs.pairs), self.reduction)
        rows: list[Row] = []
        for n, pair in enumerate(self.pairs.pairs, start=1):
            rows.append(run_method("", settings, pair, self.pairs.labels, registrar=registrar, linear_stages=self.linear))
            if n in stops and n < len(self.pairs.pairs):
                report(stops[n], figures_of(rows))
        return Outcome(figures_of(rows), tuple(plain(row) for row in rows))

    def of(self, search: str) -> "Registrations":  # noqa: ARG002 - nothing is written under a number
        return self


def rungs(count: int, reduction: int) -> dict[int, int]:
    """Numbers of pairs after which a trial may end, and how far that is: 1, then as many times as much as the reduction.

    Example:
        >>> rungs(24, 3)
        {3: 1, 8: 3, 24: 9}
    """
    out: dict[int, int] = {}
    for n, share in enumerate((reduction**2, reduction, 1)):
        out[-(-count // share)] = reduction**n
    return out


def figures_of(rows: Sequence[Row]) -> dict[str, float]:
    """Means over pairs; of seconds the median."""
    return {
        "dice": float(np.mean([row.mean_dice for row in rows])),
        "sd_log_jacobian": float(np.mean([row.sd_log_jacobian for row in rows])),
        "percent_folded": float(np.mean([row.percent_folded for row in rows])),
        "percent_ndv": float(np.mean([row.percent_ndv for row in rows])),
        "seconds": float(np.median([row.seconds for row in rows])),
    }


def plain(row: Row) -> dict[str, Any]:
    """A row as data."""
    return {
        "pair": row.pair, "fixed": row.people[0], "moving": row.people[1], "dice": row.mean_dice,
        "sd_log_jacobian": row.sd_log_jacobian, "percent_folded": row.percent_folded, "percent_ndv": row.percent_ndv,
        "seconds": row.seconds,
    }  # fmt: skip


@dataclass(frozen=True)
class Pairs:
    """Pairs to try methods on, and the labels over which overlap is measured."""

    pairs: Sequence[PairOfScans]
    labels: tuple[int, ...]


def pairs_of(data: StudyData) -> Pairs:
    """Pairs of a study: those that are listed to train on, else as many as are wanted of all, of people who train.

    Raises:
        InputError: there is none with label maps.
    """
    dataset = read_dataset(data.dataset, allow_outside=data.allow_outside)
    pairs = candidates(dataset, data)
    if not pairs:
        raise InputError(f"{dataset.folder}: no pairs to try methods on: two images at least need label maps.")
    return Pairs(pairs, dataset.averaged)


def candidates(dataset: Dataset, data: StudyData) -> Sequence[PairOfScans]:
    """Pairs of the people of a study whose label maps can be compared, in an order in which everybody comes soon."""
    if data.people:
        part = parts(dataset, {"study": data.people})["study"]
        listed = [*dataset.training_pairs, *dataset.validation_pairs]
        shown: Callable[[Scan], bool] = part.shows
        scans: Sequence[Scan] = part.scans
    else:
        listed, shown = [*dataset.training_pairs], unjudged(dataset)
        scans = [scan for scan in dict.fromkeys(scans_of(dataset)) if shown(scan)]
    mine = [pair for pair in listed if all(shown(scan) and scan.labels is not None for scan in pair)]
    if mine:
        return spread(mine, data.pairs)
    labelled = [scan for scan in scans if scan.labels is not None]
    several = [pair for pair in balanced(labelled, 0) if person(pair[0]) != person(pair[1])]
    if not several:
        return spread(of_one_person(labelled), data.pairs)
    # Neighbours first, so that everybody is there as often as anybody else, as soon as there are so many pairs.
    most = data.pairs or len(several)
    return spread(several[: max(most, min(len(labelled), len(several)))], most)


def spread(pairs: Sequence[PairOfScans], most: int) -> list[PairOfScans]:
    """At most so many, evenly from the first to the last; in steps, so that the first few already are from everywhere."""
    count = min(most or len(pairs), len(pairs))
    kept = [pairs[k * len(pairs) // count] for k in range(count)]
    stride = max(1, round(count**0.5))
    return [kept[n] for start in range(stride) for n in range(start, count, stride)]


@dataclass(frozen=True)
class Trainings:
    """A network trained by settings; what counts is the mean of the last validations, not the best one.

    Attributes:
        folder: runs/SEARCH/NUMBER of each trial lie in it, and what all decode once.
        last: validations that count.
    """

    folder: Path
    last: int
    search: str = "study"

    def of(self, search: str) -> "Trainings":
        return replace(self, search=search)

    def __call__(self, settings: TrainingSettings, number: int, report: Report) -> Outcome:
        seen: list[Figures] = []
        place = self.folder / "runs" / self.search / ("base" if number == BASE else f"{number:04d}")

        def told(event: Event) -> None:
            if event.stage == "validation":
                seen.append({NAMES.get(name, name): value for name, value in event.values.items()})
                if event.step < event.steps:
                    report(len(seen), self.mean(seen))

        if (place / CONFIG).exists():
            shutil.rmtree(place)  # an orphan's: it is trained again from the start, as any other
        train(settings, Run(place, self.folder / "cache", on_event=told))
        if not seen:
            raise RunError("The training was never validated.", hint="Its dataset needs validation pairs.")
        return Outcome(self.mean(seen))

    def mean(self, seen: Sequence[Figures]) -> dict[str, float]:
        """Over the last validations."""
        last = seen[-self.last :]
        return {key: float(np.mean([figures[key] for figures in last])) for key in last[-1] if all(key in f for f in last)}


def described(settings: Settings) -> str:
    """Settings as the YAML that `register --method` or `train` reads."""
    return settings.yaml() if isinstance(settings, Method) else yaml_of(settings)
