"""The interface of a similarity, in two forms: a term on tensors, and a fused evaluation for solvers."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Literal

from warpwise.shapes import Array, Channels, Map1
from warpwise.terms.term import Loss

if TYPE_CHECKING:
    from warpwise.volume import Volume

Fused = Callable[[Array, Array], float]
"""(warped, gradient to be filled) → value: images (C, X, Y, Z); buffers live as long as the closure."""

LinearMeasure = Literal["lncc", "ncc", "mse", "mi"]
"""What the linear stage can compare by."""


class Similarity(Loss, ABC):
    """A term that solvers have a kernel for.

    Attributes:
        directed: whether `channels` describe directions along the grid's axes; both images must lie on one grid first.
        linear: what stands for it in the linear stage: where the images show tissue alike, and where they do not.
    """

    directed: ClassVar[bool] = False
    linear: ClassVar[tuple[LinearMeasure, LinearMeasure]]

    @property
    def both_contrasts(self) -> bool:
        """Whether each channel is compared twice, in the contrast of either image (`similarity.mapping`)."""
        return False

    @property
    def fusable(self) -> bool:
        """Whether there is a kernel for it as it is set; a published form, for comparison, may be for training alone."""
        return True

    @property
    def trains(self) -> bool:
        """Whether it is a function of an `Alignment` alone; else solvers alone read it."""
        return True

    def used_at(self, spacing_mm: float) -> bool:  # noqa: ARG002 - most are, everywhere
        """Whether it takes part at a scale of a solver whose voxels have this size."""
        return True

    def channels_of(self, volume: "Volume") -> Array:
        """What is compared of a volume at some scale (C', X, Y, Z): `channels` of its image, for most."""
        return self.channels(volume.data)

    @abstractmethod
    def channels(self, image: Channels) -> Array:
        """What is compared in place of the image: itself, or descriptors (C', X, Y, Z)."""

    def curvature(self, warped: Channels, weight: Map1 | None, shares: Array) -> Channels | None:  # noqa: ARG002
        """Second derivative of the value by each intensity, about and not negative; None where a similarity has none, so
        that it cannot be minimised by second-order steps."""
        return None

    @abstractmethod
    def fused(self, fixed: Channels, weight: Map1 | None, shares: Array) -> Fused:
        """Value and gradient for one fixed image.

        Args:
            fixed: (C, X, Y, Z), as `channels` made it.
            weight: (1, X, Y, Z) of voxels, or None where all count.
            shares: of the channels of the image (not of `channels`), in the value.
        """
