"""Folds under stress, random poses, known PD-to-T1 transforms, repeatability.

python benchmarks/robustness.py [folds poses contrast repeat] [--data DIR] [--out benchmarks/results/robustness.json]
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from common import machine, solver

import warpwise as ww
from warpwise.grid import Grid
from warpwise.image import Image
from warpwise.ops import kernels
from warpwise.registrars.deformable.work import ScaleSettings
from warpwise.regularizers.gaussian import Gaussian
from warpwise.synthetic.deformations import random_affine, random_rotation, small_rotation
from warpwise.volume import shrink


def folds(data: Path, count: int = 1000) -> dict:
    """Small images under violent settings: large steps, hardly any smoothing, noise, unrelated content."""
    rng = np.random.default_rng(0)
    worst = {"percent_folded": 0.0, "percent_ndv": 0.0, "forward_inverse_max": 0.0, "inverse_forward_max": 0.0}
    repaired = 0
    for k in range(count):
        planar = k % 5 == 4
        shape = tuple(int(n) for n in rng.integers(10, 28, 2 if planar else 3))
        sigma = float(rng.uniform(0.5, 2.5))
        images = []
        for _ in range(2):
            noise = rng.standard_normal((1, *shape)).astype(np.float32)
            axes = [sigma] * len(shape) if not planar else [sigma, 0.0, sigma]
            smooth = kernels.gaussian(noise.reshape(1, *Grid(shape, np.eye(len(shape) + 1)).embedded().shape), axes)
            images.append(Image(smooth.reshape(1, *shape), Grid(shape, np.eye(len(shape) + 1))))
        scale = ScaleSettings(
            image=0, field=int(rng.integers(0, 2)), iterations=30, radius=int(rng.integers(1, 4)), step=1.0
        )
        smoothness = Gaussian(update_sigma=float(rng.uniform(0.3, 0.8)), field_sigma=float(rng.uniform(0, 0.3)))
        method = solver(transform=("greedy", "svf", "symmetric")[k % 3], similarity=("lncc", "mse")[k % 2])
        registrar = method.registrar.replace(scales=(scale.replace(image=1, field=1), scale), cap=2.0)
        terms = {**method.objective, "smoothness": smoothness}
        result = ww.register(*images, method=method.replace(registrar=registrar, objective=terms, cautious=None))
        found = result.certificate.to_dict()
        repaired += found["repaired_cells"] > 0
        worst = {key: max(value, found[key]) for key, value in worst.items()}
    return {"pairs": count, "worst": worst, "pairs_repaired_at_the_end": repaired}


def halved(path: Path) -> Image:
    """An image at twice its spacing."""
    image = ww.load_image(path)
    data = shrink(image.data.astype(np.float32), (2, 2, 2))
    return Image(data, Grid(data.shape[1:], image.grid.affine @ np.diag([2.0, 2.0, 2.0, 1.0])), name=path.name)


def poses(data: Path, count: int = 200) -> dict:
    """Brains at 2 mm in any rotation, up to 100 mm away: half with themselves, half with another person's."""
    folder = data / "oasis-mals" / "images"
    images = [halved(path) for path in sorted(folder.glob("*.nii.gz"))]
    rng = np.random.default_rng(1)
    out = {"same person": [], "other person": []}
    seconds = []
    for k in range(count):
        a = int(rng.integers(len(images)))
        b = a if k % 2 == 0 else int((a + rng.integers(1, len(images))) % len(images))
        fixed, moving = images[a], images[b]
        centre = (moving.grid.affine @ [*(np.array(moving.grid.shape) - 1) / 2, 1])[:3]
        pose = random_affine(rng, centre_mm=centre, rotation=random_rotation(rng), shift_mm=rng.uniform(0, 100))
        posed = Image(moving.data, Grid(moving.grid.shape, pose.matrix @ moving.grid.affine), name="posed")
        began = time.perf_counter()
        result = ww.register(fixed, posed, method="rigid")
        seconds.append(time.perf_counter() - began)
        # What is left of the pose: nothing for oneself, the anatomy's own tilt for another person.
        left = np.linalg.inv(pose.matrix) @ result.affine_only
        angle = np.degrees(np.arccos(np.clip((np.trace(left[:3, :3]) - 1) / 2, -1, 1)))
        miss = np.linalg.norm(left[:3] @ [*centre, 1] - centre) if a == b else 0.0
        recovered = (angle < 3 and miss < 3) if a == b else angle < 20
        out["same person" if a == b else "other person"].append(bool(recovered))
    return {
        "poses": count,
        "percent_recovered": {k: 100 * float(np.mean(v)) for k, v in out.items()},
        "seconds_median": round(float(np.median(seconds)), 3),
        "seconds_max": round(float(np.max(seconds)), 3),
    }


