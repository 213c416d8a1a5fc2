"""warpwise against greedy, ANTs SyNQuick and elastix on whole brains: Dice, whole-process wall time, peak memory.

    python benchmarks/peers.py [--data DIR] [--pairs N] [--repeats 3] [--out benchmarks/results/peers.json]

Every program runs as a process of its own with two threads; reading and writing files is included. Peers run once a
pair, warpwise `--repeats` times (median). Labels are then moved by each program itself, nearest neighbour.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import machine

import warpwise as ww
from warpwise.evaluation.metrics import dice

HERE = Path(__file__).parent
PEERS = ("greedy", "ants-synquick", "elastix")
PRESETS = ("fast", "balanced", "accurate")


def timed(command: list[str], threads: int = 2) -> tuple[float, float]:
    """Wall seconds and peak memory (MB) of a process."""
    environment = {**os.environ, "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    began = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    error = process.stderr.read() if process.stderr else b""
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    if status != 0:
        raise RuntimeError(f"{' '.join(command)}\n{error.decode()[-2000:]}")
    return wall, usage.ru_maxrss / 1e3


def score(fixed: Path, moved: Path, labels: list[int]) -> float:
    a = ww.load_image(fixed, kind="labels").data[0]
    b = np.rint(ww.load_image(moved).data[0]).astype(np.int32)
    return float(np.mean([*dice(a, b, labels=labels).values()]))


def run_peer(name: str, fixed: Path, moving: Path, fixed_label: Path, moving_label: Path, labels: list[int]) -> dict:
    folder = Path(tempfile.mkdtemp())
    worker = [sys.executable, str(HERE / "peer_worker.py"), name, str(fixed), str(moving), str(folder)]
    wall, memory = timed(worker)
    row = {"seconds": round(wall, 2), "memory_mb": round(memory)}
    for kind, key in (("full", "dice"), *([] if name == "elastix" else [("affine", "affine_dice")])):
        timed([*worker, str(moving_label), str(folder / "labels.nii.gz"), kind])
        row[key] = round(score(fixed_label, folder / "labels.nii.gz", labels), 4)
    shutil.rmtree(folder)
    return row


def run_ours(
    preset: str, fixed: Path, moving: Path, fixed_label: Path, moving_label: Path, labels: list[int], *, repeats: int
) -> dict:
    folder = Path(tempfile.mkdtemp())
    program = [shutil.which("warpwise") or str(Path(sys.executable).parent / "warpwise")]
    walls, peaks = [], []
    for _ in range(repeats):
        command = ["register", str(fixed), str(moving), "-o", str(folder), "--preset", preset, "--overwrite", "--quiet"]
        wall, memory = timed([*program, *command, "--threads", "2"])
        walls.append(wall)
        peaks.append(memory)
    result = json.loads((folder / "result.json").read_text())
    moved = folder / "labels.nii.gz"
    timed([*program, "apply", str(folder / "transform.h5"), str(moving_label), "--like", str(fixed), "-o", str(moved),
           "--interpolation", "nearest"])  # fmt: skip
    report = folder / "evaluation.json"
    timed([*program, "evaluate", "--fixed-labels", str(fixed_label), "--warped-labels", str(moved),
           "--transform", str(folder / "transform.h5"), "--json", str(report)])  # fmt: skip
    measured = json.loads(report.read_text())
    row = {
        "dice": round(score(fixed_label, moved, labels), 4),
        "seconds": round(float(np.median(walls)), 2),
        "seconds_all": [round(w, 2) for w in walls],
        "memory_mb": round(max(peaks)),
        "affine_seconds": result["timings_s"]["affine"],
        "sd_log_jacobian": round(measured["sd_log_jacobian"], 4),
        "percent_folded": measured["percent_folded"],
        "percent_ndv": measured["percent_ndv"],
        "certificate": result["certificate"],
    }
    if preset == "balanced":
        again = Path(tempfile.mkdtemp())
        timed([*program, "register", str(fixed), str(moving), "-o", str(again), "--transform", "affine", "--quiet"])
        timed([*program, "apply", str(again / "transform.h5"), str(moving_label), "--like", str(fixed), "-o",
               str(again / "labels.nii.gz"), "--interpolation", "nearest"])  # fmt: skip
        row["affine_dice"] = round(score(fixed_label, again / "labels.nii.gz", labels), 4)
        shutil.rmtree(again)
    shutil.rmtree(folder)
    return row


def summary(pairs: list[dict]) -> dict:
    out = {}
    for name in (*PEERS, *PRESETS):
        rows = [p[name] for p in pairs if name in p]
        if not rows:
            continue
        keys = (
            "dice",
            "seconds",
            "memory_mb",
            "affine_dice",
            "affine_seconds",
            "sd_log_jacobian",
            "percent_folded",
            "percent_ndv",
        )
        out[name] = {k: round(float(np.mean([r[k] for r in rows])), 4) for k in keys if all(k in r for r in rows)}
        out[name]["worst_memory_mb"] = max(r["memory_mb"] for r in rows)
    return out


def table(found: dict) -> str:
    lines = [
        "| program | mean Dice | affine Dice | mean s | × greedy's time | worst MB | folds |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    base = found.get("greedy", {}).get("seconds", float("nan"))
    for name, row in found.items():
        label = f"**warpwise {name}**" if name in PRESETS else name
        folds = f"{row['percent_folded']:g} %, {row['percent_ndv']:g} %" if "percent_ndv" in row else "–"
        affine = f"{row['affine_dice']:.3f}" if "affine_dice" in row else "–"
        lines.append(
            f"| {label} | {row['dice']:.3f} | {affine} | {row['seconds']:.1f} | {row['seconds'] / base:.2f} "
            f"| {row['worst_memory_mb']:.0f} | {folds} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path("../shared/data/oasis-mals"))
    parser.add_argument("--pairs", type=int, default=99)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[*PEERS, *PRESETS])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/peers.json"))
    arguments = parser.parse_args()
    described = json.loads((arguments.data / "dataset.json").read_text())
    labels = [int(k) for k in described["labelsInEverySubject"]]
    first = {"fixed": "images/1000.nii.gz", "moving": "images/1001.nii.gz", "fixed_label": "labels/1000.nii.gz",
             "moving_label": "labels/1001.nii.gz"}  # fmt: skip
    rows: list[dict] = []
    for pair in [first, *described["registration_val"]][: arguments.pairs]:
        paths = [arguments.data / pair[k] for k in ("fixed", "moving", "fixed_label", "moving_label")]
        row: dict = {"pair": f"{paths[0].name[:4]} ← {paths[1].name[:4]}", "load": os.getloadavg()[0]}
        for name in arguments.only:
            if name in PEERS:
                row[name] = run_peer(name, *paths, labels)
            else:
                row[name] = run_ours(name, *paths, labels, repeats=arguments.repeats)
        rows.append(row)
        brief = {k: (v["dice"], v["seconds"]) for k, v in row.items() if isinstance(v, dict)}
        print(row["pair"], brief, flush=True)
        found = summary(rows)
        text = json.dumps({"machine": machine(), "summary": found, "pairs": rows}, indent=1, ensure_ascii=False)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text + "\n")
        arguments.out.with_suffix(".md").write_text(
            f"# Whole brains against peers, {len(rows)} pairs\n\n{table(found)}\n\nMeans over pairs; see peers.json.\n"
        )


if __name__ == "__main__":
    main()
