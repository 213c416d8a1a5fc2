"""An objective: named terms, each with a weight."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from pydantic import Field
from torch import Tensor

from warpwise import ops
from warpwise.alignment import Alignment
from warpwise.errors import InputError
from warpwise.regularizers import REGULARIZERS
from warpwise.settings import Settings
from warpwise.similarity import SIMILARITIES
from warpwise.tables import Table

Term = Callable[[Alignment], Tensor]

SUPERVISED = Table(
    "term",
    {
        "dice": "warpwise.similarity.label:SoftDice",
        "segmentation": "warpwise.similarity.label:Segmentation",
        "endpoint": "warpwise.similarity.label:EndpointError",
    },
)
"""Terms that need labels or a known deformation."""

FEATURES = Table(
    "term",
    {
        "feature-match": "warpwise.similarity.posterior:FeatureMatch",
        "feature-prior": "warpwise.similarity.posterior:FeaturePrior",
    },
)
"""Terms of learned features."""

TERMS = (SIMILARITIES, REGULARIZERS, SUPERVISED, FEATURES)


class TermSettings(Settings):
    """One term of an objective.

    Attributes:
        weight: how much it counts.
        term: which one; by default that of its own name.
        level: how often images and displacement are halved first.
        options: settings of the term, such as radius.
    """

    weight: float = 1.0
    term: str = ""
    level: int = 0
    options: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Objective:
    """Σ weight · term; a weight may be a number or a 0-dim tensor that is itself learned.

    Raises:
        InputError: a term has no weight, or a weight no term.
    """

    terms: Mapping[str, Term]
    weights: Mapping[str, float | Tensor]

    def __post_init__(self) -> None:
        if set(self.terms) != set(self.weights):
            odd = sorted(set(self.terms) ^ set(self.weights))
            raise InputError(f"Terms and weights must have the same names; {', '.join(odd)} stands alone.")

    @classmethod
    def of(cls, settings: Mapping[str, TermSettings]) -> "Objective":
        """From what a person wrote.

        Example:
            >>> made = Objective.of({"lncc": TermSettings(), "half": TermSettings(term="lncc", level=1, weight=0.3)})
            >>> made.terms["half"]
            AtLevel(term=LNCC(radius=2, signed=False, epsilon=0.005), level=1)

        Raises:
            InputError: a term or one of its options is not known.
        """
        if not settings:
            raise InputError("An objective needs at least one term.")
        return cls({name: term_of(name, one) for name, one in settings.items()}, {n: s.weight for n, s in settings.items()})

    def values(self, alignment: Alignment) -> dict[str, Tensor]:
        """Every term by itself."""
        return {name: term(alignment) for name, term in self.terms.items()}

    def total(self, values: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum of terms, 0-dim."""
        parts = [self.weights[name] * value for name, value in values.items()]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total

    def __call__(self, alignment: Alignment) -> Tensor:
        """The weighted sum, 0-dim."""
        return self.total(self.values(alignment))


@dataclass(frozen=True)
class AtLevel:
    """A term on images and a displacement that were halved some times."""

    term: Term
    level: int

    def __call__(self, alignment: Alignment) -> Tensor:
        """0-dim tensor."""
        for _ in range(self.level):
            alignment = halved(alignment)
        return self.term(alignment)


def halved(alignment: Alignment) -> Alignment:
    """Every second voxel after a Gaussian of σ 0.7; displacements in voxels of the new grid. Predictions stay."""
    halve = [n > 1 for n in alignment.fixed.shape[2:]]

    def half(x: Tensor | None, scale: float = 1.0) -> Any:
        if x is None:
            return None
        return scale * ops.gaussian(x, sigma_voxels=[0.7 * h for h in halve], stride=[1 + h for h in halve])

    return replace(
        alignment,
        fixed=half(alignment.fixed),
        warped=half(alignment.warped),
        displacement=half(alignment.displacement, 0.5),
        mask=half(alignment.mask),
        fixed_labels=half(alignment.fixed_labels),
        warped_labels=half(alignment.warped_labels),
        truth=half(alignment.truth, 0.5),
    )


def term_of(name: str, settings: TermSettings) -> Term:
    """The term that settings speak of.

    Raises:
        InputError: it or one of its options is not known.
    """
    wanted = settings.term or name
    rows = next((table for table in TERMS if wanted in table), None)
    if rows is None:
        known = {row: "objective:None" for table in TERMS for row in table}
        rows = Table("term", known)
    kind = rows[wanted]
    options = [field.name for field in fields(kind)]
    odd = sorted(set(settings.options) - set(options))
    if odd:
        raise InputError(f"Term {name!r}: unknown option {odd[0]!r}.", hint=f"Known: {', '.join(options) or 'none'}.")
    term = kind(**settings.options)
    return AtLevel(term, settings.level) if settings.level else term
