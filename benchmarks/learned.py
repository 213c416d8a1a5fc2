"""Networks trained and tested by the protocol (benchmarks/protocol.md), against the affine stage and the presets.

    python benchmarks/learned.py train TASK --runs DIR [--rows ROW …] [--seeds 0 …]
    python benchmarks/learned.py evaluate TASK --on select --runs DIR
    python benchmarks/learned.py evaluate TASK --on test --runs DIR --reason WHY     # each use enters benchmarks/ledger.md
    python benchmarks/learned.py table              # of what was measured on test people, into README and docs/learning.md

Rows and their settings stand in benchmarks/learned/TASK.yaml. Weights are chosen on people of `select`. Labels are moved
by nearest neighbour in one resampling at native resolution. Seconds are those of `register`, without reading files.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import machine
from learned_tables import HERE, PRESETS, content_of, report, table_all
from protocol import DATASETS, people

from warpwise.data.pairs import validation_pairs
from warpwise.data.people import Part, parts, person
from warpwise.errors import RunError
from warpwise.events import Event
from warpwise.io.datasets import Dataset, read_dataset
from warpwise.io.scan import Scan
from warpwise.levels.history import history
from warpwise.levels.loop import LOG_EVERY
from warpwise.levels.measurement import run_method
from warpwise.levels.settings import TrainingSettings, read_settings
from warpwise.levels.training import Run, train
from warpwise.methods import Method
from warpwise.networks.model import Model, size
from warpwise.registration.linear_stages import LinearStages

SUBCORTICAL = ("thalamus", "caudate", "putamen", "pallidum", "hippocampus", "amygdala", "accumbens")


def merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Two mappings, the second one's leaves first."""
    out = dict(one)
    for key, value in other.items():
        out[key] = merged(out[key], value) if isinstance(value, dict) and isinstance(out.get(key), dict) else value
    return out


def parted(task: str) -> str:
    """The task of the protocol whose people a task has."""
    return content_of(task).get("people", task)


def settings_of(task: str, row: str, seed: int, data: Path) -> TrainingSettings:
    """A row's settings."""
    content = content_of(task)
    made = merged(content["common"], content["rows"][row])
    folder = data / made["data"]["dataset"]
    dataset = read_dataset(folder)
    made["data"] |= {"dataset": str(folder), "people": people(parted(task), dataset)}
    made.pop("minutes", None)
    if kind := made["data"].get("groups"):
        each = {name: [value] for value, name in dataset.labels.items() if value in dataset.averaged}
        made["data"]["groups"] = bilateral(dataset) if kind == "bilateral" else each
        made["network"]["labels"] = len(made["data"]["groups"])
    return TrainingSettings.parse({**made, "seed": seed})


def bilateral(dataset: Dataset) -> dict[str, list[int]]:
    """Labels by what they are called without left and right; no vessels, whose labels are noisy."""
    out: dict[str, list[int]] = {}
    for value, name in dataset.labels.items():
        if value in dataset.averaged and "vessel" not in name:
            out.setdefault(" ".join(word for word in name.split() if word not in ("Left", "Right")), []).append(value)
    return out


def folder_of(runs: Path, task: str, row: str, seed: int) -> Path:
    return runs / task / f"{row.replace(', ', '-').replace(' ', '_')}-{seed}"


def train_all(arguments: argparse.Namespace) -> None:
    """Train what is not trained yet; interrupted runs go on."""
    for row in arguments.rows or content_of(arguments.task)["rows"]:
        for seed in arguments.seeds:
            folder = folder_of(arguments.runs, arguments.task, row, seed)
            if (folder / "done.json").exists() or (folder / "failed.json").exists():
                continue
            print(time.strftime("%H:%M:%S"), arguments.task, row, seed, flush=True)
            resume = (folder / "last" / "state.safetensors").exists()
            cache, facts = arguments.runs / "cache" / arguments.task, machine()
            settings = settings_of(arguments.task, row, seed, arguments.data)
            minutes = content_of(arguments.task)["rows"][row].get("minutes")
            if resume:
                settings = same_settings(folder, settings)
            elif minutes:
                known = taken_by_another_seed(arguments, row, {"minutes": minutes, "cpu": facts["cpu"]})
                settings = settings.replace(steps=known or fitting(settings, minutes, cache))
            run = Run(folder, cache, resume, overwrite=True, on_event=told)
            try:
                train(settings, run)
            except RunError as error:  # it diverged, or its features collapsed: a result, too
                (folder / "failed.json").write_text(json.dumps({**facts, "why": str(error), **times(folder)}))
                print("  ", error, flush=True)
                continue
            (folder / "done.json").write_text(json.dumps({**facts, "minutes": minutes, "load": os.getloadavg()}))


