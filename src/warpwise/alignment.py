"""What a term of an objective may look at."""

from dataclasses import dataclass

from warpwise.ops.shapes import Displacement, Image, Labels, Weight
from warpwise.prediction import Prediction


@dataclass(frozen=True, eq=False)
class Alignment:
    """A batch of pairs under a displacement, as tensors.

    Attributes:
        fixed, warped: (B, C, *space).
        displacement: (B, D, *space), voxels of that grid.
        mask: (B or 1, 1, *space), 0 … 1, or None where every voxel counts.
        fixed_labels, warped_labels: (B, K, *space), share of each label in a voxel, where labels are known.
        truth: (B, D, *space), the displacement that is right, where it is known.
        prediction: all that a network predicts, where the displacement is one's.
        moving, moving_labels: (B, C or K, *space), before they were warped, for terms that warp them otherwise.
    """

    fixed: Image
    warped: Image
    displacement: Displacement
    mask: Weight | None = None
    fixed_labels: Labels | None = None
    warped_labels: Labels | None = None
    truth: Displacement | None = None
    prediction: Prediction | None = None
    moving: Image | None = None
    moving_labels: Labels | None = None
