"""Terms: what an objective is a sum of. One table for solvers and networks; each term is a Settings."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, SerializeAsAny

from warpwise.errors import InputError
from warpwise.settings import Settings
from warpwise.tables import Table

if TYPE_CHECKING:
    from torch import Tensor

    from warpwise.alignment import Alignment

TERMS = Table(
    "term",
    {
        "auto": "warpwise.similarity.auto:Auto",
        "lncc": "warpwise.similarity.local:LNCC",
        "ncc": "warpwise.similarity.intensity:NCC",
        "mse": "warpwise.similarity.intensity:MSE",
        "mi": "warpwise.similarity.information:MutualInformation",
        "mind": "warpwise.similarity.descriptor:MIND",
        "labels": "warpwise.similarity.label:LabelOverlap",
        "landmarks": "warpwise.similarity.landmarks:Landmarks",
        "dice": "warpwise.similarity.label:SoftDice",
        "segmentation": "warpwise.similarity.label:Segmentation",
        "endpoint": "warpwise.similarity.label:EndpointError",
        "feature-match": "warpwise.similarity.posterior:FeatureMatch",
        "feature-prior": "warpwise.similarity.posterior:FeaturePrior",
        "gaussian": "warpwise.regularizers.gaussian:Gaussian",
        "diffusion": "warpwise.regularizers.smoothness:Diffusion",
        "bending": "warpwise.regularizers.smoothness:Bending",
        "folding": "warpwise.regularizers.folding:Folding",
        "inverse-consistency": "warpwise.regularizers.folding:InverseConsistency",
        "kl": "warpwise.regularizers.posterior:KullbackLeibler",
    },
)
"""Name → class, a `Term`."""


class Term(Settings, ABC):
    """One term of an objective; a subclass adds its own options and what reads it: `Loss` for networks, a kernel for
    solvers, or both.

    Attributes:
        term: its name in the table.
        weight: how much it counts; with 0 it is only measured, or not at all.
    """

    term: str
    weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)


class Loss(Term, ABC):
    """A term that is a function of an `Alignment`, so that anything can be trained by it.

    Attributes:
        scale: how often images and displacement are halved before it looks at them.
    """

    scale: int = Field(default=0, ge=0)

    @abstractmethod
    def __call__(self, alignment: "Alignment") -> "Tensor":
        """0-dim tensor, the lower the better; differentiable, twice."""


def parse_term(name: str, values: Any) -> Term:
    """A term from plain data: its options, and which term it is where its name does not say so.

    Example:
        >>> parse_term("half", {"term": "lncc", "scale": 1, "radius": 3})
        LNCC(term='lncc', weight=1.0, scale=1, radius=3, signed=False, epsilon=0.005)

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
    options["term"] = kind.model_fields["term"].default
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