def taken_by_another_seed(arguments: argparse.Namespace, row: str, budget: dict[str, Any]) -> int | None:
    """Steps of a run of this row by another seed, of the same minutes on a CPU of the same kind."""
    for seed in arguments.seeds:
        folder = folder_of(arguments.runs, arguments.task, row, seed)
        if not (folder / "done.json").exists():
            continue
        done = json.loads((folder / "done.json").read_text())
        if all(done.get(key) == value for key, value in budget.items()):
            return same_settings(folder, settings_of(arguments.task, row, seed, arguments.data)).steps
    return None


def same_settings(folder: Path, settings: TrainingSettings) -> TrainingSettings:
    """What a run was trained by, which is a row's settings but for the number of steps."""
    known = read_settings(folder / "config.yaml")
    plain = [s.replace(steps=1).model_dump(mode="json") for s in (known, settings)]
    for one in plain:
        one["data"]["dataset"] = Path(one["data"]["dataset"]).name
    if plain[0] != plain[1]:
        raise SystemExit(f"{folder} was trained by other settings than its row has now: remove it, and train again.")
    return known


def fitting(settings: TrainingSettings, minutes: float, cache: Path) -> int:
    """How many steps, with their validations, fit into so many minutes: by thirty of them, of which the first ten warm up,
    the next ten tell what a step takes, and the last ten and a validation what that takes."""
    with tempfile.TemporaryDirectory() as place:
        short = settings.replace(steps=3 * LOG_EVERY, validate_every=2 * LOG_EVERY)
        train(short, Run(Path(place) / "run", cache))
        first, second, third = (r["seconds"] for r in history(Path(place) / "run") if r["kind"] == "train")
    step = (second - first) / LOG_EVERY
    validation = max(0.0, third - second - LOG_EVERY * step)
    steps = max(2 * LOG_EVERY, round(60 * minutes / (step + validation / settings.validate_every)))
    print(f"   {step:.2f} s a step, {validation:.1f} s a validation: {steps} steps", flush=True)
    return steps


def told(event: Event) -> None:
    if event.stage == "validation":
        print("  ", event.step, {k: round(v, 4) for k, v in event.values.items()}, event.best, flush=True)


def pairs_of(task: str, dataset: Dataset, on: str) -> list[tuple[Scan, Scan]]:
    """Ordered pairs of the people of a part."""
    who = people(parted(task), dataset)[on]
    if on == "test" and dataset.test_pairs:
        return list(dataset.test_pairs)
    if on == "test":
        scans = tuple(scan for scan in dataset.validation if person(scan) in who)
        return validation_pairs(dataset, part=Part(frozenset(who), scans))
    return validation_pairs(dataset, part=parts(dataset, {on: who})[on])


def methods_of(arguments: argparse.Namespace) -> dict[str, tuple[Method, dict[str, Any]]]:
    """Presets, every network that was trained, and it refined; with what the table says of each."""
    task, content = arguments.task, content_of(arguments.task)
    presets = content.get("presets", PRESETS)
    out: dict[str, tuple[Method, dict[str, Any]]] = {name: (Method.named(name), {"labels": "no"}) for name in presets}
    for row in content["rows"]:
        for seed in arguments.seeds:
            trained = trained_by(arguments, row, seed)
            if trained is None or trained[0].card.network.kind == "segmentation":
                continue
            model, facts = trained
            method = Method.of_model(model)
            out[f"{row} #{seed}"] = method, facts
            if content.get("refined", True):
                out[f"{row}, refined #{seed}"] = method.refined(), facts
    for title, led in content.get("led", {}).items():
        for seed in arguments.seeds:
            if (trained := trained_by(arguments, led["by"], seed)) is not None:
                term = {"term": "features", "model": str(folder_of(arguments.runs, task, led["by"], seed)), **led["term"]}
                out[f"{title} #{seed}"] = Method.named(led["base"]).changed({"objective.learned": term}), trained[1]
    return out


def trained_by(arguments: argparse.Namespace, row: str, seed: int) -> tuple[Model, dict[str, Any]] | None:
    """A row's network, and what is known of its training; None where it was not trained."""
    folder = folder_of(arguments.runs, arguments.task, row, seed)
    if not (folder / "done.json").exists():
        return None
    settings = same_settings(folder, settings_of(arguments.task, row, seed, arguments.data))
    model = Model.load(folder)
    taught = any(term.row() in ("labels", "dice", "segmentation") for term in settings.objective.values())
    taught = taught or (settings.data.teacher is not None and settings.data.teacher.labels)
    done = json.loads((folder / "done.json").read_text())
    facts = {
        "labels": "training" if taught else "no", "seed": seed, **times(folder),
        "parameters": size(model.network)[0], "best_step": model.card.training["step"],
        "trained": {k: done[k] for k in ("date", "commit", "cpu", "load")},
    }  # fmt: skip
    if settings.data.groups:
        facts["structures"] = sorted(value for group in settings.data.groups.values() for value in group)
        facts["segmentation"] = model.card.validation.get("segmentation")
    return model, facts


