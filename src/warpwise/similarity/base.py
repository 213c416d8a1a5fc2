"""The interface of a similarity, in two forms: a term on tensors, and a fused evaluation for solvers."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

    from warpwise.alignment import Alignment

Array = NDArray[np.float32]

Fused = Callable[[Array, Array], float]
"""(warped, gradient to be filled) → value: images (C, X, Y, Z); buffers live as long as the closure."""


class Similarity(Protocol):
    """A frozen dataclass of its settings.

    Attributes:
        directed: whether `channels` describe directions along the grid's axes; both images must lie on one grid first.
    """

    directed: bool

    def __call__(self, alignment: "Alignment") -> "Tensor":
        """0-dim tensor for a `Alignment`; differentiable, twice."""
        ...

    def channels(self, image: Array) -> Array:
        """What is compared in place of the image: itself, or descriptors (C', X, Y, Z)."""
        ...

    def fused(self, fixed: Array, weight: Array | None, channel_weights: Array) -> Fused:
        """Value and gradient for one fixed image (C, X, Y, Z); weight (1, X, Y, Z) or None."""
        ...
