"""Structures as a term of solvers, chosen out of fold: people who train are parted in three; each third is told apart, and
registered, by a network that learned from the other two.

    python benchmarks/out_of_fold.py TASK --runs DIR [--minutes M] [--pairs 12] [--weights 0.1 0.3 1] [--seed 0]

So weight and scale need nobody who selects: the network's own overlap, and Dice and roughness of `accurate` with each
weight, on all scales or on coarse ones only, are figures of people whom no network has seen. The network is the row
`structures` of benchmarks/learned/TASK.yaml, its last weights. Writes results/out_of_fold_TASK.json and .md.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, markdown_table
from learned import fitting, same_settings, settings_of
from learned_tables import content_of
from protocol import DATASETS, people

from warpwise.data.pairs import validation_pairs
from warpwise.data.people import drawn, parts, person
from warpwise.evaluation.statistics import interval
from warpwise.io.datasets import Dataset, read_dataset
from warpwise.levels.history import history
from warpwise.levels.measurement import run_method
from warpwise.levels.training import Run, train
from warpwise.methods import Method

ROW, BASE, FOLDS = "structures", "accurate", 3


def folds_of(task: str, dataset: Dataset) -> list[tuple[str, ...]]:
    """Those who train, in three parts whose sizes differ by one at most."""
    who = people(task, dataset)["train"]
    sizes = {str(n): len(who[n::FOLDS]) for n in range(FOLDS)}
    return list(drawn(who, sizes).values())


def trained(arguments: argparse.Namespace, fold: int, held: tuple[str, ...], steps: int | None) -> tuple[Path, int]:
    """A network of those outside a fold, judged by those within, and the steps it took."""
    folder = arguments.runs / "out_of_fold" / f"{arguments.task}-{fold}-{arguments.seed}"
    cache = arguments.runs / "cache" / arguments.task
    settings = settings_of(arguments.task, ROW, arguments.seed, arguments.data)
    learners = tuple(name for name in settings.data.people["train"] if name not in held)
    data = settings.data.replace(people={"train": learners, "select": held})
    settings = settings.replace(data=data, validate_every=1_000_000)
    if (folder / "done").exists():
        return folder, same_settings(folder, settings).steps
    steps = steps or fitting(settings, arguments.minutes or content_of(arguments.task)["rows"][ROW]["minutes"], cache)
    train(settings.replace(steps=steps), Run(folder, cache, overwrite=True))
    (folder / "done").touch()
    return folder, steps


def measure(arguments: argparse.Namespace) -> None:
    """Train each fold, then register pairs within it."""
    task = arguments.task
    dataset = read_dataset(arguments.data / DATASETS[task])
    out: dict[str, Any] = {"task": task, "seed": arguments.seed, "machine": machine(), "overlap": [], "rows": []}
    steps: int | None = None
    for fold, held in enumerate(folds_of(task, dataset)):
        folder, steps = trained(arguments, fold, held, steps)
        last = [row for row in history(folder) if row["kind"] == "validation"][-1]
        out["overlap"].append({"fold": fold, "people": held, "steps": steps, "dice": round(last["segmentation"], 4)})
        pairs = validation_pairs(dataset, most=arguments.pairs, part=parts(dataset, {"held": held})["held"])
        methods = {BASE: Method.named(BASE)}
        for weight in arguments.weights:
            for least in arguments.least:
                term = {"term": "features", "model": str(folder / "last"), "weight": weight, "least_mm": least}
                methods[f"{BASE}, weight {weight:g}, {where(least)}"] = Method.named(BASE).changed({
                    "objective.learned": term
                })
        for fixed, moving in pairs:
            for name, method in methods.items():
                row = run_method(name, method, (fixed, moving), dataset.averaged)
                found = {
                    "method": name, "fold": fold, "fixed": person(fixed), "moving": person(moving),
                    "dice": round(row.mean_dice, 5), "sd_log_jacobian": round(row.sd_log_jacobian, 4),
                    "seconds": round(row.seconds, 2), "load": round(os.getloadavg()[0], 1),
                }  # fmt: skip
                out["rows"].append(found)
            print(fold, person(fixed), person(moving), found["dice"], flush=True)
        place = Path(__file__).parent / "results" / f"out_of_fold_{task}.json"
        place.write_text(json.dumps(out, indent=1, ensure_ascii=False) + "\n")
        place.with_suffix(".md").write_text(report(out))


def where(least: float) -> str:
    """On which images a term takes part."""
    return f"voxels of {least:g} mm and more" if least else "all voxels"


def report(out: dict[str, Any]) -> str:
    """The table as Markdown."""
    rows, overlap = out["rows"], out["overlap"]
    of = {name: [r for r in rows if r["method"] == name] for name in dict.fromkeys(r["method"] for r in rows)}
    who = {r["fixed"] for r in rows} | {r["moving"] for r in rows}
    table: list[list[str]] = []
    for name, mine in of.items():
        pairs, dice = [(r["fixed"], r["moving"]) for r in mine], [r["dice"] for r in mine]
        gains = np.subtract(dice, [r["dice"] for r in of[BASE]])
        (low, high), (less, more) = interval(pairs, dice), interval(pairs, gains)
        gain = "" if name == BASE else f"{gains.mean():+.4f} [{less:+.3f}, {more:+.3f}]"
        spread, seconds = (np.mean([r["sd_log_jacobian"] for r in mine]), np.median([r["seconds"] for r in mine]))
        load = f"{np.mean([r['load'] for r in mine]):.1f}"
        table.append([name, f"{np.mean(dice):.4f} [{low:.3f}, {high:.3f}]", gain, f"{spread:.3f}", f"{seconds:.2f}", load])
    told = ", ".join(f"{o['dice']:.3f} ({len(o['people'])} people)" for o in overlap)
    return "\n".join([
        f"# {out['task']}: structures as a term, out of fold; {len(who)} people who train, {len(of[BASE])} pairs",
        "", f"`{out['machine']['command']}`, commit {out['machine']['commit']}, {out['machine']['cpu']}; "
        f"seed {out['seed']}, {overlap[0]['steps']} steps a fold.",
        f"The networks' own Dice, fold by fold, of people they have not seen: {told}.",
        "Brackets: 95 % by bootstrap over people, in both roles; gains on the same pairs.", "",
        *markdown_table(["method", "Dice", "gain", "SDlogJ", "s a pair", "load"], table),
    ]) + "\n"  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=["hippocampus", "heart", "brains"])
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--minutes", type=float, default=0.0, help="a fold; those of the row by default")
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--weights", nargs="+", type=float, default=[0.1, 0.3, 1.0])
    parser.add_argument("--least", nargs="+", type=float, default=[0.0], help="mm; the term rests on finer voxels")
    parser.add_argument("--seed", type=int, default=0)
    measure(parser.parse_args())


if __name__ == "__main__":
    main()
