"""Settings: frozen, checked, and readable as YAML-compatible data."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, ValidationError, model_validator

from warpwise.errors import InputError
from warpwise.models import written


class Settings(BaseModel):
    """Base of everything a person may set. Unknown keys are refused, with the nearest known one."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            given: Mapping[str, Any] = values
            for name in (name for name, value in given.items() if isinstance(value, bool) and name in cls.model_fields):
                kind: Any = cls.model_fields[name].annotation
                if {int, float} & {kind, *get_args(kind)}:
                    raise InputError(f"{name}: a number is needed, not {str(given[name]).lower()}.")
        return values

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Settings from plain data.

        Raises:
            InputError: a key is unknown or a value does not fit.
        """
        unknown = [key for key in values if key not in cls.model_fields]
        if unknown:
            hint = nearest(str(unknown[0]), cls.model_fields)
            raise InputError(f"{cls.__name__}: unknown setting {unknown[0]!r}.", hint=hint)
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            first = error.errors()[0]
            where = _written(values, first["loc"])
            cause = first.get("ctx", {}).get("error")
            if isinstance(cause, InputError):
                raise InputError(f"{where}: {cause.message}" if where else cause.message, hint=cause.hint) from error
            if first["type"] == "extra_forbidden":
                hint = nearest(str(first["loc"][-1]), _at(cls, first["loc"][:-1]))
                raise InputError(f"{cls.__name__}: unknown setting {where!r}.", hint=hint) from error
            if first["type"] == "union_tag_invalid":
                said = first.get("ctx", {})
                hint = nearest(str(said["tag"]), str(said["expected_tags"]).replace("'", "").split(", "))
                raise InputError(f"{cls.__name__}: {where}.kind: there is no {said['tag']!r}.", hint=hint) from error
            raise InputError(f"{cls.__name__}: {where}: {first['msg']} (got {first['input']!r}).") from error

    def replace(self, **changes: Any) -> Self:
        """A copy with some values changed, checked like the original."""
        return type(self).parse({**dict(self), **changes})

    def plain(self) -> dict[str, Any]:
        """Mappings and lists all the way down, for changes in depth; what is no setting stays what it is."""
        return {name: _plain(value) for name, value in self}

    def merged(self, changes: Mapping[str, Any]) -> Self:
        """A copy with nested values changed, checked like the original.

        Raises:
            InputError: a key is unknown, or a value does not fit.
        """
        return type(self).parse(_merge(type(self), (), self.plain(), changes))

    def changed(self, values: Mapping[str, Any]) -> Self:
        """A copy with values changed that lie at dotted paths, checked like the original.

        Example:
            >>> from warpwise.methods import Method
            >>> Method.named("fast").changed({"registrar.cap": 0.3}).registrar.cap
            0.3

        Raises:
            InputError: a path leads nowhere, or a value does not fit.
        """
        out = self
        for path, value in values.items():
            whole = out.plain()
            _put(out, whole, path, value)
            out = type(self).parse(whole)
        return out


def _written(values: Any, path: Sequence[int | str]) -> str:
    """A path as a person writes it: without the kinds by which members of a union are told apart."""
    parts: list[str] = []
    for depth, part in enumerate(path):
        at: Any = dict(values) if isinstance(values, Settings) else values
        held = isinstance(at, Mapping) and part in at
        held = held or (isinstance(at, list | tuple) and isinstance(part, int))
        if held or depth + 1 == len(path):
            parts.append(str(part))
        if held:
            values = at[part]  # pyright: ignore[reportCallIssue, reportArgumentType] - a key or an index of what holds it
    return ".".join(parts)


def _plain(value: Any) -> Any:
    if isinstance(value, Settings):
        return value.plain()
    if isinstance(value, Mapping):
        rows: Mapping[Any, Any] = value
        return {key: _plain(one) for key, one in rows.items()}
    if isinstance(value, list | tuple):
        entries: Sequence[Any] = value
        return [_plain(one) for one in entries]
    return value


def _put(settings: Settings, whole: dict[str, Any], path: str, value: Any) -> None:
    """Write a value into the plain form of settings. A mapping that is no settings may get a key it does not have."""
    at: Any = whole
    real: Any = settings
    parts = path.split(".")
    for depth, part in enumerate(parts):
        place = ".".join(parts[:depth]) or type(settings).__name__
        key: Any = part
        if isinstance(at, list):
            rows: list[Any] = at
            if not part.isdecimal() or int(part) >= len(rows):
                raise InputError(f"{path}: {place} has {len(rows)} entries, from 0; {part!r} is none of them.")
            key = int(part)
        elif not isinstance(at, dict):
            whole_hint = f"Write all of it: {place}={{{part}: …}}" if at is None else ""
            raise InputError(f"{path}: {place} is {at!r}, which has no {part!r}.", hint=whole_hint)
        elif part not in at and (isinstance(real, Settings) or depth + 1 < len(parts)):
            known: dict[str, Any] = at
            raise InputError(f"{path}: {place} has no {part!r}.", hint=nearest(part, known))
        if depth + 1 == len(parts):
            if isinstance(at, dict):
                here: dict[str, Any] = at
                kept = _kept(type(settings), parts[:-1], here, {part: value})
                here.clear()
                here.update(kept)
            at[key] = value  # pyright: ignore[reportCallIssue, reportArgumentType] - a key or an index, checked above
            return
        real = getattr(real, part) if isinstance(real, Settings) else real[key]
        at = at[key]


def _merge(model: type[BaseModel], at: Sequence[str], values: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings, where both have one, merged; else the change."""
    out = _kept(model, at, values, changes)
    for key, value in changes.items():
        old = out.get(key)
        both = isinstance(old, dict) and isinstance(value, Mapping)
        out[key] = _merge(model, [*at, key], old, value) if both else value  # pyright: ignore[reportArgumentType]
    return out


