"""Whole brains cut into thick slices: Dice of their own 1 mm labels under what was found between the slices, and SDlogJ.

    python benchmarks/thick_slices.py DATA --as after --people validation

Slices are averages of 1 mm voxels along an axis. Training pairs are those that presets were chosen on. The energy solver
steps otherwise. An older checkout: PYTHONPATH=OLD/src … --as before --commit ITS. Every row carries commit and load.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, markdown_table
from front import PAIRS

import warpwise as ww
from warpwise.evaluation.metrics import label_overlap, regularity
from warpwise.grid import Grid
from warpwise.image import Image
from warpwise.io.datasets import read_dataset
from warpwise.io.images import read_image

HERE = Path(__file__).parent
CUTS = {"6 mm ← 3 mm, across": ((2, 6), (2, 3)), "5 mm ← 5 mm, crosswise": ((1, 5), (2, 5))}
METHODS = ("fast", "balanced", "accurate")


def slices(image: Image, axis: int, thickness: int) -> Image:
    """Averages of so many voxels along an axis, rounded as scanners do."""
    data = np.moveaxis(image.data.astype(np.float32), axis + 1, 0)
    count = len(data) // thickness
    data = data[: count * thickness].reshape(count, thickness, *data.shape[1:]).mean(1)
    affine = image.grid.affine.copy()
    affine[:3, 3] += affine[:3, axis] * (thickness - 1) / 2
    affine[:3, axis] *= thickness
    data = np.ascontiguousarray(np.rint(np.moveaxis(data, 0, axis + 1)).astype(np.int16))
    return Image(data, Grid(data.shape[1:], affine), name=image.name)


def pairs(data: Path, people: str) -> list[tuple[str, str]]:
    if people == "training":
        return [(str(f), str(m)) for f, m in PAIRS["training"]]
    return [(f.title, m.title) for f, m in read_dataset(data / "oasis-mals").validation_pairs]


def measured(data: Path, people: str, commit: str) -> list[dict[str, Any]]:
    folder = data / "oasis-mals"
    wanted = [int(k) for k in json.loads((folder / "dataset.json").read_text())["labelsInEverySubject"]]
    rows: list[dict[str, Any]] = []
    for names in pairs(data, people):
        images = [read_image(folder / "images" / f"{n}.nii.gz") for n in names]
        maps = [read_image(folder / "labels" / f"{n}.nii.gz", kind="labels") for n in names]
        for case, cut in CUTS.items():
            fixed, moving = (slices(i, *c) for i, c in zip(images, cut, strict=True))
            for method in METHODS:
                began, cpu = time.perf_counter(), time.process_time()
                transform = ww.register(fixed, moving, method=method).transform
                wall, cpu = time.perf_counter() - began, time.process_time() - cpu
                values = label_overlap(*maps, transform, labels=wanted)
                shape = regularity(transform, maps[0].grid, maps[0].data[0] > 0)
                rows.append(
                    {
                        "pair": " ← ".join(names), "case": case, "method": method,
                        "dice": round(float(np.mean([*values.values()])), 4),
                        "sd_log_jacobian": round(shape.sd_log_jacobian, 4), "folded": shape.percent_folded,
                        "seconds": round(wall, 2), "cpu_s": round(cpu, 2),
                        "load": round(os.getloadavg()[0], 2), "commit": commit, "seed": 0,
                    }
                )  # fmt: skip
        print(names, {r["method"]: r["dice"] for r in rows if r["pair"] == " ← ".join(names)}, flush=True)
    return rows


def report(content: dict[str, dict[str, Any]]) -> str:
    """All runs as Markdown: Dice (lowest pair), SDlogJ, CPU seconds."""
    told = "Mean Dice (lowest pair), SDlogJ, folded %, median CPU seconds. Folds are counted on\nthe whole 1 mm grid, "
    told += "which goes on where the field has ended with the last slice."
    lines = ["# Brains in thick slices", "", told, ""]
    for name, run in content.items():
        lines.append(f"{name}: `{run['command']}`, commit {run['commit']}, {run['cpu']}, load {run['load']}.")
    for people in ("training", "validation"):
        runs = {n.split(", ")[0]: run["rows"] for n, run in content.items() if n.endswith(people)}
        if not runs:
            continue
        table = []
        for case in CUTS:
            for method in METHODS:
                cells = []
                for rows in runs.values():
                    of = [r for r in rows if (r["case"], r["method"]) == (case, method)]
                    dice = [r["dice"] for r in of]
                    rough, folded = (float(np.mean([r[k] for r in of])) for k in ("sd_log_jacobian", "folded"))
                    cpu = float(np.median([r["cpu_s"] for r in of]))
                    cells.append(f"{np.mean(dice):.3f} ({min(dice):.3f}), {rough:.3f}, {folded:g}, {cpu:.1f} s")
                table.append([f"{case}, {method}", *cells])
        count = len({r["pair"] for r in next(iter(runs.values()))})
        lines += ["", f"## {count} {people} pairs", "", *markdown_table(["", *runs], table)]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--as", dest="name", choices=("before", "after"), default="after")
    parser.add_argument("--people", choices=("training", "validation"), default="validation")
    parser.add_argument("--commit", default="", help="of the code that is run, where that is not this checkout's")
    options = parser.parse_args()
    if (options.name == "before") != bool(options.commit):
        parser.error("--commit belongs to --as before, whose code is not this checkout's")
    run = machine()
    run["commit"] = options.commit or run["commit"]
    run["command"] = f"python benchmarks/thick_slices.py DATA --as {options.name} --people {options.people}"
    if options.commit:
        run["command"] = f"PYTHONPATH=OLD/src {run['command']} --commit {options.commit}"
    run["load"] = round(os.getloadavg()[0], 2)
    run["rows"] = measured(options.data, options.people, run["commit"])
    target = HERE / "results" / "thick_slices.json"
    content = json.loads(target.read_text()) if target.exists() else {}
    content[f"{options.name}, {options.people}"] = run
    target.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    target.with_suffix(".md").write_text(report(content))


if __name__ == "__main__":
    main()
