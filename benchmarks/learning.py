"""Networks trained on two cores, against the affine stage and the solver's presets, on three tasks.

    python benchmarks/learning.py train --runs DIR [--tasks hippocampus heart brains] [--seeds 0 1 2]
    python benchmarks/learning.py evaluate --runs DIR
    python benchmarks/learning.py processes --runs DIR

Settings stand in benchmarks/learning/; every network of a task has about the same time to train. Labels are moved by
nearest neighbour in one resampling from native space. Seconds are those of `register`, without reading files; memory is
the peak of a whole process on the first pair.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from common import machine
from learned import SUBCORTICAL

from warpwise.benchmark.compare import Row, run_method
from warpwise.evaluation.statistics import compared
from warpwise.events import Event
from warpwise.io.datasets import Dataset, read_dataset
from warpwise.levels.history import history
from warpwise.levels.settings import TrainingSettings
from warpwise.levels.training import Run, train
from warpwise.methods import Method
from warpwise.networks.model import Model, size

HERE = Path(__file__).parent
NETWORKS = ("pyramid", "symmetric", "voxelmorph", "vm-diff", "transmorph")
# Updates that fit into the same few minutes: the pyramids look at a pair several times.
STEPS = {
    "hippocampus": {"pyramid": 300, "symmetric": 300, "voxelmorph": 700, "vm-diff": 700, "transmorph": 700},
    "heart": {"pyramid": 400, "symmetric": 250, "voxelmorph": 900, "vm-diff": 900, "transmorph": 900},
    "brains": {"pyramid": 500, "symmetric": 200, "voxelmorph": 1000, "vm-diff": 400, "transmorph": 600},
}
REFINED = {"brains": ("pyramid", "symmetric"), "hippocampus": ("pyramid",), "heart": ("pyramid",)}


def settings_of(task: str, network: str, seed: int, data: Path) -> TrainingSettings:
    """A task's settings for one network."""
    content = yaml.safe_load((HERE / "learning" / f"{task}.yaml").read_text())
    if "dataset" in content["data"]:
        content["data"]["dataset"] = str(data / content["data"]["dataset"])
    if task in STEPS:
        content |= {"network": network, "steps": STEPS[task][network], "seed": seed}
    if network == "vm-diff":
        content["objective"]["kl"] = {"weight": 0.01}
    return TrainingSettings.parse(content)


def train_all(arguments: argparse.Namespace) -> None:
    """Train what is not trained yet; interrupted runs go on."""
    for seed in arguments.seeds:
        for task in arguments.tasks:
            for network in ("pyramid",) if task == "synthetic" else arguments.networks:
                folder = arguments.runs / task / f"{network}-{seed}"
                if (folder / "done").exists():
                    continue
                print(time.strftime("%H:%M:%S"), task, network, seed, flush=True)
                resume = (folder / "last" / "state.safetensors").exists()
                run = Run(folder, arguments.runs / "cache" / task, resume, overwrite=True, on_event=told)
                train(settings_of(task, network, seed, arguments.data), run)
                (folder / "done").write_text("")


def told(event: Event) -> None:
    if event.stage == "validation":
        print("  ", event.step, {k: round(v, 4) for k, v in event.values.items()}, event.best, flush=True)


def methods_of(task: str, runs: Path, seeds: Sequence[int]) -> dict[str, Method]:
    """The affine stage, two presets, every network that was trained, and some of them refined."""
    out = {"affine": Method.named("affine")}
    out |= {f"solver, {name}": Method.named(name) for name in ("balanced", "accurate")}
    for network in NETWORKS:
        for seed in seeds:
            folder = runs / task / f"{network}-{seed}"
            if not (folder / "done").exists():
                continue
            out[f"{network}-{seed}"] = Method.of_model(Model.load(folder))
            if network in REFINED[task] and seed == 0:
                out[f"{network}-{seed}, refined"] = out[f"{network}-{seed}"].refined()
    return out


def measured(rows: Sequence[Row], dataset: Dataset) -> dict:
    """Means over pairs of one method."""
    deep = [k for k, name in dataset.labels.items() if any(word in name.lower() for word in SUBCORTICAL)]
    out = {
        "dice": float(np.mean([r.mean_dice for r in rows])),
        "dice_of_pairs": [round(r.mean_dice, 4) for r in rows],
        "percent_folded": float(np.mean([r.percent_folded for r in rows])),
        "percent_ndv": float(np.mean([r.percent_ndv for r in rows])),
        "sd_log_jacobian": float(np.mean([r.sd_log_jacobian for r in rows])),
        "seconds": float(np.median([r.seconds for r in rows])),
    }
    if deep and len(dataset.averaged) > 20:
        out["dice_subcortical"] = float(np.mean([np.mean([v for k, v in r.dice.items() if k in deep]) for r in rows]))
    return out