def contrast(data: Path) -> dict:
    """PD moved by ten known transforms (rotations up to 40°, shifts up to 40 mm, half of them affine), back to T1 by MI.

    The headers of the two scans do not agree (by 12 mm), so the truth is the answer for the scan that was not moved,
    and that is compared with what ANTs' rigid registration by MI says, an independent program.
    """
    folder = data / "multicontrast"
    fixed, moving = (ww.load_image(next(folder.rglob(f"chris_{name}.nii.gz"))) for name in ("t1", "PD"))
    rng = np.random.default_rng(2)
    inside = np.argwhere(moving.data[0] > 0.3 * np.percentile(moving.data[0], 99))[::500]
    body = inside @ moving.grid.affine[:3, :3].T + moving.grid.affine[:3, 3]
    rows = []
    still = {
        kind: ww.register(fixed, moving, method=solver(transform=kind, similarity="mi")).affine_only
        for kind in ("rigid", "affine")
    }
    for k in range(10):
        affine = k >= 5
        centre = body.mean(0)
        known = random_affine(
            rng, centre_mm=centre, rotation=small_rotation(rng, degrees=float(rng.uniform(5, 40))),
            shift_mm=float(rng.uniform(0, 40)), scaling=0.08 * affine, shear=0.05 * affine,
        )  # fmt: skip
        posed = Image(moving.data, Grid(moving.grid.shape, known.matrix @ moving.grid.affine), name="posed PD")
        result = ww.register(fixed, posed, method=solver(transform="affine" if affine else "rigid", similarity="mi"))
        found = np.linalg.inv(known.matrix) @ result.affine_only
        kind = "affine" if affine else "rigid"
        rows.append({
            "kind": kind,
            "error_mm": distance(found, still[kind], body),
            "start": result.choices.start,
            "warnings": list(result.warnings),
        })
    errors = [row["error_mm"] for row in rows]
    return {
        "transforms": rows,
        "median_error_mm": round(float(np.median(errors)), 3),
        "worst_error_mm": max(errors),
        "rigid_against_ants_mm": distance(still["rigid"], ants_rigid(folder), body),
    }


def distance(a: np.ndarray, b: np.ndarray, body: np.ndarray) -> float:
    """Mean distance (mm) between where two matrices send points."""
    return round(float(np.linalg.norm(body @ (a - b)[:3, :3].T + (a - b)[:3, 3], axis=1).mean()), 3)


def ants_rigid(folder: Path) -> np.ndarray:
    """The rigid matrix (RAS) that ANTs finds by mutual information."""
    import ants

    fixed, moving = (ants.image_read(str(next(folder.rglob(f"chris_{name}.nii.gz")))) for name in ("t1", "PD"))
    found = ants.registration(fixed, moving, "Rigid", aff_metric="mattes")
    return ww.load_transform(found["fwdtransforms"][0]).matrix


def repeat(data: Path) -> dict:
    """The same transform to the bit: twice with 2 threads, once with 1."""
    folder = data / "oasis-mals" / "images"
    fields = []
    for threads in (2, 2, 1):
        ww.set_threads(threads)
        fields.append(ww.register(folder / "1002.nii.gz", folder / "1006.nii.gz").displacement_mm)
    ww.set_threads(2)
    return {
        "repeat_identical": bool(np.array_equal(fields[0], fields[1])),
        "threads_identical": bool(np.array_equal(fields[0], fields[2])),
    }


TASKS = {"folds": folds, "poses": poses, "contrast": contrast, "repeat": repeat}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("tasks", nargs="*", default=[*TASKS])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/robustness.json"))
    arguments = parser.parse_args()
    found = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    for name in arguments.tasks or TASKS:
        began = time.perf_counter()
        found[name] = {
            **TASKS[name](arguments.data),
            "elapsed_s": round(time.perf_counter() - began, 1),
            "machine": machine(),
        }
        print(name, {k: v for k, v in found[name].items() if k != "machine"}, flush=True)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
