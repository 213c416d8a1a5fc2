"""Smoothness of the displacement."""

from dataclasses import dataclass

from torch import Tensor

from warpwise import ops
from warpwise.alignment import Alignment


@dataclass(frozen=True)
class Diffusion:
    """Mean of ‖∇u‖² over voxels and pairs."""

    def __call__(self, alignment: Alignment) -> Tensor:
        """0-dim tensor, voxels."""
        return ops.diffusion(alignment.displacement).mean()


@dataclass(frozen=True)
class Bending:
    """Mean of the squared second derivatives of u over voxels and pairs.

    Source: Rueckert et al., IEEE TMI 1999.
    """

    def __call__(self, alignment: Alignment) -> Tensor:
        """0-dim tensor, voxels."""
        return ops.bending(alignment.displacement).mean()
