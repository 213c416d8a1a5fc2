"""The similarity that is chosen by contrast."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from warpwise.shapes import Array, Channels, Map1
from warpwise.similarity.base import Fused, LinearMeasure, Similarity
from warpwise.similarity.local import LNCC

if TYPE_CHECKING:
    from torch import Tensor

    from warpwise.alignment import Alignment


class Auto(Similarity):
    """LNCC, mapped where the images do not show tissue alike; solvers measure which holds (`Mapping.likeness`).

    On tensors, where nothing is measured first, it is LNCC.
    """

    term: Literal["auto"] = "auto"
    radius: int | None = Field(default=None, ge=0)
    linear: ClassVar[tuple[LinearMeasure, LinearMeasure]] = ("lncc", "mi")

    def __call__(self, alignment: "Alignment") -> "Tensor":
        return settled(self, alike=True)(alignment)

    def channels(self, image: Channels) -> Array:
        return settled(self, alike=True).channels(image)

    def fused(self, fixed: Channels, weight: Map1 | None, shares: Array) -> Fused:
        return settled(self, alike=True).fused(fixed, weight, shares)


def settled(similarity: Similarity, *, alike: bool) -> Similarity:
    """What a similarity means for images that show tissue alike, or do not: the one place where "auto" is decided."""
    if not isinstance(similarity, Auto):
        return similarity
    weight, scale = similarity.weight, similarity.scale
    return LNCC(weight=weight, scale=scale, radius=similarity.radius, mapped=not alike)
