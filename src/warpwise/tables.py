"""The one registry: a name, and where the thing it names lives, resolved on use."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from warpwise.errors import InputError
from warpwise.extras import imported


class Table(Mapping[str, Any]):
    """Names mapped to `"module:attribute"`; looking a name up imports its module.

    Example:
        >>> table = Table("root", {"sqrt": "math:sqrt"})
        >>> table["sqrt"](9.0)
        3.0
    """

    def __init__(self, kind: str, rows: Mapping[str, str]) -> None:
        self.kind = kind
        self._rows = dict(rows)

    def __getitem__(self, name: str) -> Any:
        if name not in self._rows:
            near = get_close_matches(name, self._rows, n=1)
            guess = f"Did you mean {near[0]!r}? " if near else ""
            raise InputError(f"Unknown {self.kind} {name!r}.", hint=f"{guess}Known: {', '.join(self._rows)}.")
        module, attribute = self._rows[name].split(":")
        return getattr(imported(module), attribute)

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)
