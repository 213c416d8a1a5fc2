"""Small datasets on disk, for tests of training: one anatomy, bent for every person."""

import json
from pathlib import Path

import numpy as np

from warpwise.grid import Grid
from warpwise.image import Image
from warpwise.io.images import write_image
from warpwise.ops import kernels
from warpwise.synthetic.deformations import random_velocity
from warpwise.synthetic.shapes import blob, random_shapes
from warpwise.transforms.velocity import exponential


def toy_dataset(folder: Path, *, people: int = 6, shape: tuple[int, ...] = (40, 36), seed: int = 0) -> Path:
    """Images and labels of so many people, the last two for validation; a dataset.json. Returns the folder."""
    rng = np.random.default_rng(seed)
    full = (shape[0], shape[1], shape[2]) if len(shape) == 3 else (shape[0], 1, shape[1])
    anatomy = (random_shapes(full, rng, labels=3, sigma=4.0) + 1) * (blob(full, rng) > 0)
    tones = np.array([0.0, 0.4, 0.7, 1.0], np.float32)
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    rows = []
    for n in range(people):
        bend = exponential(random_velocity(full, rng, sigma=5.0, amplitude=2.0), squarings=6)
        labels = kernels.resample(anatomy.astype(np.int16)[None], bend, np.eye(4), method="nearest")[0]
        image = kernels.gaussian(tones[labels][None], [0.6 if k > 1 else 0.0 for k in full])[0]
        image = image + 0.01 * rng.standard_normal(full, np.float32)
        grid = Grid(shape, np.eye(len(shape) + 1))
        counts = np.rint(np.clip(image, 0, 2) * 1000).astype(np.int16)
        write_image(folder / "images" / f"{n}.nii.gz", Image(counts.reshape(1, *shape), grid))
        write_image(folder / "labels" / f"{n}.nii.gz", Image(labels.astype(np.uint8).reshape(1, *shape), grid, "labels"))
        rows.append({"image": f"images/{n}.nii.gz", "label": f"labels/{n}.nii.gz"})
    a, b = rows[-2:]
    pairs = [
        {"fixed": x["image"], "moving": y["image"], "fixed_label": x["label"], "moving_label": y["label"]}
        for x, y in ((a, b), (b, a))
    ]
    content = {
        "name": "toy", "modality": {"0": "shapes"}, "labels": {"0": "air", "1": "one", "2": "two", "3": "three"},
        "training": rows[:-2], "validation": rows[-2:], "registration_val": pairs,
        "registration_train": [{**pairs[0], "fixed": rows[0]["image"], "moving": rows[1]["image"],
                                "fixed_label": rows[0]["label"], "moving_label": rows[1]["label"]}],
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


SMALL_NETWORK = {"features": [4, 6], "hidden": 6, "iterations": [1, 1]}
