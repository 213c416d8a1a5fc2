"""What a study found, and whether to believe it: the best, people who did not choose it, and a random search."""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.importance import PedAnovaImportanceEvaluator

from warpwise.data.people import drawn
from warpwise.errors import RunError
from warpwise.evaluation.statistics import interval
from warpwise.levels.samplers import distributions, texts
from warpwise.levels.study import MAIN, Proposal, quiet
from warpwise.levels.study_settings import StudySettings
from warpwise.levels.trials import Outcome

FEWEST = 12  # proposals of which importance may be told

Gains = list[tuple[tuple[str, str], float]]
"""(fixed, moving) person of a pair, and by how much the objective is better there."""


@dataclass(frozen=True)
class Guarded:
    """What choosing the best brings on people who did not choose: in each fold of people, the best of pairs that show none
    of them is measured on pairs that show one.

    Attributes:
        mean: of the objective there; low, high: its 95 % interval, by bootstrap over people.
        gain: over what the study began with, on the same pairs; gain_low, gain_high: its interval.
        people, folds: how many; optimism: by how much the best looks better on all pairs, which chose it.
    """

    mean: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float
    people: int
    folds: int
    optimism: float


@dataclass(frozen=True)
class Findings:
    """What a study came to.

    Attributes:
        base: figures of what it began with; best: the proposal; of several objectives the one in the middle of the front.
        front: numbers of proposals that none is better than in every objective.
        so_far: search → best objective after each proposal, None before the first that worked.
        counts: search → how many proposals came to what; seconds: search → what they took.
        guarded: see there; None where it cannot be told: trainings, several objectives, too few people, no folds.
        importance: path → share of what the objective's variance comes from; empty where it cannot be told.
    """

    base: dict[str, float]
    best: Proposal
    front: tuple[int, ...]
    so_far: dict[str, list[float | None]]
    counts: dict[str, dict[str, int]]
    seconds: dict[str, float]
    guarded: Guarded | None = None
    importance: dict[str, float] = field(default_factory=dict)

    def json(self) -> str:
        """As text."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"


def findings(settings: StudySettings, proposals: Mapping[str, Sequence[Proposal]], base: Outcome) -> Findings:
    """What all proposals of a study say, and what it began with came to.

    Raises:
        RunError: none worked within the constraints.
    """
    mine = [p for p in proposals[MAIN] if p.state == "complete" and p.feasible]
    if not mine:
        worked = sum(p.state == "complete" for p in proposals[MAIN])
        raise RunError(f"None of {worked} proposals that worked lies within the constraints.", hint="Loosen them.")
    front = [p for p in mine if not any(dominates(settings, other, p) for other in mine)]
    best = middle(settings, front)
    one = len(settings.objectives) == 1
    return Findings(
        base=base.figures,
        best=best,
        front=tuple(p.number for p in front),
        so_far={name: so_far(settings, several) for name, several in proposals.items()} if one else {},
        counts={name: counted(several) for name, several in proposals.items()},
        seconds={name: round(sum(p.seconds for p in several), 1) for name, several in proposals.items()},
        guarded=guard(settings, mine, best, base) if one and settings.folds else None,
        importance=importance(settings, [p for several in proposals.values() for p in several]) if one else {},
    )


def value(settings: StudySettings, proposal: Proposal, name: str | None = None) -> float:
    """An objective (the first), turned so that more is better."""
    return proposal.figures[settings.leading if name is None else name] * settings.sign(name)


def dominates(settings: StudySettings, one: Proposal, other: Proposal) -> bool:
    """Whether one is as good as another in every objective, and better in one."""
    gaps = [value(settings, one, name) - value(settings, other, name) for name in settings.objectives]
    return min(gaps) >= 0 and max(gaps) > 0


def middle(settings: StudySettings, front: Sequence[Proposal]) -> Proposal:
    """The one of a front that is nearest to the best of each objective, each from 0 (worst there) to 1 (best)."""
    table = np.array([[value(settings, p, name) for name in settings.objectives] for p in front])
    span = np.ptp(table, axis=0)
    short = (table.max(0) - table) / np.where(span > 0, span, 1)
    return front[int(np.argmin((short**2).sum(1)))]


def so_far(settings: StudySettings, proposals: Sequence[Proposal]) -> list[float | None]:
    """The best objective after each proposal, in their order; pruned and failed ones change nothing."""
    out: list[float | None] = []
    best: Proposal | None = None
    for p in proposals:
        if p.state == "complete" and p.feasible and (best is None or value(settings, p) > value(settings, best)):
            best = p
        out.append(None if best is None else best.figures[settings.leading])
    return out


def counted(proposals: Sequence[Proposal]) -> dict[str, int]:
    """How many came to what."""
    states = [p.state for p in proposals]
    return {state: states.count(state) for state in dict.fromkeys(states)}


def guard(settings: StudySettings, proposals: Sequence[Proposal], best: Proposal, base: Outcome) -> Guarded | None:
    """The best on people who did not choose it; None of fewer than four people, or where pairs were not measured."""
    name, sign = settings.leading, settings.sign()
    whole = [p for p in proposals if len(p.rows) == len(best.rows)]
    pairs = [(row["fixed"], row["moving"]) for row in best.rows]
    people = sorted({who for pair in pairs for who in pair})
    count = min(settings.folds, len(people))
    if len(people) < 4 or len(whole) < 2 or len(base.rows) != len(best.rows):
        return None
    before = np.array([row[name] for row in base.rows])
    table = np.array([[row[name] for row in p.rows] for p in whole])  # proposals × pairs
    sizes = {str(k): len(people[k::count]) for k in range(count)}
    found: Gains = []
    level: Gains = []
    for fold in drawn(people, sizes, seed=settings.seed).values():
        shows = np.array([bool({*pair} & {*fold}) for pair in pairs])
        if not shows.any() or shows.all():
            return None
        winner = int(np.argmax(sign * table[:, ~shows].mean(1)))
        for n in np.flatnonzero(shows):
            found.append((pairs[n], float(table[winner, n])))
            level.append((pairs[n], float(table[winner, n] - before[n])))
    mean, gain = (float(np.mean([v for _, v in rows])) for rows in (found, level))
    low, high = interval([pair for pair, _ in found], [v for _, v in found])
    gain_low, gain_high = interval([pair for pair, _ in level], [v for _, v in level])
    said = float(np.mean([row[name] for row in best.rows]))
    return Guarded(mean, low, high, gain, gain_low, gain_high, len(people), count, sign * (said - mean))


def importance(settings: StudySettings, proposals: Sequence[Proposal]) -> dict[str, float]:
    """Shares of parameters in what makes a proposal one of the best quarter; empty of fewer than twelve that worked.

    Source: PED-ANOVA, Watanabe et al., IJCAI 2023.
    """
    done = [p for p in proposals if p.state == "complete"]
    if len(done) < FEWEST:
        return {}
    space = settings.search_space
    known = distributions(space, space.check(settings.base()))
    with quiet():
        study = optuna.create_study(direction="maximize")
        for p in done:
            params = texts(space, p.values)
            study.add_trial(
                optuna.trial.create_trial(
                    params=params, distributions={path: known[path] for path in params}, value=value(settings, p)
                )
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            evaluator = PedAnovaImportanceEvaluator(target_quantile=0.25)
            shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {path: round(float(share), 4) for path, share in shares.items()}