def _kept(
    model: type[BaseModel], at: Sequence[str], values: Mapping[str, Any], changes: Mapping[str, Any]
) -> dict[str, Any]:
    """What stays of a mapping in settings when it changes: of another term the weight, of another kind what it knows."""
    out = dict(values)
    if _switched(out, changes, "term"):
        return {"weight": out["weight"]} if "weight" in out else {}
    if _switched(out, changes, "kind"):
        known = _at(model, [*at, str(changes["kind"])])
        return {key: value for key, value in out.items() if key in known}
    return out


def _switched(values: Mapping[str, Any], changes: Mapping[str, Any], key: str) -> bool:
    """Whether a mapping becomes another's settings; a name of one's own may be spelt like the key, but holds a mapping."""
    old, new = values.get(key), changes.get(key)
    return isinstance(old, str) and isinstance(new, str) and old != new


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint for a word that is not known: the nearest one that is, else all."""
    words = list(known)
    near = get_close_matches(word, words, n=1)
    return f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(words) or 'none'}."


def _at(model: type[BaseModel], path: Sequence[int | str]) -> Mapping[str, Any]:
    """The fields of the settings that lie at a path within others."""
    at: Any = model
    for part in path:
        if isinstance(at, type) and issubclass(at, BaseModel):
            # A part that is no field is the key of a mapping, or the kind of a union, which the field already led to.
            at = at.model_fields[str(part)].annotation if part in at.model_fields else at
        members = _members(at)
        named = [c for c in members if "kind" in c.model_fields and c.model_fields["kind"].default == part]
        at = next(iter([*named, *members]), at) if named or len(members) == 1 else at
    members = _members(at)
    return members[0].model_fields if members else {}


def _members(annotation: Any) -> list[type[BaseModel]]:
    """Settings that an annotation allows, through unions and what is annotated."""
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [member for part in get_args(annotation) for member in _members(part)]


def model_of(value: Any) -> Any:
    """A model as it was given.

    Raises:
        InputError: it is none.
    """
    if not isinstance(value, str | Path) and not hasattr(value, "card"):
        raise InputError(f"{value!r} is no model.", hint="Give a name, a folder, or a Model.")
    return value


AnyModel = Annotated[Any, BeforeValidator(model_of), PlainSerializer(written, return_type=str, when_used="json")]
"""A field of settings: an installed model's name, the folder of one or of a training run; in memory a `Model`."""
