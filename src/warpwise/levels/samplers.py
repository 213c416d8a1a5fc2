"""How a study chooses what to try next: Optuna's samplers, and one Gaussian process for each branch of a space."""

import copy
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from warpwise.extras import installed
from warpwise.levels.space import Parameter, SearchSpace, written

Kind = Literal["gp", "tpe", "published", "random"]
STARTUP = 8  # trials that are drawn at random before a model is believed


def distribution(parameter: Parameter, kind: type) -> BaseDistribution:
    """A parameter as Optuna has it; choices are texts, for they may be any data."""
    if parameter.choices:
        return CategoricalDistribution(tuple(written(choice) for choice in parameter.choices))
    low, high, step = parameter.low, parameter.high, parameter.step
    assert low is not None
    assert high is not None
    if kind is int:
        return IntDistribution(int(low), int(high), log=parameter.log, step=int(step or 1))
    return FloatDistribution(float(low), float(high), log=parameter.log, step=step)


def distributions(space: SearchSpace, kinds: Mapping[str, type]) -> dict[str, BaseDistribution]:
    """All parameters of a space as Optuna has them."""
    return {path: distribution(parameter, kinds[path]) for path, parameter in space.parameters.items()}


def sampler(
    kind: Kind, space: SearchSpace, known: Mapping[str, BaseDistribution], *, seed: int, startup: int = STARTUP
) -> BaseSampler:
    """A sampler; with the same seed and the same finished trials it proposes the same.

    Args:
        kind: gp; tpe, of all parameters together; published, Optuna's own defaults of it, each parameter by itself; or
            random. Without torch, tpe stands for gp.
        known: the space as Optuna has it; startup: trials drawn at random first.
    """
    if kind == "random":
        return RandomSampler(seed=seed)
    if kind == "published":
        return TPESampler(seed=seed)
    tree = parzen(seed=seed, startup=startup, group=True)
    if kind == "tpe" or not installed("torch"):
        return tree
    return BranchSampler(space, known, seed=seed, startup=startup)


def parzen(*, seed: int, startup: int, group: bool = False) -> TPESampler:
    """A tree-structured Parzen estimator of all parameters together; where they are conditional, of each group of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return TPESampler(seed=seed, n_startup_trials=startup, multivariate=True, group=group, constant_liar=True)


class BranchSampler(BaseSampler):
    """One Gaussian process for each branch of a conditional space: each set of values of the parameters on which others
    depend has parameters of its own, which all of its trials have.

    Which branch is next is chosen among all by a Parzen estimator of those values. Trials that were pruned count as what
    they would have come to: their last value, and as much more as finished ones gained from there.
    """

    def __init__(self, space: SearchSpace, known: Mapping[str, BaseDistribution], *, seed: int, startup: int) -> None:
        self.space, self.known = space, known
        self.random = RandomSampler(seed=seed)
        self.tree = parzen(seed=seed, startup=startup)
        self.process = GPSampler(
            seed=seed, n_startup_trials=startup, independent_sampler=self.random, warn_independent_sampling=False
        )
        self.startup = startup

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        parents = {path: self.known[path] for path in self.space.parents}
        branch: dict[str, Any] = self.tree.sample_relative(study, trial, parents) if parents else {}
        for path, drawn in parents.items():
            branch.setdefault(path, self.random.sample_independent(study, trial, path, drawn))
        fixed = trial.system_attrs.get("fixed_params", {})
        self.branch = {path: fixed.get(path, value) for path, value in branch.items()}
        values = {path: chosen(self.space.parameters[path], value) for path, value in self.branch.items()}
        # Of parents that depend on others, those that take part.
        self.branch = {path: value for path, value in self.branch.items() if path in self.space.active(values)}
        values = {path: values[path] for path in self.branch}
        return {path: self.known[path] for path in self.space.active(values)}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        free = {path: at for path, at in search_space.items() if path not in self.branch and not at.single()}
        drawn = self.process.sample_relative(Branch(study, self.branch, free), trial, free) if free else {}  # type: ignore[arg-type]
        return {**self.branch, **drawn}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self.random.sample_independent(study, trial, param_name, param_distribution)


class Branch:
    """A study as it looks to one who knows one branch of it alone."""

    def __init__(self, study: Study, branch: Mapping[str, Any], free: Mapping[str, BaseDistribution]) -> None:
        self.study, self.branch, self.free = study, branch, free

    def __getattr__(self, name: str) -> Any:
        return getattr(self.study, name)

    # As samplers call it.
    def _get_trials(self, deepcopy: bool, states: Sequence[TrialState], use_cache: bool) -> list[FrozenTrial]:  # noqa: ARG002, FBT001
        wanted = (*states, TrialState.PRUNED)
        trials = self.study.get_trials(deepcopy=deepcopy, states=wanted)
        mine = [trial for trial in trials if self._here(trial)]
        finished = [trial for trial in mine if trial.state == TrialState.COMPLETE]
        out: list[FrozenTrial] = []
        for trial in mine:
            told = trial if trial.state != TrialState.PRUNED else expected(trial, finished)
            if told is not None and told.state in states:
                out.append(told)
        return out

    def _here(self, trial: FrozenTrial) -> bool:
        if trial.state == TrialState.RUNNING:  # its values are not all known yet
            return all(trial.params.get(path, value) == value for path, value in self.branch.items())
        same = all(trial.params.get(path) == value for path, value in self.branch.items())
        return same and self.free.keys() <= trial.params.keys()


def expected(trial: FrozenTrial, finished: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """A pruned trial as if it had been finished; None where nothing tells what it would have come to."""
    if not trial.intermediate_values:
        return None
    step, value = max(trial.intermediate_values.items())
    if not math.isfinite(value):
        return None
    beside = [t for t in finished if step in t.intermediate_values and t.values]
    if not beside:
        return None
    gained = float(np.mean([(t.value or 0.0) - t.intermediate_values[step] for t in beside]))
    told = copy.copy(trial)
    told.state = TrialState.COMPLETE
    told.value = value + gained
    return told


def texts(space: SearchSpace, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as Optuna has them: choices as texts."""
    return {path: written(value) if space.parameters[path].choices else value for path, value in values.items()}


def chosen(parameter: Parameter, value: Any) -> Any:
    """The choice that a text of Optuna's stands for; a number is itself."""
    if not parameter.choices:
        return value
    return next(choice for choice in parameter.choices if written(choice) == value)