def process(fixed: Path, moving: Path, options: Sequence[str]) -> dict:
    """Seconds and memory of a whole process."""
    folder = Path(tempfile.mkdtemp())
    program = shutil.which("warpwise") or str(Path(sys.executable).parent / "warpwise")
    began = time.perf_counter()
    command = [program, "register", str(fixed), str(moving), "-o", str(folder / "out"), "--quiet", *options]
    subprocess.run(command, check=True, capture_output=True)
    wall = time.perf_counter() - began
    told = json.loads((folder / "out" / "result.json").read_text())
    shutil.rmtree(folder)
    return {"process_seconds": round(wall, 2), "memory_mb": told["memory_mb"]["peak"]}


def evaluate_all(arguments: argparse.Namespace) -> None:
    """Every method on every validation pair, in turns, so that a busy minute falls on all."""
    found: dict = {"machine": machine(), "tasks": {}}
    if arguments.out.exists():
        found["tasks"] = json.loads(arguments.out.read_text())["tasks"]
    for task in arguments.tasks:
        name = yaml.safe_load((HERE / "learning" / f"{task}.yaml").read_text())["data"]["dataset"]
        dataset = read_dataset(arguments.data / name)
        methods = methods_of(task, arguments.runs, arguments.seeds)
        rows: dict[str, list[Row]] = {name: [] for name in methods}
        for pair in dataset.validation_pairs[: arguments.pairs or None]:
            for name, method in methods.items():
                rows[name].append(run_method(name, method, pair, dataset.averaged))
            print(task, rows["affine"][-1].pair, {k: round(v[-1].mean_dice, 3) for k, v in rows.items()}, flush=True)
        table: dict = {}
        for name, method in methods.items():
            table[name] = measured(rows[name], dataset)
            if method.registrar is not None and method.registrar.kind in ("network", "refined"):
                run = arguments.runs / task / name.split(",")[0]
                network = method.registrar if method.registrar.kind == "network" else method.registrar.network
                count, megabytes = size(network.loaded().network)
                trained = [r for r in history(run) if r["kind"] == "train"][-1]
                table[name] |= {"parameters": count, "megabytes": round(megabytes, 2), "steps": trained["step"],
                                       "training_minutes": round(trained["seconds"] / 60, 1)}  # fmt: skip
        scores = {m: table[m]["dice_of_pairs"] for m in table if "-0" in m or m == "affine" or "solver" in m}
        tests = {f"{a} | {b}": p for (a, b), p in compared(scores, [r.people for r in rows["affine"]]).items()}
        found["tasks"][task] = {"pairs": len(rows["affine"]), "methods": table, "p_values_people_holm": tests}
        arguments.out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        arguments.out.with_suffix(".md").write_text(report(found))


def processes_all(arguments: argparse.Namespace) -> None:
    """Seconds and memory of whole processes on each task's first pair, for every method that was evaluated."""
    found = json.loads(arguments.out.read_text())
    for task, result in found["tasks"].items():
        name = yaml.safe_load((HERE / "learning" / f"{task}.yaml").read_text())["data"]["dataset"]
        fixed, moving = read_dataset(arguments.data / name).validation_pairs[0]
        for method, row in result["methods"].items():
            if method == "affine":
                options = ["--transform", "affine"]
            elif method.startswith("solver"):
                options = ["--preset", method.split(", ")[1]]
            else:
                run = arguments.runs / task / method.split(",")[0]
                options = ["--model", str(run), *(["--refine"] if "refined" in method else [])]
            row |= process(fixed.image, moving.image, options)
            print(task, method, row["process_seconds"], row["memory_mb"], flush=True)
    arguments.out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    arguments.out.with_suffix(".md").write_text(report(found))


def report(found: dict) -> str:
    """The tables as Markdown."""
    lines = [
        "# Networks trained on two cores",
        "",
        "`python benchmarks/learning.py`; see learning.json for every pair.",
        "",
    ]
    for task, result in found["tasks"].items():
        lines += [f"## {task}, {result['pairs']} validation pairs", ""]
        deep = any("dice_subcortical" in m for m in result["methods"].values())
        head = ["method", "Dice", *(["subcortical"] if deep else []), "% det J ≤ 0", "% NDV", "s a pair", "process s",
                "memory MB", "parameters", "trained min"]  # fmt: skip
        lines += ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
        for name, m in result["methods"].items():
            cells = [name, f"{m['dice']:.4f}", *([f"{m['dice_subcortical']:.4f}"] if deep else []),
                     f"{m['percent_folded']:.2g}", f"{m['percent_ndv']:.2g}", f"{m['seconds']:.2f}",
                     f"{m.get('process_seconds', float('nan')):.1f}",
                     f"{m.get('memory_mb', float('nan')):.0f}", f"{m['parameters']:,}" if "parameters" in m else "",
                     f"{m['training_minutes']}" if "training_minutes" in m else ""]  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["train", "evaluate", "processes"])
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--tasks", nargs="*", default=["hippocampus", "heart", "brains"])
    parser.add_argument("--networks", nargs="*", default=[*NETWORKS])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--pairs", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "learning.json")
    arguments = parser.parse_args()
    {"train": train_all, "evaluate": evaluate_all, "processes": processes_all}[arguments.what](arguments)


if __name__ == "__main__":
    main()
