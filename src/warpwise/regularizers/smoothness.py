"""Smoothness of the displacement."""

from typing import TYPE_CHECKING, Literal

from warpwise.terms.term import Loss

if TYPE_CHECKING:
    from torch import Tensor

    from warpwise.alignment import Alignment


class Diffusion(Loss):
    """Mean of ‖∇u‖² over voxels and pairs."""

    term: Literal["diffusion"] = "diffusion"

    def __call__(self, alignment: "Alignment") -> "Tensor":
        from warpwise import ops  # noqa: PLC0415 - solvers must not pay for importing torch

        return ops.diffusion(alignment.displacement).mean()


class Bending(Loss):
    """Mean of the squared second derivatives of u over voxels and pairs.

    Source: Rueckert et al., IEEE TMI 1999.
    """

    term: Literal["bending"] = "bending"

    def __call__(self, alignment: "Alignment") -> "Tensor":
        from warpwise import ops  # noqa: PLC0415 - likewise

        return ops.bending(alignment.displacement).mean()
