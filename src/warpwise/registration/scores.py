"""What labels and landmarks say about a result, whether or not they guided it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from warpwise.evaluation.metrics import label_overlap, target_errors
from warpwise.io.points import matched
from warpwise.io.scan import Scans
from warpwise.resampling import brought
from warpwise.transforms.affine import Affine
from warpwise.transforms.base import Transform


@dataclass(frozen=True)
class Scores:
    """Before (through the headers alone) and after a registration.

    Attributes:
        dice_before, dice_after: of every label but 0 that both maps hold (`label_overlap`).
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


def scored(scans: Scans, transform: Transform) -> Scores | None:
    """Overlap of the label maps and distance of the landmarks that were given; None where there are neither."""
    if scans[0].labels is None and scans[0].landmarks is None:
        return None
    still = Affine(np.eye(transform.dim + 1))
    before, after = (overlap(scans, map_) for map_ in (still, transform))
    if scans[0].landmarks is None or scans[1].landmarks is None:
        return Scores(before, after, {}, {})
    fixed, moving, names = matched(scans[0].landmarks, scans[1].landmarks)
    errors = [dict(zip(names, target_errors(map_, fixed, moving).tolist(), strict=True)) for map_ in (still, transform)]
    return Scores(before, after, errors[0], errors[1])


def overlap(scans: Scans, transform: Transform) -> dict[int, float]:
    """Dice of each label that both maps hold, on the grid of the fixed image."""
    fixed, moving = (scan.labels for scan in scans)
    if fixed is None or moving is None:
        return {}
    return label_overlap(brought(fixed, scans[0].image), moving, transform)
