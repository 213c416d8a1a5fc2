"""A first configuration for a dataset, by looking at its images; commented, for people to change."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from warpwise.grid import Grid
from warpwise.io.datasets import Dataset, read_dataset
from warpwise.io.images import read_geometry
from warpwise.io.scan import Scan, read_both
from warpwise.methods import ImageSettings
from warpwise.networks import NETWORKS
from warpwise.registrars.linear.contrast import ALIKE, agreement
from warpwise.registration.prepare import prepare

LOOKED_AT = 24  # images at most whose headers are read
VOXELS = 1.2e6  # that a network sees at full resolution; more, and the spacing is doubled
SPAN = 16  # voxels along an axis that may still be halved


@dataclass(frozen=True)
class Look:
    """What was seen of a dataset.

    Attributes:
        shapes: smallest, median and largest number of voxels along each upright axis.
        spacing_mm: median along each upright axis; alike: agreement of contrast, 1 is the same.
        shared: whether the pairs that are listed lie on one grid.
    """

    shapes: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    spacing_mm: tuple[float, ...]
    alike: float
    shared: bool


def look(dataset: Dataset) -> Look:
    """Read headers of some images, and compare the contrast of two."""
    scans = [*dataset.training, *(scan for pair in dataset.training_pairs for scan in pair), *dataset.validation]
    scans = list(dict.fromkeys(scans)) or [scan for pair in dataset.validation_pairs for scan in pair]
    grids = [read_geometry(scan.image).grid for scan in scans[:LOOKED_AT]]
    shapes = np.array([[g.shape[axis] for axis in g.towards_ras()[0]] for g in grids])
    spacing = np.array([[g.spacing_mm[axis] for axis in g.towards_ras()[0]] for g in grids])
    pairs = dataset.training_pairs or dataset.validation_pairs
    first = pairs[0] if pairs else (scans[0], scans[min(1, len(scans) - 1)])
    sizes = tuple(tuple(int(v) for v in reduce(shapes, axis=0)) for reduce in (np.min, np.median, np.max))
    shared = bool(pairs) and all(on_one_grid(a, b) for a, b in pairs[:8])
    return Look(
        (sizes[0], sizes[1], sizes[2]), tuple(round(float(v), 4) for v in np.median(spacing, axis=0)), same(first), shared
    )  # fmt: skip


def on_one_grid(one: Scan, other: Scan) -> bool:
    """Whether two scans have the same voxels in the world."""
    a, b = (read_geometry(scan.image).grid for scan in (one, other))
    return a.shape == b.shape and a.same_as(b)


def same(pair: Sequence[Scan]) -> float:
    """Agreement of contrast of two scans, as `register` judges it after bringing their middles together."""
    ready = prepare(read_both(pair[0].image, pair[1].image), ImageSettings()).pair
    grids = ready.fixed.grid, ready.moving.grid
    middles = [(np.array(grid.shape) - 1) / 2 for grid in grids]
    matrix = grids[1].inverse_affine @ grids[0].affine
    matrix[:3, 3] = middles[1] - matrix[:3, :3] @ middles[0]
    return agreement(ready.moved(matrix))


def starter(path: Path, *, allow_outside: bool = False) -> str:
    """The text of a configuration.

    Raises:
        InputError: the dataset cannot be read.
    """
    dataset = read_dataset(path, allow_outside=allow_outside)
    survey = look(dataset)
    spacing, why = chosen_spacing(survey)
    motion = survey.shared and bool(dataset.training_pairs)
    mixed = survey.alike <= ALIKE
    voxels = np.prod([n * a / b for n, a, b in zip(survey.shapes[1], survey.spacing_mm, spacing, strict=True)])
    batch = 2 if voxels < 2e5 else 1
    labelled = any(s.labels for s in (*dataset.training, *(x for p in dataset.training_pairs for x in p)))
    grid = Grid(survey.shapes[1], np.eye(len(spacing) + 1))
    small = [n for n in grid.shape if n < SPAN]
    terms = [
        "  mind: {weight: 1.0}              # contrasts differ, so structure is compared"
        if mixed
        else "  lncc: {weight: 1.0, radius: 3}",
        "  diffusion: {weight: 0.1}         # more: smoother",
    ]
    if labelled:
        terms.append("  dice: {weight: 1.0}              # labels of the training images; 0 trains without them")
    pairs = "listed" if dataset.training_pairs else "all"
    shapes = [("×".join(map(str, s))) for s in survey.shapes]
    lines = [
        f"# {dataset.name}: {len(dataset.training)} training images, {len(dataset.training_pairs)} listed training pairs, "
        f"{len(dataset.validation_pairs)} validation pairs.",
        f"# Voxels: {shapes[0]} (smallest), {shapes[1]} (median), {shapes[2]} (largest); "
        f"spacing {'×'.join(f'{s:g}' for s in survey.spacing_mm)} mm.",
        f"# Contrast of two images, not aligned yet, agrees to {survey.alike:.2f} (1: one image twice; two people in one "
        f"contrast: 0.4 or so; below {ALIKE} contrasts count as different).",
        *(
            [f"# Only {min(small)} voxels along an axis: coarse scales have {max(1, min(small) // 8)} or so."]
            if small
            else []
        ),
        "",
        f"network: {{kind: pyramid}}           # or {', '.join(name for name in NETWORKS if name != 'pyramid')};",
        "#                                    its options beside kind: features, hidden, iterations, labels …;",
        "#                                    features, cascade and segmentation want other terms, too: docs/learning.md",
        "data:",
        f"  dataset: {path}",
        f"  pairs: {pairs}                    # all, subject, listed (registration_train), atlas",
        f"  spacing_mm: {list(spacing)}      # {why}",
        f"  alignment: {'none' if motion else 'affine'}                # none, rigid or affine, found once by the solver",
        f"  labels: []                       # all {len(dataset.averaged)} of the dataset",
        "objective:",
        *terms,
        "augmentation:",
        "  rotation_degrees: 10",
        "  scaling: 0.1",
        "  flip: true                       # mirrors both images of a pair; false where the side matters",
        f"  apart: {0.05 if motion else 0.2}                      # share of that motion that the moving image makes alone",
        f"  contrast: {0.5 if mixed else 0.0}                    # probability of a random contrast, image by image",
        "  judge_clean: false               # true: noise, shading and contrast are for the network's eyes only",
        "optimizer: {learning_rate: 0.001, schedule: cosine}",
        "steps: 2000",
        f"batch: {batch}",
        "validate_every: 100              # best/ has the highest mean Dice then (without label maps: the least loss)",
        "validation_pairs: 12             # at most so many; 0: all",
        "seed: 0",
        f"licence: {dataset.licence!r}",
        "",
    ]
    return "\n".join(lines)


def chosen_spacing(survey: Look) -> tuple[tuple[float, ...], str]:
    """Spacing for the network's voxels, and why."""
    voxels = float(np.prod(survey.shapes[1]))
    if voxels <= VOXELS:
        return survey.spacing_mm, "the images' own"
    finest = min(survey.spacing_mm)
    target = round(2 * finest, 3)
    return tuple(
        max(target, s) for s in survey.spacing_mm
    ), f"twice the images': they have {voxels / 1e6:.1f} million voxels"
