"""How a solver keeps a deformation smooth."""

from typing import Literal, Self

from pydantic import Field, model_validator

from warpwise.terms.term import Term


class Gaussian(Term):
    """Smoothness by filtering, not by an energy: the force of every step and the field after it pass a Gaussian.

    Attributes:
        update_sigma: of the force before a step (fluid-like), voxels of the field at each scale.
        field_sigma: of the field after it (elastic-like), likewise.
    """

    term: Literal["gaussian"] = "gaussian"
    update_sigma: float = Field(default=0.85, ge=0, allow_inf_nan=False)
    field_sigma: float = Field(default=0.5, ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _unweighted(self) -> Self:
        if self.weight != 1:
            raise ValueError("a Gaussian has no weight; its strength is update_sigma and field_sigma")
        return self
