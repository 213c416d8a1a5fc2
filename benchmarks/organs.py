"""Other organs with the default preset: Dice or landmark error before and after registration.

python benchmarks/organs.py [--data DIR] [--out benchmarks/results/organs.json]
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from common import machine
from PIL import Image as Picture

import warpwise as ww
from warpwise.evaluation.metrics import dice
from warpwise.grid import Grid
from warpwise.image import Image
from warpwise.resampling import resample
from warpwise.transforms.affine import Affine

SETS = ("hippocampus-msd", "acdc", "acdc-2d", "oasis-mals-2d", "spine-multicontrast")


def label_pairs(folder: Path):
    described = json.loads((folder / "dataset.json").read_text())
    labels = [int(k) for k in described["labelsInEverySubject"]]
    for pair in described["registration_val"]:
        paths = [folder / pair[k] for k in ("fixed", "moving", "fixed_label", "moving_label")]
        yield paths, labels


def mean_dice(fixed: Image, moving: Image, transform, labels: list[int]) -> float:
    moved = resample(moving, fixed.grid, transform, interpolation="nearest").data[0]
    here = [k for k in labels if (fixed.data[0] == k).any() or (moving.data[0] == k).any()]
    return float(np.mean([*dice(fixed.data[0], moved, labels=here).values()]))


def run_labels(folder: Path) -> list[dict]:
    rows = []
    for (fixed, moving, fixed_label, moving_label), labels in label_pairs(folder):
        began = time.perf_counter()
        result = ww.register(fixed, moving)
        elapsed = time.perf_counter() - began
        a, b = ww.load_image(fixed_label, kind="labels"), ww.load_image(moving_label, kind="labels")
        rows.append({
            "pair": f"{fixed.name.split('.')[0]} ← {moving.name.split('.')[0]}",
            "before": round(mean_dice(a, b, Affine(np.eye(a.grid.dim + 1)), labels), 4),
            "affine": round(mean_dice(a, b, Affine(result.affine_only), labels), 4),
            "after": round(mean_dice(a, b, result.transform, labels), 4),
            "seconds": round(elapsed, 2),
            "percent_ndv": result.certificate.percent_ndv,
            "percent_folded": result.certificate.percent_folded,
            "warnings": list(result.warnings),
        })
    return rows


def grey(path: Path) -> Image:
    """An RGB slide as one channel (1 − luminance: tissue is bright), x and y in pixels."""
    array = np.asarray(Picture.open(path).convert("L"), np.float32).T
    return Image(np.ascontiguousarray(255 - array)[None], Grid(array.shape, np.eye(3)), name=path.name)


def landmarks(path: Path) -> np.ndarray:
    return np.loadtxt(path, delimiter=",", skiprows=1)[:, -2:]


def run_histology(folder: Path) -> list[dict]:
    described = json.loads((folder / "dataset.json").read_text())
    rows = []
    for pair in described["registration_val"]:
        fixed, moving = grey(folder / pair["fixed"]), grey(folder / pair["moving"])
        a, b = (landmarks(folder / pair[k]) for k in ("fixed_landmarks", "moving_landmarks"))
        count = min(len(a), len(b))
        began = time.perf_counter()
        result = ww.register(fixed, moving)
        elapsed = time.perf_counter() - began
        errors = [
            float(np.median(np.linalg.norm(t.points(a[:count]) - b[:count], axis=1)))
            for t in (Affine(np.eye(3)), Affine(result.affine_only), result.transform)
        ]
        rows.append({
            "pair": f"{Path(pair['fixed']).stem} ← {Path(pair['moving']).stem}",
            "before": round(errors[0], 2),
            "affine": round(errors[1], 2),
            "after": round(errors[2], 2),
            "seconds": round(elapsed, 2),
            "percent_ndv": result.certificate.percent_ndv,
            "percent_folded": result.certificate.percent_folded,
            "warnings": list(result.warnings),
        })
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/organs.json"))
    arguments = parser.parse_args()
    found = {name: run_labels(arguments.data / name) for name in SETS}
    found["histology"] = run_histology(arguments.data / "histology")
    for name, rows in found.items():
        sign = -1 if name == "histology" else 1
        worse = [r["pair"] for r in rows if sign * (r["after"] - r["before"]) < 0]
        mean = {k: round(float(np.mean([r[k] for r in rows])), 4) for k in ("before", "affine", "after", "seconds")}
        unwarned = [r["pair"] for r in rows if r["pair"] in worse and not r["warnings"]]
        print(name, len(rows), mean, "worse:", worse, "without warning:", unwarned, flush=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({"machine": machine(), "results": found}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
