"""How good a network is at the working spacing: overlap, folds, non-diffeomorphic volume."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from warpwise import ops
from warpwise.alignment import Alignment
from warpwise.data.batches import Batch, Sample, Sampler, sampled, stacked
from warpwise.evaluation.metrics import dice, percent_ndv, shared_labels
from warpwise.objective import Objective
from warpwise.ops import kernels
from warpwise.prediction import Prediction
from warpwise.registrars.learned.working import array
from warpwise.shapes import Matrix
from warpwise.similarity.codes import Codes
from warpwise.volume import Volume

Predict = Callable[[Tensor, Tensor, torch.Generator | None], Prediction]
"""Fixed and moving images, and a generator for what is random → a network's prediction: a network is such a function."""


@dataclass(frozen=True, eq=False)
class Judged:
    """How a network did; `score` is higher where it went better."""

    score: float
    figures: dict[str, float]
    shown: dict[str, Any]


def alignment_of(batch: Batch, predict: Predict, generator: torch.Generator | None = None) -> Alignment:
    """A batch under what a network says of it."""
    fixed = batch.fixed if batch.seen_fixed is None else batch.seen_fixed
    moving = batch.moving if batch.seen_moving is None else batch.seen_moving
    prediction = predict(fixed, moving, generator)
    displacement: Tensor = prediction.displacement.float()
    still = not displacement.requires_grad and not displacement.any()  # a segmentation deforms nothing

    def warped(image: Tensor) -> Tensor:
        return image if still else ops.warp(image, displacement)

    return Alignment(
        batch.fixed,
        warped(batch.moving),
        displacement,
        batch.weight,
        batch.fixed_labels,
        None if batch.moving_labels is None else warped(batch.moving_labels),
        batch.truth,
        prediction,
        batch.moving,
        batch.moving_labels,
    )


def plain(fixed: Volume, moving: Volume, world: Matrix) -> tuple[Sample, Matrix]:
    """A pair as it is, on the grid of its fixed image; and fixed index → moving index."""
    across = moving.grid.inverse_affine @ world @ fixed.grid.affine
    x, y, z = fixed.grid.shape
    image, labels = sampled(moving, across, (x, y, z), None)
    weight = np.empty((x, y, z), np.float32)
    kernels.overlap_weight(None, moving.grid.shape, across, out=weight)
    return Sample(fixed.data, image, weight, fixed.labels, labels), across


def judge(
    network: nn.Module,
    objective: Objective,
    pairs: Sequence[tuple[Volume, Volume, Matrix]],
    labels: Sequence[int],
    device: torch.device,
    *,
    structures: Codes | None = None,
) -> Judged:
    """Validate on real pairs: mean Dice of the labels both maps hold (nearest neighbour), else minus the objective.

    Of a network that tells structures apart the Dice of those with the fixed image's is measured, too, and decides where
    it moves nothing.
    """
    rows: list[dict[str, float]] = []
    shown: dict[str, Any] = {}
    for n, (fixed, moving, world) in enumerate(pairs):
        sample, across = plain(fixed, moving, world)
        with torch.no_grad():
            alignment = alignment_of(stacked([sample], None, fixed.dim).to(device), network)
            row = {"loss": float(objective(alignment))}
        field = array(alignment.displacement[0])
        logits = None if alignment.prediction is None else alignment.prediction.labels
        if logits is not None and fixed.labels is not None and structures is not None:
            there = structures.numbers(fixed.labels)
            told = logits[0].argmax(0).cpu().numpy().reshape(there.shape)
            if there.any():
                found = dice(there, told, labels=np.unique(there[there > 0]).tolist())
                row["segmentation"] = float(np.mean([*found.values()]))
        if logits is not None and not field.any():
            rows.append(row)
            continue
        determinant = kernels.determinant(field)
        inside = sample.weight > 0.5 if fixed.labels is None else fixed.labels > 0
        row["folded_percent"] = 100 * float((determinant <= 0).mean())
        row["ndv_percent"] = percent_ndv(field)
        if inside.any():
            row["sd_log_jacobian"] = float(np.log(np.maximum(determinant[inside.reshape(determinant.shape)], 1e-9)).std())
        if fixed.labels is not None and moving.labels is not None:
            warped = kernels.resample(moving.labels[None], field, across, method="nearest")[0]
            both = shared_labels(fixed.labels, moving.labels, labels)
            if both:
                assert sample.moving_labels is not None
                for name, map_ in (("dice", warped), ("dice_before", sample.moving_labels)):
                    row[name] = float(np.mean([*dice(fixed.labels, map_, labels=both).values()]))
        rows.append(row)
        if n == 0:
            shown = {
                "fixed": alignment.fixed[0, 0],
                "moving": torch.from_numpy(sample.moving[0]),
                "warped": alignment.warped[0, 0],
            }
    return summed(rows, shown)


def judge_synthetic(
    network: nn.Module, objective: Objective, sampler: Sampler, *, count: int, device: torch.device
) -> Judged:
    """Validate on made pairs that training never draws: endpoint error in voxels, where there is something to see."""
    rows: list[dict[str, float]] = []
    shown: dict[str, Any] = {}
    for n in range(count):
        # Training counts steps from 0, so these are others.
        batch = sampler.batch(1 << 30, [n]).to(device)
        with torch.no_grad():
            alignment = alignment_of(batch, network)
            row = {"loss": float(objective(alignment))}
        assert batch.truth is not None
        visible = (batch.weight > 0.5).float()
        lengths = {"endpoint": alignment.displacement - batch.truth, "endpoint_before": batch.truth}
        for name, vectors in lengths.items():
            row[name] = float(((vectors**2).sum(1, keepdim=True).sqrt() * visible).sum() / visible.sum().clamp(min=1))
        field = array(alignment.displacement[0])
        row["folded_percent"] = 100 * float((kernels.determinant(field) <= 0).mean())
        rows.append(row)
        if n == 0:
            shown = {"fixed": batch.fixed[0, 0], "moving": batch.moving[0, 0], "warped": alignment.warped[0, 0]}
    return summed(rows, shown)


def summed(rows: Sequence[dict[str, float]], shown: dict[str, Any]) -> Judged:
    """Means over pairs; the score is Dice, else that of structures, else minus the endpoint error or the loss."""
    keys = sorted({key for row in rows for key in row})
    figures = {key: float(np.mean([row[key] for row in rows if key in row])) for key in keys}
    if "dice" in figures:
        score = figures["dice"]
    elif "segmentation" in figures:
        score = figures["segmentation"]
    elif "endpoint" in figures:
        score = -figures["endpoint"]
    else:
        score = -figures.get("loss", float("inf"))
    return Judged(score, figures, shown)