def times(folder: Path) -> dict[str, Any]:
    """How long a run took."""
    trained = [r for r in history(folder) if r["kind"] == "train"][-1]
    return {"minutes": round(trained["seconds"] / 60, 1), "steps": trained["step"]}


def evaluate_all(arguments: argparse.Namespace) -> None:
    """Every method on every pair of a part, in turns, so that a busy minute falls on all."""
    task, on = arguments.task, arguments.on
    dataset = read_dataset(arguments.data / DATASETS[parted(task)])
    methods = methods_of(arguments)
    stages = LinearStages(arguments.runs / "linear")  # of all methods the same; its seconds are those that it took once
    if arguments.rows:
        methods = {name: found for name, found in methods.items() if name.split(" #")[0] in arguments.rows}
    if on == "test":
        if not arguments.reason:
            raise SystemExit("--reason: why are test people looked at?")
        note_in_ledger(task, arguments.reason, list(dict.fromkeys(name.split(" #")[0] for name in methods)))
    deep = [k for k, name in dataset.labels.items() if any(word in name.lower() for word in SUBCORTICAL)]
    out = HERE / "results" / f"learned_{task}_{on}.json"
    content: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {"task": task, "on": on, "rows": []}
    common = {k: v for k, v in machine().items() if k in ("date", "commit", "cpu", "cores")}
    for fixed, moving in pairs_of(task, dataset, on):
        for key, (method, facts) in methods.items():
            row = run_method(key, method, (fixed, moving), dataset.averaged, linear_stages=stages)
            name = key.split(" #")[0]
            found = {
                "method": name, "fixed": person(fixed), "moving": person(moving), "pair": row.pair,
                "dice": round(row.mean_dice, 5), "sd_log_jacobian": round(row.sd_log_jacobian, 4),
                "percent_folded": row.percent_folded, "percent_ndv": row.percent_ndv,
                "seconds": round(row.seconds, 2), "load": round(os.getloadavg()[0], 1), **facts, **common,
            }  # fmt: skip
            if deep and len(dataset.averaged) > 20:
                found["subcortical"] = round(float(np.mean([v for k, v in row.dice.items() if k in deep])), 5)
            if used := found.pop("structures", None):
                found |= {k: apart(row.dice, used, told=told) for k, told in (("dice_told", True), ("dice_untold", False))}
            # Neither this pair again, nor what another network of the same name found.
            content["rows"] = [r for r in content["rows"] if not replaced(r, found)] + [found]
            print(key, row.pair, found["dice"], found["sd_log_jacobian"], found["seconds"], flush=True)
        out.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        out.with_suffix(".md").write_text(report(content))


def apart(dice: dict[int, float], used: Sequence[int], *, told: bool) -> float | None:
    """Mean Dice of the labels that a segmentation tells apart, or of the others."""
    values = [value for label, value in dice.items() if (label in used) == told]
    return round(float(np.mean(values)), 5) if values else None


def replaced(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether an earlier measurement is of the same row, and of the same pair or of a network of another training."""
    if (old["method"], old.get("seed")) != (new["method"], new.get("seed")):
        return False
    return old["pair"] == new["pair"] or old.get("trained") != new.get("trained")


def note_in_ledger(task: str, reason: str, methods: Sequence[str]) -> None:
    """One line for each time that test people are looked at."""
    ledger = HERE / "ledger.md"
    facts = machine()
    with ledger.open("a", encoding="utf-8") as file:
        file.write(f"| {facts['date'][:10]} | {facts['commit']} | {task} | {'; '.join(methods)} | {reason} |\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["train", "evaluate", "table"])
    parser.add_argument(
        "task", nargs="?", choices=["hippocampus", "heart", "brains", "bilevel", "propagation"], default="hippocampus"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--rows", nargs="*", default=[])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--on", choices=["select", "test"], default="select")
    parser.add_argument("--reason", default="")
    arguments = parser.parse_args()
    {"train": train_all, "evaluate": evaluate_all, "table": table_all}[arguments.what](arguments)


if __name__ == "__main__":
    main()
