"""What a study may change: dotted paths in any settings, and the values that they may take."""

import json
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, Self, TypeVar

from pydantic import Field, model_validator

from warpwise.errors import InputError
from warpwise.settings import Settings, nearest

Value = bool | int | float | str | None
Values = dict[str, Any]
"""By path: numbers, or what is chosen, as it is to stand in the settings."""
Any_Settings = TypeVar("Any_Settings", bound=Settings)


class Parameter(Settings):
    """The values of one path: a range, or choices.

    Attributes:
        low, high: ends of a range, both allowed; whole numbers where the setting is one.
        log: drawn evenly in the logarithm.
        step: only low, low + step … are allowed.
        choices: plain data, also mappings and lists.
        when: it takes part only where other parameters have one of these values: path → value or list of values.
    """

    low: float | None = None
    high: float | None = None
    log: bool = False
    step: float | None = Field(default=None, gt=0)
    choices: tuple[Any, ...] = ()
    when: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if bool(self.choices) == (self.low is not None and self.high is not None):
            raise ValueError("either low and high are needed, or choices")
        if self.choices:
            if self.low is not None or self.high is not None or self.log or self.step is not None:
                raise ValueError("low, high, log and step belong to a range, not to choices")
            if len({written(choice) for choice in self.choices}) < len(self.choices):
                raise ValueError("a choice is there twice")
            return self
        assert self.low is not None
        assert self.high is not None
        if not self.low < self.high:
            raise ValueError(f"low {self.low:g} is not below high {self.high:g}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log needs a low above 0, and no step")
        return self

    def allowed_by(self, values: Mapping[str, Any]) -> bool:
        """Whether it takes part beside these values of parameters before it."""
        return all(path in values and written(values[path]) in map(written, wanted(of)) for path, of in self.when.items())

    @property
    def ends(self) -> tuple[Any, ...]:
        """Values that must fit for all to fit."""
        return self.choices or (self.low, self.high)


def wanted(value: Any) -> Sequence[Any]:
    """What `when` asks for, as a list."""
    return value if isinstance(value, list | tuple) else [value]


def written(value: Any) -> str:
    """Plain data as a text that is the same for the same value."""
    return json.dumps(value, sort_keys=True)


