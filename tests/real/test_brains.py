"""Real scans, when they are at hand: accuracy, memory of what peers reach, no folds."""

import json
from pathlib import Path

import numpy as np
import pytest
from asking import register

import warpwise as ww
from warpwise.evaluation.metrics import dice
from warpwise.grid import Grid
from warpwise.image import Image
from warpwise.resampling import resample
from warpwise.synthetic.deformations import random_affine, random_rotation
from warpwise.transforms.affine import Affine
from warpwise.volume import shrink


def score(result: ww.Result, folder: Path, pair: tuple[str, str], labels: list[int]) -> float:
    fixed, moving = (ww.load_image(folder / "labels" / f"{name}.nii.gz", kind="labels") for name in pair)
    moved = resample(moving, fixed.grid, result.transform, interpolation="nearest")
    return float(np.mean([*dice(fixed.data[0], moved.data[0], labels=labels).values()]))


@pytest.mark.parametrize(("preset", "least"), [("fast", 0.625), ("balanced", 0.64)])
def test_two_people_at_full_resolution(preset: str, least: float, brains: tuple[Path, list[int]]):
    # A training pair; greedy reaches 0.62 to 0.63 on such pairs (benchmarks/results/peers.md).
    folder, labels = brains
    pair = ("1002", "1006")
    result = register(*(folder / "images" / f"{name}.nii.gz" for name in pair), preset=preset)
    assert score(result, folder, pair, labels) > least
    found = result.certificate
    assert (found.percent_folded, found.percent_ndv) == (0, 0)
    assert found.forward_inverse_mean <= 0.01
    assert max(found.forward_inverse_max, found.inverse_forward_max) <= 0.1
    assert result.warnings == ()


def test_the_affine_stage_is_as_good_as_that_of_others(brains: tuple[Path, list[int]]):
    folder, labels = brains
    pair = ("1002", "1006")
    result = register(*(folder / "images" / f"{name}.nii.gz" for name in pair), transform="affine")
    assert score(result, folder, pair, labels) > 0.43


def test_heads_in_any_pose_are_found(brains: tuple[Path, list[int]]):
    folder, _ = brains
    images = []
    for name in ("1007", "1008"):
        image = ww.load_image(folder / "images" / f"{name}.nii.gz")
        data = shrink(image.data.astype(np.float32), (2, 2, 2))
        images.append(Image(data, Grid(data.shape[1:], image.grid.affine @ np.diag([2.0, 2.0, 2.0, 1.0]))))
    fixed, moving = images
    upright = register(fixed, moving, transform="rigid").affine_only
    rng = np.random.default_rng(5)
    centre = (moving.grid.affine @ [*(np.array(moving.grid.shape) - 1) / 2, 1])[:3]
    for _ in range(8):
        pose = random_affine(rng, centre_mm=centre, rotation=random_rotation(rng), shift_mm=float(rng.uniform(0, 100)))
        posed = Image(moving.data, Grid(moving.grid.shape, pose.matrix @ moving.grid.affine))
        found = np.linalg.inv(pose.matrix) @ register(fixed, posed, transform="rigid").affine_only
        corners = np.array([[x, y, z, 1.0] for x in (0, 75) for y in (0, 100) for z in (0, 80)]) @ fixed.grid.affine.T
        assert np.linalg.norm(corners @ (found - upright)[:3].T, axis=1).max() < 4


@pytest.mark.parametrize("name", ["hippocampus-msd", "acdc", "acdc-2d", "oasis-mals-2d", "spine-multicontrast"])
def test_no_pair_of_other_organs_ends_worse_than_it_began(name: str, data: Path):
    folder = data / name
    described = json.loads((folder / "dataset.json").read_text())
    wanted = [int(k) for k in described["labelsInEverySubject"]]
    for pair in described["registration_val"][:4]:
        fixed, moving = (ww.load_image(folder / pair[k], kind="labels") for k in ("fixed_label", "moving_label"))
        result = register(folder / pair["fixed"], folder / pair["moving"])
        scores = []
        for transform in (Affine(np.eye(fixed.grid.dim + 1)), result.transform):
            moved = resample(moving, fixed.grid, transform, interpolation="nearest")
            scores.append(np.mean([*dice(fixed.data[0], moved.data[0], labels=wanted).values()]))
        # The neck's scans are of one session: there is nothing to gain, and not half a percent may be lost.
        assert scores[1] > scores[0] - (0.005 if name == "spine-multicontrast" else 0)
        assert (result.certificate.percent_folded, result.certificate.percent_ndv) == (0, 0)


def test_pd_is_brought_back_to_t1_by_mutual_information(data: Path):
    folder = data / "multicontrast"
    fixed, moving = (ww.load_image(next(folder.rglob(f"chris_{name}.nii.gz"))) for name in ("t1", "PD"))
    still = register(fixed, moving, transform="rigid", similarity="mi").affine_only
    rng = np.random.default_rng(0)
    centre = (moving.grid.affine @ [*(np.array(moving.grid.shape) - 1) / 2, 1])[:3]
    for _ in range(3):
        turn = random_affine(rng, centre_mm=centre, rotation=np.eye(3), shift_mm=30)
        posed = Image(moving.data, Grid(moving.grid.shape, turn.matrix @ moving.grid.affine))
        found = np.linalg.inv(turn.matrix) @ register(fixed, posed, transform="rigid", similarity="mi").affine_only
        corners = np.array([[x, y, z, 1.0] for x in (-70, 70) for y in (-90, 60) for z in (0, 90)])
        assert np.linalg.norm(corners @ (found - still)[:3].T, axis=1).max() < 1
