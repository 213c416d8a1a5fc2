"""Overlap against roughness: the descent of `balanced` and `accurate`, the energy solver and greedy, each with its
smoothness varied.

    python benchmarks/front.py DATA --people training     # where presets may be chosen
    python benchmarks/front.py DATA --people validation --greedy PYTHON   # where they are scored, once

Four pairs each; PYTHON is an interpreter with picsl_greedy.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, markdown_table
from contrasts import greedy

import warpwise as ww
from warpwise.evaluation.metrics import dice as overlap
from warpwise.evaluation.metrics import label_overlap, regularity, shared_labels
from warpwise.io.images import read_image
from warpwise.io.transforms import read_transform
from warpwise.methods import Method

HERE = Path(__file__).parent
PAIRS = {
    "training": ((1001, 1006), (1008, 1002), (1013, 1010), (1015, 1007)),
    "validation": ((1012, 1014), (1014, 1017), (1017, 1036), (1036, 1012)),
}
SIGMAS = (0.5, 0.6, 0.7, 0.9)
WEIGHTS = (0.03, 0.1, 0.25, 0.6)
WIDTHS = (0.5, 0.707, 1.0, 1.4)  # of greedy's field, voxels; 0.707 is its own
SUBCORTICAL = (23, 30, 31, 32, 36, 37, 47, 48, 55, 56, 57, 58, 59, 60)
Found = tuple[dict[int, float], float, float, float]
"""Dice of every label, SDlogJ, per cent folded, CPU seconds."""


def ours(method: Method, paths: list[Path], maps: list[ww.Image], wanted: list[int]) -> Found:
    began = time.process_time()
    result = ww.register(*paths, method=method)
    cpu = time.process_time() - began
    shape = regularity(result.transform, maps[0].grid, maps[0].data[0] > 0)
    return label_overlap(*maps, result.transform, labels=wanted), shape.sd_log_jacobian, shape.percent_folded, cpu


def theirs(python: str, width: float, paths: list[Path], maps: list[ww.Image], wanted: list[int]) -> Found:
    with tempfile.TemporaryDirectory() as folder:
        images = [read_image(path) for path in paths]
        kept = Path(folder) / "warp.nii.gz"
        warped, cpu, _ = greedy(python, *images, maps[1], measure="NCC 2x2x2", width=width, keep=kept)
        shape = regularity(read_transform(kept, kind="displacement"), maps[0].grid, maps[0].data[0] > 0)
    values = overlap(maps[0].data[0], warped.data[0], labels=wanted)
    return values, shape.sd_log_jacobian, shape.percent_folded, cpu


def settings(python: str) -> dict[tuple[str, float], Callable[..., Found]]:
    """Every method at every smoothness."""

    def of(method: Method) -> Callable[..., Found]:
        return lambda *given: ours(method, *given)

    out: dict[tuple[str, float], Callable[..., Found]] = {}
    for name in ("balanced", "accurate"):
        for sigma in SIGMAS:
            out[name, sigma] = of(Method.named(name).changed({"objective.smoothness.field_sigma": sigma}))
    for weight in WEIGHTS:
        out["energy", weight] = of(Method.named("energy").changed({"objective.smoothness.weight": weight}))
    for width in WIDTHS if python else ():
        out["greedy, NCC", width] = lambda *given, width=width: theirs(python, width, *given)
    return out


def report(content: dict[str, Any]) -> str:
    """Means over pairs as Markdown, a table for each set of people."""
    lines = ["# The front of overlap and smoothness", ""]
    for people, run in content.items():
        lines += [f"## Four pairs of {people} people", "", f"`{run['command']}`, commit {run['commit']}, {run['cpu']}.", ""]
        table: list[list[str]] = []
        for name, value in dict.fromkeys((r["method"], r["smoothness"]) for r in run["rows"]):
            mine = [r for r in run["rows"] if (r["method"], r["smoothness"]) == (name, value)]
            means = {k: np.mean([r[k] for r in mine]) for k in ("dice", "subcortical", "sd_log_jacobian", "cpu_s")}
            cells = [f"{means[k]:.4f}" for k in ("dice", "subcortical")]
            table.append([name, f"{value:g}", *cells, f"{means['sd_log_jacobian']:.3f}", f"{means['cpu_s']:.1f}"])
        head = ["method", "smoothness", "mean Dice", "subcortical", "SDlogJ", "CPU s"]
        lines += [*markdown_table(head, table), ""]
    return "\n".join([*lines, "Smoothness: σ of the field in voxels, or the weight of diffusion."]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--people", choices=PAIRS, default="training")
    parser.add_argument("--greedy", default="")
    options = parser.parse_args()
    folder = options.data / "oasis-mals"
    averaged = json.loads((folder / "dataset.json").read_text())["labelsInEverySubject"]
    run: dict[str, Any] = {**machine(), "rows": []}
    run["command"] = f"python benchmarks/front.py DATA --people {options.people}" + (
        " --greedy PYTHON" if options.greedy else ""
    )
    for pair in PAIRS[options.people]:
        paths = [folder / "images" / f"{k}.nii.gz" for k in pair]
        maps = [read_image(folder / "labels" / f"{k}.nii.gz", kind="labels") for k in pair]
        wanted = shared_labels(maps[0].data, maps[1].data, averaged)
        for (name, value), registered in settings(options.greedy).items():
            values, rough, folded, cpu = registered(paths, maps, wanted)
            run["rows"].append({
                "pair": f"{pair[0]} ← {pair[1]}",
                "method": name,
                "smoothness": value,
                "dice": float(np.mean([*values.values()])),
                "subcortical": float(np.mean([values[k] for k in SUBCORTICAL if k in values])),
                "sd_log_jacobian": rough,
                "percent_folded": folded,
                "cpu_s": round(cpu, 1),
                "load": round(os.getloadavg()[0], 2),
                "seed": 0,
            })
            print(run["rows"][-1], flush=True)
    target = HERE / "results" / "front.json"
    content: dict[str, Any] = json.loads(target.read_text(encoding="utf-8")) if target.exists() else {}
    content = {name: content[name] for name in PAIRS if name in content} | {options.people: run}
    target.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    target.with_suffix(".md").write_text(report(content), encoding="utf-8")


if __name__ == "__main__":
    main()