class SearchSpace(Settings):
    """Parameters by path, in the order in which they are chosen; a condition looks at earlier ones alone.

    A `*` in a path stands for every entry of a list or mapping: `registrar.scales.*.radius` is one parameter of all scales.
    """

    parameters: dict[str, Parameter]

    @model_validator(mode="after")
    def _conditions(self) -> Self:
        before: dict[str, Parameter] = {}
        for path, parameter in self.parameters.items():
            for other, of in parameter.when.items():
                if other not in before:
                    raise ValueError(f"{path}: when {other}: no parameter of this path stands before it")
                known = [written(choice) for choice in before[other].choices]
                odd = [value for value in wanted(of) if written(value) not in known]
                if odd:
                    raise ValueError(f"{path}: when {other}: {odd[0]!r} is none of its choices")
            before[path] = parameter
        if not before:
            raise ValueError("there is nothing to search")
        return self

    def active(self, values: Mapping[str, Any]) -> list[str]:
        """Paths that take part where parents have these values."""
        out: list[str] = []
        for path, parameter in self.parameters.items():
            if parameter.allowed_by({k: v for k, v in values.items() if k in out}):
                out.append(path)
        return out

    @property
    def parents(self) -> list[str]:
        """Paths on whose values others depend."""
        named = {other for parameter in self.parameters.values() for other in parameter.when}
        return [path for path in self.parameters if path in named]

    def check(self, base: Settings) -> dict[str, type]:
        """Refuse what does not fit the settings that it is to change; whether each range is of whole numbers.

        Raises:
            InputError: a path leads nowhere, or an end or a choice does not fit.
        """
        kinds: dict[str, type] = {}
        for path, parameter in self.parameters.items():
            for there, value in product(self._where_allowed(base, path), parameter.ends):
                try:
                    changed = put(there, path, value)
                    kinds[path] = type(at(changed, expanded(changed, path)[0]))
                except InputError as error:
                    raise InputError(f"space: {path}: {error.message}", hint=error.hint) from error
            if not parameter.choices and kinds[path] is int:
                assert parameter.low is not None
                assert parameter.high is not None
                if any(v is not None and v != int(v) for v in (parameter.low, parameter.high, parameter.step)):
                    raise InputError(
                        f"space: {path}: is a whole number, and {parameter.low:g} … {parameter.high:g} is not."
                    )
        return kinds

    def _where_allowed(self, base: Any_Settings, path: str) -> list[Any_Settings]:
        """Settings in which a parameter takes part: with each value that its conditions allow, and theirs."""
        places = [base]
        for other, of in self.parameters[path].when.items():
            places = [
                put(deeper, other, value)
                for place in places for deeper in self._where_allowed(place, other) for value in wanted(of)
            ]  # fmt: skip
        return places

    def applied(self, base: Any_Settings, values: Mapping[str, Any]) -> Any_Settings:
        """Settings with these values, put in one after the other in the space's order.

        Raises:
            InputError: they do not fit together.
        """
        for path in self.parameters:
            if path in values:
                base = put(base, path, values[path])
        return base

    def of(self, settings: Settings) -> Values | None:
        """The values that settings have; None where one lies outside, or where a `*` stands for several."""
        out: Values = {}
        for path, parameter in self.parameters.items():
            if not parameter.allowed_by(out):
                continue
            try:
                found = {written(at(settings, one)) for one in expanded(settings, path)}
            except InputError:
                return None
            value = json.loads(next(iter(found))) if len(found) == 1 else None
            if parameter.choices:
                if len(found) != 1 or written(value) not in map(written, parameter.choices):
                    return None
            elif not isinstance(value, int | float) or not within(parameter, value):
                return None
            out[path] = value
        return out


def within(parameter: Parameter, value: float) -> bool:
    """Whether a number lies in a range."""
    return parameter.low is not None and parameter.high is not None and parameter.low <= value <= parameter.high


def put(settings: Any_Settings, path: str, value: Any) -> Any_Settings:
    """Settings with a value at a path, at every place that a `*` stands for.

    Raises:
        InputError: the path leads nowhere, or the value does not fit.
    """
    return settings.changed(dict.fromkeys(expanded(settings, path), value))


def expanded(settings: Settings, path: str) -> list[str]:
    """The paths that one with `*` stands for.

    Raises:
        InputError: a `*` stands for nothing.
    """
    done: list[str] = [""]
    for part in path.split("."):
        longer: list[str] = []
        for before in done:
            if part != "*":
                longer.append(f"{before}.{part}" if before else part)
                continue
            here = at(settings, before) if before else settings.plain()
            keys = (
                [*here]
                if isinstance(here, Mapping)
                else [str(n) for n in range(len(here))]
                if isinstance(here, list)
                else []
            )
            longer += [f"{before}.{key}" if before else key for key in keys]
        done = longer
    if not done:
        raise InputError(f"{path}: * stands for nothing there.")
    return done


def at(settings: Settings, path: str) -> Any:
    """The value at a path, as plain data.

    Raises:
        InputError: the path leads nowhere.
    """
    here: Any = settings.plain()
    for part in path.split("."):
        known = (
            here if isinstance(here, Mapping) else {str(n): v for n, v in enumerate(here)} if isinstance(here, list) else {}
        )
        if part not in known:
            raise InputError(f"{path}: there is no {part!r}.", hint=nearest(part, known))
        here = known[part]
    return here


def entries(here: Any) -> dict[str, Any]:
    """What a mapping or list holds, by key or number; nothing of anything else."""
    if isinstance(here, list):
        rows: list[Any] = here
        return {str(n): one for n, one in enumerate(rows)}
    held: Mapping[str, Any] = here if isinstance(here, Mapping) else {}
    return dict(held)
