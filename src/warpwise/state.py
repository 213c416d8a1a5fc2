"""What a term of an objective may look at."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class State:
    """A batch of pairs under a displacement, as tensors.

    Attributes:
        fixed, warped: (B, C, *space).
        displacement: (B, D, *space), voxels of that grid.
        weight: (B or 1, 1, *space), 0 … 1, or None where every voxel counts.
    """

    fixed: Tensor
    warped: Tensor
    displacement: Tensor
    weight: Tensor | None = None
