"""An objective: named terms, each with a weight."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from warpwise.errors import InputError
from warpwise.state import State

Term = Callable[[State], Tensor]


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

    def values(self, state: State) -> dict[str, Tensor]:
        """Every term by itself."""
        return {name: term(state) for name, term in self.terms.items()}

    def __call__(self, state: State) -> Tensor:
        """The weighted sum, 0-dim."""
        parts = [self.weights[name] * value for name, value in self.values(state).items()]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total
