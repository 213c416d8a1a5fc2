"""Smoothness of the displacement."""

from typing import TYPE_CHECKING, Literal

from warpwise.errors import InputError
from warpwise.terms.term import Loss

if TYPE_CHECKING:
    from torch import Tensor

    from warpwise.alignment import Alignment


class Diffusion(Loss):
    """Mean of ‖∇u‖² over voxels and pairs.

    Attributes:
        of: the displacement; or the velocity of a network that has one, over its nodes, in those; solvers know the first.
    """

    term: Literal["diffusion"] = "diffusion"
    of: Literal["displacement", "velocity"] = "displacement"

    def __call__(self, alignment: "Alignment") -> "Tensor":
        from warpwise import ops  # noqa: PLC0415 - solvers must not pay for importing torch

        if self.of == "displacement":
            return ops.diffusion(alignment.displacement).mean()
        velocity = None if alignment.prediction is None else alignment.prediction.velocity
        if velocity is None:
            raise InputError(
                "diffusion: of: velocity: what is predicted here has none.", hint="Name a stage, or take the displacement."
            )
        return ops.diffusion(velocity.float()).mean()


class Bending(Loss):
    """Mean of the squared second derivatives of u over voxels and pairs.

    Source: Rueckert et al., IEEE TMI 1999.
    """

    term: Literal["bending"] = "bending"

    def __call__(self, alignment: "Alignment") -> "Tensor":
        from warpwise import ops  # noqa: PLC0415 - likewise

        return ops.bending(alignment.displacement).mean()
