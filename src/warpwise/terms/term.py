"""What a term is, and how one is read from plain data."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, SerializeAsAny

from warpwise.errors import InputError
from warpwise.settings import Settings
from warpwise.terms import TERMS

if TYPE_CHECKING:
    from torch import Tensor

    from warpwise.alignment import Alignment


class Term(Settings, ABC):
    """One term of an objective; a subclass adds its own options and what reads it: `Loss` for networks, a kernel for
    solvers, or both.

    Attributes:
        weight: how much it counts; with 0 it is only measured, or not at all.
    """

    weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)

    @classmethod
    def row(cls) -> str:
        """Its name in the table, which a subclass also has as its field `term`."""
        return str(cls.model_fields["term"].default)


class Loss(Term, ABC):
    """A term that is a function of an `Alignment`, so that anything can be trained by it.

    Attributes:
        scale: how often images and displacement are halved before it looks at them.
        stage: it looks at what is known after the so-manieth stage of a network that registers in several, 1 the first;
            None: at the end.
    """

    scale: int = Field(default=0, ge=0)
    stage: int | None = Field(default=None, ge=1)

    @abstractmethod
    def __call__(self, alignment: "Alignment") -> "Tensor":
        """0-dim tensor, the lower the better; differentiable, twice."""


def parse_term(name: str, values: Any) -> Term:
    """A term from plain data: its options, and which term it is where its name does not say so.

    Example:
        >>> parse_term("half", {"term": "diffusion", "scale": 1})
        Diffusion(weight=1.0, scale=1, stage=None, term='diffusion', of='displacement')

    Raises:
        InputError: the term or one of its options is not known, or does not fit.
    """
    if isinstance(values, Term):
        return values
    if values is None:
        values = {}
    if not isinstance(values, Mapping):
        raise InputError(f"term {name!r} is {values!r}; a mapping of its options is needed.")
    options: dict[str, Any] = dict(values)
    kind: type[Term] = TERMS[str(options.get("term") or name)]
    options["term"] = kind.row()
    try:
        return kind.parse(options)
    except InputError as error:
        raise InputError(f"term {name!r}: {error.message}", hint=error.hint) from error


def parse_terms(values: Any) -> dict[str, Term]:
    """All terms of an objective, by the names that a person gave them.

    Raises:
        InputError: see `parse_term`.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"an objective is a mapping of terms, not {values!r}.")
    rows: Mapping[Any, Any] = values
    return {str(name): parse_term(str(name), one) for name, one in rows.items()}


Terms = Annotated[dict[str, SerializeAsAny[Term]], BeforeValidator(parse_terms)]
"""The type of a setting that is an objective."""
