"""Overlap against roughness: the descent of `balanced` and `accurate`, and the energy solver, each with its smoothness
varied, on training people (nothing here is a published comparison of presets; it is where they may be chosen).

    python benchmarks/front.py DATA
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, markdown_table

import warpwise as ww
from warpwise.evaluation.metrics import label_overlap, regularity
from warpwise.image import Image
from warpwise.io.images import read_image
from warpwise.methods import Method

HERE = Path(__file__).parent
PAIRS = ((1001, 1006), (1008, 1002), (1013, 1010), (1015, 1007))
SIGMAS = (0.5, 0.6, 0.7, 0.9)
WEIGHTS = (0.03, 0.1, 0.25, 0.6)
WANTED: list[int] = []


def settings() -> dict[tuple[str, float], Method]:
    """Every method at every smoothness."""
    out: dict[tuple[str, float], Method] = {}
    for name in ("balanced", "accurate"):
        for sigma in SIGMAS:
            out[name, sigma] = Method.named(name).changed({"objective.smoothness.field_sigma": sigma})
    for weight in WEIGHTS:
        out["energy", weight] = Method.named("energy").changed({"objective.smoothness.weight": weight})
    return out


def measured(pair: tuple[int, int], maps: list[Image], result: ww.Result) -> dict[str, Any]:
    """Overlap and roughness of one registration."""
    dice = label_overlap(*maps, result.transform, labels=WANTED)
    shape = regularity(result.transform, maps[0].grid, maps[0].data[0] > 0)
    return {
        "pair": f"{pair[0]} ← {pair[1]}",
        "dice": float(np.mean([*dice.values()])),
        "sd_log_jacobian": shape.sd_log_jacobian,
        "percent_folded": shape.percent_folded,
        "load": round(os.getloadavg()[0], 2),
        "seed": 0,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    options = parser.parse_args()
    folder = options.data / "oasis-mals"
    WANTED.extend(json.loads((folder / "dataset.json").read_text())["labelsInEverySubject"])
    content: dict[str, Any] = {**machine(), "rows": []}
    content["command"] = "python benchmarks/front.py DATA"
    for pair in PAIRS:
        images = [folder / "images" / f"{k}.nii.gz" for k in pair]
        maps = [read_image(folder / "labels" / f"{k}.nii.gz", kind="labels") for k in pair]
        for (name, value), method in settings().items():
            began = time.process_time()
            result = ww.register(*images, method=method)
            cpu = round(time.process_time() - began, 1)
            content["rows"].append({"method": name, "smoothness": value, "cpu_s": cpu, **measured(pair, maps, result)})
            print(content["rows"][-1], flush=True)
    rows = content["rows"]
    table = []
    for name, value in dict.fromkeys((r["method"], r["smoothness"]) for r in rows):
        mine = [r for r in rows if (r["method"], r["smoothness"]) == (name, value)]
        means = {k: np.mean([r[k] for r in mine]) for k in ("dice", "sd_log_jacobian", "cpu_s")}
        table.append([
            name,
            f"{value:g}",
            f"{means['dice']:.4f}",
            f"{means['sd_log_jacobian']:.3f}",
            f"{means['cpu_s']:.1f}",
        ])
    lines = [
        f"# The front of overlap and smoothness\n\n`{content['command']}`, commit {content['commit']}, {content['cpu']}.\n"
    ]
    lines.append(
        f"{len(PAIRS)} pairs of training people; smoothness is σ of the field in voxels, or the weight of diffusion.\n"
    )
    lines += markdown_table(["method", "smoothness", "mean Dice", "SDlogJ", "CPU s"], table)
    (HERE / "results" / "front.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (HERE / "results" / "front.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
