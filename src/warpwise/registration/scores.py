"""What labels and landmarks say about a result, whether or not they guided it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from warpwise.evaluation.metrics import dice, target_errors
from warpwise.image import Image
from warpwise.io.points import matched
from warpwise.registration.prepare import Inputs
from warpwise.resampling import brought, resample
from warpwise.transforms.affine import Affine
from warpwise.transforms.base import Transform


@dataclass(frozen=True)
class Scores:
    """Before (through the headers alone) and after a registration.

    Attributes:
        dice_before, dice_after: of every label of either map but 0.
        tre_before_mm, tre_after_mm: target registration error of each landmark, by name.
    """

    dice_before: dict[int, float]
    dice_after: dict[int, float]
    tre_before_mm: dict[str, float]
    tre_after_mm: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for result.json: only what was measured."""
        out: dict[str, Any] = {}
        for name, before, after in (
            ("dice", self.dice_before, self.dice_after),
            ("tre_mm", self.tre_before_mm, self.tre_after_mm),
        ):
            if after:
                out[name] = {
                    "mean_before": round(float(np.mean([*before.values()])), 5),
                    "mean_after": round(float(np.mean([*after.values()])), 5),
                    "before": {str(k): round(v, 5) for k, v in before.items()},
                    "after": {str(k): round(v, 5) for k, v in after.items()},
                }
        return out


def scored(inputs: Inputs, transform: Transform) -> Scores:
    """Overlap of the label maps and distance of the landmarks that were given."""
    still = Affine(np.eye(transform.dim + 1))
    before, after = (overlap(inputs.labels, map_, inputs.images[0]) for map_ in (still, transform))
    if inputs.landmarks is None:
        return Scores(before, after, {}, {})
    fixed, moving, names = matched(*inputs.landmarks)
    errors = [dict(zip(names, target_errors(map_, fixed, moving).tolist(), strict=True)) for map_ in (still, transform)]
    return Scores(before, after, errors[0], errors[1])


def overlap(labels: tuple[Image | None, Image | None], transform: Transform, image: Image) -> dict[int, float]:
    """Dice of each label on the grid of the fixed image."""
    fixed, moving = labels
    if fixed is None or moving is None:
        return {}
    fixed = brought(fixed, image)
    return dice(fixed.data[0], resample(moving, image.grid, transform, interpolation="label").data[0])
