"""Everything about a study that a person may set, as one YAML file."""

from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, model_validator

from warpwise.errors import InputError
from warpwise.levels.settings import beside, mapping_of, read_settings
from warpwise.levels.space import Parameter, SearchSpace
from warpwise.methods import Method
from warpwise.methods.method import PRESETS, anchored
from warpwise.models import installed
from warpwise.settings import Settings, nearest

METRICS = ("dice", "sd_log_jacobian", "percent_folded", "percent_ndv", "seconds")
"""What is measured of a method on a pair."""
TRAINED = ("dice", "sd_log_jacobian", "percent_folded", "percent_ndv", "loss", "segmentation", "endpoint")
"""What a validation of a training may measure."""

Direction = Literal["maximize", "minimize"]


class StudyData(Settings):
    """On whom a method is tried.

    Attributes:
        dataset: dataset.json or its folder, with label maps.
        people: whose pairs count, by subject, or by file name where the dataset names no subject; else those to train on.
        pairs: at most so many, in which everybody takes part alike; 0: all.
        allow_outside: whether the dataset may name images outside its folder.
    """

    dataset: Path
    people: tuple[str, ...] = ()
    pairs: int = Field(default=24, ge=0)
    allow_outside: bool = False


class Bound(Settings):
    """What a figure may be.

    Attributes:
        at_least, at_most: either or both; of the mean over pairs.
        of_base: they are multiples of what the study begins with has.
    """

    at_least: float | None = None
    at_most: float | None = None
    of_base: bool = False

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.at_least is None and self.at_most is None:
            raise ValueError("at_least or at_most is needed")
        return self

    def excess(self, value: float, unit: float = 1.0) -> float:
        """By how much a value is outside of so many units; 0 or less inside."""
        over = [value - self.at_most * unit] if self.at_most is not None else []
        under = [self.at_least * unit - value] if self.at_least is not None else []
        return max([*over, *under])


class StudySettings(Settings):
    """A study: what is changed, how it is judged, and how often.

    Attributes:
        method: what is searched: a preset, a model, a file, or settings (with `base`: changes of those); or
        config: a training's settings, each trial of which trains a network.
        space: dotted path in either → values (`space.Parameter`).
        objectives: figure → maximize or minimize; of several, nobody is best, and a front is found.
        constraints: figure → bounds.
        data: on whom a method is tried; a training has its own.
        trials: so many proposals, of which the first is what the study begins with, where the space holds it; startup: of
            them at random, in each branch of the space, before a model is believed.
        sampler: gp, a Gaussian process in each branch; tpe; or random. Without torch, gp is tpe.
        faithful: as published (MedIA 2025): tpe, and pruning below the median after five trials.
        pruning: stop trials that do badly at a ninth and at a third of the pairs, or at validations before the last
            (ASHA); only where there is one objective, and none that breaks a constraint so far.
        reduction: of such trials one in so many goes on.
        baseline: also a random search of as many trials, to see what the sampler is good for.
        folds: of people, for what the best is on people who did not choose it; 0: not asked.
        last: validations at the end of a training whose mean counts, rather than the best one.
        seed: of proposals, and of the random search.
    """

    method: str | dict[str, Any] | None = None
    config: Path | None = None
    space: dict[str, Parameter]
    objectives: dict[str, Direction] = Field(default_factory=lambda: {"dice": "maximize"})
    constraints: dict[str, Bound] = Field(default_factory=dict)
    data: StudyData | None = None
    trials: int = Field(default=30, ge=1)
    startup: int = Field(default=8, ge=1)
    sampler: Literal["gp", "tpe", "random"] = "gp"
    faithful: bool = False
    pruning: bool = True
    reduction: int = Field(default=3, ge=2)
    baseline: bool = True
    folds: int = Field(default=5, ge=0)
    last: int = Field(default=3, ge=1)
    seed: int = 0

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.method is None) == (self.config is None):
            raise ValueError("either method or config is needed: what is to be searched")
        if self.method is not None and self.data is None:
            raise ValueError("data: on whom is the method to be tried?")
        if self.config is not None and self.data is not None:
            raise ValueError("data: a training has its own, in its config")
        if not self.objectives:
            raise ValueError("objectives: there is none")
        if self.folds == 1:
            raise ValueError("folds: two at least, or 0")
        what, known = ("method", METRICS) if self.method is not None else ("training", TRAINED)
        for name in (*self.objectives, *self.constraints):
            if name not in known:
                raise InputError(f"{name!r} is not measured of a {what}.", hint=f"Known: {', '.join(known)}.")
        SearchSpace(parameters=self.space)
        return self

    @property
    def search_space(self) -> SearchSpace:
        """The space, whose conditions were checked."""
        return SearchSpace(parameters=self.space)

    @property
    def leading(self) -> str:
        """The first objective."""
        return next(iter(self.objectives))

    def sign(self, name: str | None = None) -> int:
        """By what an objective (the first) is multiplied for more to be better."""
        return 1 if self.objectives[self.leading if name is None else name] == "maximize" else -1

    def base(self) -> Settings:
        """What the space changes: a method, or a training's settings.

        Raises:
            InputError: it cannot be read.
        """
        if self.config is not None:
            return read_settings(self.config)
        assert self.method is not None
        return method_of(self.method)


def method_of(said: str | dict[str, Any]) -> Method:
    """A method that settings name, or spell out, with `base` as changes of another.

    Raises:
        InputError: it cannot be read.
    """
    if isinstance(said, str):
        return Method.named(said)
    rest = dict(said)
    base = rest.pop("base", None)
    return Method.parse(rest) if base is None else Method.named(str(base)).merged(rest)


def settled_paths(path: Path, method: str | dict[str, Any] | None, data: StudyData | None) -> dict[str, Any]:
    """Changes by which a method and a dataset, said relative to the folder of a file, lead to the same place from
    everywhere."""
    changes: dict[str, Any] = {}
    if data is not None and not data.dataset.is_absolute():
        changes["data"] = data.replace(dataset=(path.parent / data.dataset).resolve())
    if isinstance(method, str) and method not in (*PRESETS, *installed()):
        changes["method"] = beside(path, method)
    elif isinstance(method, dict):
        changes["method"] = anchored(method, path.absolute().parent)
    return changes


def ready_study(name: str, dataset: Path) -> StudySettings:
    """A study that comes with the program, for one's own dataset.

    Raises:
        InputError: there is none of this name.
    """
    place = files("warpwise.levels") / "studies"
    known = sorted(item.name.removesuffix(".yaml") for item in place.iterdir() if item.name.endswith(".yaml"))
    if name not in known:
        raise InputError(f"There is no study {name!r}.", hint=nearest(name, known))
    content = yaml.safe_load((place / f"{name}.yaml").read_text(encoding="utf-8"))
    return StudySettings.parse({**content, "data": {"dataset": dataset.resolve()}})


def read_study(path: Path) -> StudySettings:
    """A study from a YAML file; paths in it are relative to its folder.

    Raises:
        InputError: it is missing, is not YAML, or holds what is not known or does not fit.
    """
    study = StudySettings.parse(mapping_of(path))
    changes = settled_paths(path, study.method, study.data)
    if study.config is not None and not study.config.is_absolute():
        changes["config"] = (path.parent / study.config).resolve()
    return study.replace(**changes) if changes else study
