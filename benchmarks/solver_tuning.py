"""Weights of the energy solver's objective: their implicit gradients, and what tuning by them finds, on hippocampi.

    python benchmarks/solver_tuning.py gradients --data DATA
    python benchmarks/solver_tuning.py tune --data DATA --runs DIR

Gradients: of soft Dice by the logarithm of the diffusion's weight, against central differences of registrations that were
each brought to a stationary point; and the sum over all weights of λ·dU/dλ, which is 0 at one. Tune: from two starts, on
people of `objective` within a budget of roughness; then nine fixed weights and what was found, on people who select.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import machine, markdown_table
from protocol import DATASETS, people

from warpwise.data.pairs import balanced
from warpwise.data.people import parts
from warpwise.evaluation.statistics import interval
from warpwise.events import Event
from warpwise.io.datasets import Dataset, read_dataset
from warpwise.levels.history import history
from warpwise.levels.hypergradient import hypergradient
from warpwise.levels.measurement import run_method
from warpwise.levels.solved import Solved, nearer
from warpwise.levels.solver_tuning import TUNED, level_of, tune
from warpwise.levels.solver_tuning_settings import SolverTuningSettings
from warpwise.levels.trials import pairs_of
from warpwise.methods import Method
from warpwise.registrars.deformable.energy import Problem
from warpwise.registration.linear_stages import LinearStages

RESULTS = Path(__file__).parent / "results"
TASK = "hippocampus"
WEIGHT = 3.0  # of the diffusion, where gradients are checked
STEP = 0.02  # of the central differences, in its logarithm
STARTS = (0.3, 3.0)
GRID = tuple(round(float(w), 4) for w in np.geomspace(0.03, 30.0, 9))
BUDGET = 0.4


def settings_of(dataset: Dataset, weight: float, **changes: Any) -> SolverTuningSettings:
    objective = {"labels": {"weight": 0.0}, "landmarks": {"weight": 0.0}, "similarity": {"term": "lncc"},
                 "smoothness": {"weight": weight}}  # fmt: skip
    return SolverTuningSettings.parse({
        "method": {"base": "energy", "objective": objective},
        "data": {"dataset": dataset.folder, "people": people(TASK, dataset)["objective"], "pairs": 12},
        **changes,
    })  # fmt: skip


def with_weight(solved: Solved, weight: float) -> Solved:
    """The same energy with another weight of diffusion, brought to its minimum from where the first one stands."""
    problem = Problem(solved.problem.work, weight, cubic=True)
    return nearer(replace(solved, problem=problem), steps=20, enough=1e-5)


def gradients(arguments: argparse.Namespace) -> None:
    """Three pairs: implicit gradients, differences, the identity, residuals."""
    dataset = read_dataset(arguments.data / DATASETS[TASK])
    settings = settings_of(dataset, WEIGHT, newton_steps=0)
    level = level_of(settings, pairs_of(settings.data), arguments.runs)
    rows: list[dict[str, Any]] = []
    for number in range(3):
        start = level.solved(level.ready(number, number))
        solved = with_weight(with_weight(start, 1.05 * WEIGHT), WEIGHT)  # from a little beside, so that no saddle holds it

        def outer(_: Any, inner: Any, solved: Solved = solved) -> torch.Tensor:
            return level.outer(solved.alignment(inner))

        free = {"similarity": torch.tensor(0.0), "smoothness": torch.tensor(np.log(WEIGHT))}  # logarithms

        def weights(at: Any) -> dict[str, torch.Tensor]:
            return {name: value.exp() for name, value in at.items()}

        found = hypergradient(
            outer, lambda at, inner, solved=solved: solved.loss(weights(at), inner), free, solved.inner(),
            estimator=solved.estimator(weights, iterations=60, tolerance=1e-4), lenient=True,
        )  # fmt: skip
        ends = [
            float(outer(None, moved.inner(), moved))
            for moved in (with_weight(solved, WEIGHT * float(np.exp(sign * STEP))) for sign in (1, -1))
        ]
        difference = (ends[0] - ends[1]) / (2 * STEP)
        smooth, similarity = float(found["smoothness"]), float(found["similarity"])
        rows.append({
            "pair": number, "residual_of_solver": start.residual(), "residual": solved.residual(), "implicit": smooth,
            "difference": difference, "error": abs(smooth - difference) / abs(difference),
            "euler": abs(smooth + similarity) / (abs(smooth) + abs(similarity)),
        })  # fmt: skip
        print(rows[-1], flush=True)
    facts = machine()
    content = {"command": facts.pop("command"), "weight": WEIGHT, "rows": rows, "measured": facts}
    (RESULTS / "solver_gradients.json").write_text(json.dumps(content, indent=1) + "\n")


def run(arguments: argparse.Namespace) -> None:
    """Tune from every start, and compare with fixed weights on people who select."""
    dataset = read_dataset(arguments.data / DATASETS[TASK])
    hinge = {"term": "budget", "at_most": BUDGET, "weight": 10.0}
    methods: dict[str, Method] = {f"fixed {weight:g}": settings_of(dataset, weight).base() for weight in GRID}
    tuned: dict[str, dict[str, Any]] = {}
    for start in STARTS:
        folder = arguments.runs / f"start-{start:g}"
        name = f"tuned from {start:g}"
        if not (folder / "done.json").exists():
            tuning = {"learning_rate": 0.3, "warmup": 0, "iterations": 30, "outer": {"dice": {}, "budget": hinge}}
            tune(
                settings_of(dataset, start, tuning=tuning, steps=24, newton_steps=4), folder, overwrite=True, on_event=told
            )
            (folder / "done.json").write_text(json.dumps(machine()))
        methods[name] = Method.named(folder / TUNED)
        lines = [r for r in history(folder) if r["kind"] == "train"]
        tuned[name] = {"seconds": lines[-1]["seconds"], "residual": float(np.median([r["residual"] for r in lines])),
                       "curve": [(r["step"], r["weight.smoothness"]) for r in lines]}  # fmt: skip
    scans = parts(dataset, {"select": people(TASK, dataset)["select"]})["select"].scans
    stages, rows = LinearStages(arguments.runs / "linear"), []
    for fixed, moving in balanced(scans, 24):
        for name, method in methods.items():
            row = run_method(name, method, (fixed, moving), dataset.averaged, linear_stages=stages)
            rows.append({
                "method": name, "fixed": row.people[0], "moving": row.people[1], "dice": round(row.mean_dice, 5),
                "sd_log_jacobian": round(row.sd_log_jacobian, 4), "seconds": round(row.seconds, 3),
            })  # fmt: skip
    facts = machine()
    content = {
        "command": facts.pop("command"), "budget": BUDGET, "rows": rows, "tuned": tuned, "measured": facts,
        "weights": {name: method.objective["smoothness"].weight for name, method in methods.items()},
    }  # fmt: skip
    (RESULTS / "solver_tuning.json").write_text(json.dumps(content, indent=1) + "\n")
    (RESULTS / "solver_tuning.md").write_text(report(content))


def told(event: Event) -> None:
    print(event.step, event.text, {k: round(v, 5) for k, v in event.values.items()}, flush=True)


def report(content: dict[str, Any]) -> str:
    """What was found, as Markdown."""
    table: list[list[str]] = []
    for name, weight in sorted(content["weights"].items(), key=lambda item: item[1]):
        mine = [r for r in content["rows"] if r["method"] == name]
        dice = [r["dice"] for r in mine]
        low, high = interval([(r["fixed"], r["moving"]) for r in mine], dice)
        seconds = content["tuned"].get(name, {}).get("seconds")
        table.append([
            name, f"{weight:.3g}", f"{np.mean(dice):.4f} [{low:.3f}, {high:.3f}]",
            f"{np.mean([r['sd_log_jacobian'] for r in mine]):.3f}", f"{np.median([r['seconds'] for r in mine]):.2f}",
            "" if seconds is None else f"{seconds:.0f}",
        ])  # fmt: skip
    lines = [
        "# The energy solver's objective, tuned by implicit gradients", "",
        f"`{content['command']}`: hippocampi; λ of the diffusion, that of LNCC being 1; tuned on people of `objective`",
        f"to SDlogJ ≤ {content['budget']:g}, on 24 pairs of people who select; brackets: 95 %, bootstrap over people.",
        "",
    ]  # fmt: skip
    return "\n".join([*lines, *markdown_table(["method", "λ", "Dice", "SDlogJ", "s a pair", "s of tuning"], table)]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["gradients", "tune"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--runs", type=Path, default=Path("runs/solver_tuning"))
    arguments = parser.parse_args()
    {"gradients": gradients, "tune": run}[arguments.what](arguments)


if __name__ == "__main__":
    main()
