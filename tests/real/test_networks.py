"""Networks on real scans: the installed one across contrasts, and a few seconds of training."""

from pathlib import Path

import numpy as np
import pytest
from asking import register

import warpwise as ww
from warpwise.evaluation.metrics import dice
from warpwise.image import Image, normalised
from warpwise.levels.history import history
from warpwise.levels.settings import TrainingSettings
from warpwise.levels.training import Run, train


@pytest.fixture(scope="module")
def brain_images(brains: tuple[Path, list[int]]) -> tuple[list[Image], list[Image], list[int]]:
    folder, labels = brains
    names = ("1000", "1001")
    images = [ww.load_image(folder / "images" / f"{n}.nii.gz") for n in names]
    maps = [ww.load_image(folder / "labels" / f"{n}.nii.gz", kind="labels") for n in names]
    return images, maps, labels


def overlap(transform: object, maps: list[Image], labels: list[int]) -> float:
    warped = ww.apply(transform, maps[1], like=maps[0], interpolation="nearest")
    return float(np.mean([*dice(maps[0].data[0], warped.data[0], labels=labels).values()]))


@pytest.mark.parametrize("contrast", ["same", "inverted"])
def test_the_installed_network_beats_the_affine_stage_whatever_the_contrast(brain_images, contrast: str):
    (fixed, moving), maps, labels = brain_images
    if contrast == "inverted":
        values = normalised(moving.data[0])
        moving = Image(np.where(values > 0.02, 1.2 - values, 0)[None].astype(np.float32), moving.grid)
    found = register(fixed, moving, model="synthetic")
    linear = register(fixed, moving, transform="affine")
    assert overlap(found.transform, maps, labels) > overlap(linear.transform, maps, labels) + GAIN
    assert found.certificate.percent_ndv == 0
    assert found.certificate.forward_inverse_max < 0.1
    assert found.warnings == ()


GAIN = 0.02  # Dice; benchmarks/results/learning_checks.json has more


def test_seconds_of_training_on_hippocampi_beat_the_affine_stage(data: Path, tmp_path: Path):
    settings = TrainingSettings.parse({
        "data": {"dataset": str(data / "hippocampus-msd"), "pairs": "all", "spacing_mm": 1.0},
        "objective": {"lncc": {"radius": 3}, "diffusion": {"weight": 0.1}, "dice": {}},
        "optimizer": {"schedule": "constant"},
        "steps": 60, "validate_every": 60, "validation_pairs": 8, "batch": 2,
    })  # fmt: skip
    train(settings, Run(tmp_path / "run"))
    last = [row for row in history(tmp_path / "run") if row["kind"] == "validation"][-1]
    assert last["dice"] > last["dice_before"] + 0.02
    assert last["folded_percent"] == 0
