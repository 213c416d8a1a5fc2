"""Settings: frozen, checked, and readable as YAML-compatible data."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from warpwise.errors import InputError


class Settings(BaseModel):
    """Base of everything a person may set. Unknown keys are refused, with the nearest known one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Settings from plain data.

        Raises:
            InputError: a key is unknown or a value does not fit.
        """
        unknown = [key for key in values if key not in cls.model_fields]
        if unknown:
            near = get_close_matches(unknown[0], list(cls.model_fields), n=1)
            guess = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(cls.model_fields)}."
            raise InputError(f"{cls.__name__}: unknown setting {unknown[0]!r}.", hint=guess)
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            if first["type"] == "extra_forbidden":
                known = list(_at(cls, first["loc"][:-1]))
                near = get_close_matches(str(first["loc"][-1]), known, n=1)
                guess = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}."
                raise InputError(f"{cls.__name__}: unknown setting {where!r}.", hint=guess) from error
            raise InputError(f"{cls.__name__}: {where}: {first['msg']} (got {first['input']!r}).") from error

    def replace(self, **changes: Any) -> Self:
        """A copy with some values changed, checked like the original."""
        return type(self).parse({**self.model_dump(), **changes})


def _at(model: type[BaseModel], path: Sequence[int | str]) -> Mapping[str, Any]:
    """The fields of the settings that lie at a path within others."""
    found: Any = model
    for part in path:
        if isinstance(found, type) and issubclass(found, BaseModel):
            # A part that is no field is the key of a mapping, whose values the field before it already led to.
            found = found.model_fields[str(part)].annotation if part in found.model_fields else found
        choices = [*get_args(found), found]
        found = next((c for c in choices if isinstance(c, type) and issubclass(c, BaseModel)), found)
    return found.model_fields if isinstance(found, type) and issubclass(found, BaseModel) else {}
