"""Objectives that tune themselves: by task, by budget of roughness, from several starts; against fixed weights and studies.

    python benchmarks/tuning.py run --runs DIR --data DATA [--parts tasks starts fixed studies encoders against]
    python benchmarks/tuning.py evaluate --on select|test --runs DIR --data DATA [--reason WHY]
    python benchmarks/tuning.py table

Settings stand in benchmarks/learned/tuning.yaml. A tuning ends with weights; by them hearts are trained anew. The last
weights of every training are measured, not the best ones, so that all rows have equal steps. U: soft Dice of the people of
`objective`, and a hinge on the SD of log det J. Across contrasts each moving image goes through a curve of its own: random
ones through knots in training, powers, waves and either upside down in the test.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from common import machine, markdown_table
from learned import merged, note_in_ledger, times
from learned_tables import put
from matplotlib.figure import Figure
from protocol import DATASETS, people

from warpwise.data.pairs import validation_pairs
from warpwise.data.people import Part, parts, person
from warpwise.evaluation.statistics import interval
from warpwise.events import Event
from warpwise.image import Image, intensity_range
from warpwise.io.datasets import Dataset, read_dataset
from warpwise.io.scan import Scan
from warpwise.levels.history import history
from warpwise.levels.measurement import as_it_is, run_method
from warpwise.levels.search import BEST, TRIALS
from warpwise.levels.search import run as search
from warpwise.levels.settings import TrainingSettings, read_settings, yaml_of
from warpwise.levels.study_settings import StudySettings
from warpwise.levels.training import Run, train
from warpwise.methods import Method
from warpwise.networks.model import Model

HERE = Path(__file__).parent
RESULTS = HERE / "results"
CONTENT: dict[str, Any] = yaml.safe_load((HERE / "learned" / "tuning.yaml").read_text(encoding="utf-8"))
PARTS = ("tasks", "starts", "fixed", "studies", "encoders", "against")
BEGIN = "<!-- tuning.py table -->"
TRIED = 6  # proposals of a study, most of which are pruned: in all about the cost of a tuning and a training
# λ of Liu et al., TPAMI 2022 (released code: 10, 15, 3.2 at half resolution), a slope's square summed and not averaged over
# D² components: 15/10/D² of diffusion, 3.2/10 of the half.
PUBLISHED = {"half": 0.32, "diffusion": 1.5 / 4}


def dataset_of(task: str, data: Path) -> Dataset:
    return read_dataset(data / DATASETS[CONTENT["tasks"][task]["people"]])


def who(task: str, dataset: Dataset) -> dict[str, tuple[str, ...]]:
    """People by part; those by whom λ learns are `tune`."""
    found = people(CONTENT["tasks"][task]["people"], dataset)
    above = found["objective"] if len(found["objective"]) > 1 else (*found["architecture"], *found["objective"])
    return {"train": found["train"], "select": found["select"], "tune": above, "test": found["test"]}


def atlas_of(dataset: Dataset) -> Scan:
    """The first person who trains."""
    chosen = sorted(who("atlas", dataset)["train"])[0]
    return next(scan for scan in dataset.training if person(scan) == chosen)


def settings_of(
    task: str, data: Path, weights: dict[str, float], *, budget: float | None = None, network: dict[str, Any] | None = None
) -> TrainingSettings:
    """A training with these weights of terms; tuned to a budget, where there is one; changes of the network."""
    rest = {k: v for k, v in CONTENT["tasks"][task].items() if k != "people"}
    made = merged(merged(CONTENT["common"], rest), {"network": network or {}})
    dataset = dataset_of(task, data)
    made["data"] |= {"dataset": str(dataset.folder), "people": who(task, dataset)}
    if made["data"].get("pairs") == "atlas":
        made["data"]["atlas"] = str(atlas_of(dataset).image)
    made["objective"] = {name: term for name, term in made["objective"].items() if term is not None}
    for name, weight in weights.items():
        made["objective"][name]["weight"] = weight
    if budget is not None:
        hinge = {"term": "budget", "at_most": budget, "weight": CONTENT["hinge"]}
        made["tuning"] = {**CONTENT["tuning"], "outer": {"dice": {}, "budget": hinge}}
    return TrainingSettings.parse(made)


def smooth(task: str) -> str:
    """The name of a task's smoothness."""
    return "smooth" if task == "contrasts" else "diffusion"


def jobs_of(
    chosen: Sequence[str], tasks: Sequence[str], budgets: Sequence[float] = CONTENT["budgets"]
) -> list[dict[str, Any]]:
    """What is trained: tuned runs, and runs with fixed weights, by name."""
    out: list[dict[str, Any]] = []
    start = CONTENT["common"]["objective"]["diffusion"]["weight"]
    for task in tasks if "tasks" in chosen else ():
        out += [{"task": task, "budget": budget, "start": start} for budget in budgets]
    if "starts" in chosen:
        out += [{"task": "heart", "budget": CONTENT["budgets"][0], "start": s} for s in CONTENT["starts"] if s != start]
    if "fixed" in chosen:
        out += [{"task": "heart", "weights": {"diffusion": weight}} for weight in CONTENT["fixed"]]
        out.append({"task": "heart", "weights": PUBLISHED, "title": "published λ"})
    if "encoders" in chosen:
        out += [{"task": "contrasts", "weights": {}, "title": f"{kind} encoders", "network": {"encoders": kind}}
                for kind in ("shared", "separate")]  # fmt: skip
    return out


def name_of(job: dict[str, Any]) -> str:
    if "budget" in job:
        return f"{job['task']}, budget {job['budget']:g}, start {job['start']:g}"
    return f"{job['task']}, {job.get('title') or 'fixed ' + format(job['weights']['diffusion'], 'g')}"


def folder_of(runs: Path, name: str) -> Path:
    return runs / name.replace(", ", "-").replace(" ", "_")


def trained(settings: TrainingSettings, folder: Path, cache: Path) -> None:
    """Train, if that is not done; an interrupted run goes on."""
    if (folder / "done.json").exists():
        return
    print(time.strftime("%H:%M:%S"), folder.name, flush=True)
    resume = (folder / "last" / "state.safetensors").exists()
    facts = machine()
    train(read_settings(folder / "config.yaml") if resume else settings, Run(folder, cache, resume, True, on_event=told))
    (folder / "done.json").write_text(json.dumps({**facts, "load": round(os.getloadavg()[0], 1)}))


def told(event: Event) -> None:
    if event.stage == "validation" or event.text:
        print("  ", event.step, event.text, {k: round(v, 4) for k, v in event.values.items()}, flush=True)


def run(arguments: argparse.Namespace) -> None:
    """Everything that is not trained yet."""
    for job in jobs_of(arguments.parts, arguments.tasks, arguments.budgets):
        folder, task = folder_of(arguments.runs, name_of(job)), job["task"]
        cache = arguments.runs / "cache" / CONTENT["tasks"][task]["people"]
        if "weights" in job:
            trained(settings_of(task, arguments.data, job["weights"], network=job.get("network")), folder, cache)
            continue
        trained(settings_of(task, arguments.data, {smooth(task): job["start"]}, budget=job["budget"]), folder, cache)
        if task == "heart":
            trained(read_settings(folder / "tuned.yaml"), again(folder), cache)
    for sampler in ("gp", "random") if "studies" in arguments.parts else ():
        study(sampler, sampler, arguments)
    for name in CONTENT["against"] if "against" in arguments.parts else ():
        study(name, "gp", arguments)


def again(folder: Path) -> Path:
    """The run that is trained by what a tuning found."""
    return folder.with_name(folder.name + "-again")


def study(name: str, sampler: str, arguments: argparse.Namespace) -> None:
    """Trainings of the heart with weights that are proposed, within the first budget: of the network that is tuned, or of
    another, whose objective may have terms of its own."""
    folder = arguments.runs / f"study-{name.replace(' ', '_')}"
    if (folder / BEST).exists():
        return
    arguments.runs.mkdir(parents=True, exist_ok=True)
    config = arguments.runs / f"{folder.name}-begins.yaml"
    begins = settings_of("heart", arguments.data, {})
    if other := CONTENT["against"].get(name):
        content = {**begins.model_dump(mode="json"), "network": other["network"]}
        content["objective"] = {**content["objective"], **other.get("objective", {})}
        begins = TrainingSettings.parse(content)
    config.write_text(yaml_of(begins))
    settings = None if (folder / "study.yaml").exists() else StudySettings.parse({
        "config": str(config), "sampler": sampler, "trials": TRIED, "startup": 3, "baseline": False, "folds": 0,
        "space": {"objective.diffusion.weight": {"low": 0.01, "high": 10.0, "log": True},
                  "objective.half.weight": {"low": 0.05, "high": 5.0, "log": True}},
        "constraints": {"sd_log_jacobian": {"at_most": CONTENT["budgets"][0]}},
    })  # fmt: skip
    search(settings, folder, on_event=told)
    cache = arguments.runs / "cache" / "heart"
    trained(read_settings(folder / BEST), folder_of(arguments.runs, f"heart, {name}"), cache)


def curved(image: Image, *, seed: int) -> Image:
    """An image through a curve of a family that training does not know: a power, a wave, or either upside down."""
    rng = np.random.default_rng([7, seed])
    low, high = intensity_range(image.data)
    x = np.clip((image.data.astype(np.float32) - low) / max(high - low, 1e-6), 0, 1)
    y = x ** np.exp(rng.uniform(-0.7, 0.7)) if rng.random() < 0.5 else x + rng.uniform(0.2, 0.35) * np.sin(2 * np.pi * x)
    y = 1 - y if rng.random() < 0.5 else y
    return Image(np.where(x > 0.02, y, 0).astype(np.float32), image.grid, name=image.name)


def change_of(task: str, number: int) -> Callable[[Image], Image]:
    """What is done to the two images of a pair, one after the other."""
    if task != "contrasts":
        return as_it_is
    changes = iter((as_it_is, partial(curved, seed=number)))
    return lambda image: next(changes)(image)


def pairs_of(task: str, dataset: Dataset, on: str) -> list[tuple[Scan, Scan]]:
    chosen = who(task, dataset)[on]
    if on == "test" and dataset.test_pairs:
        return list(dataset.test_pairs)
    scans = tuple(s for s in (*dataset.training, *dataset.validation) if person(s) in chosen)
    if task == "atlas":
        return [(atlas_of(dataset), scan) for scan in scans]
    if task == "heart":
        return validation_pairs(dataset, part=parts(dataset, {on: chosen})[on])
    return validation_pairs(dataset, part=Part(frozenset(chosen), scans))


def weights_of(folder: Path, task: str) -> dict[str, float]:
    """Weights that a run trained by in the end, as ratios to its first similarity."""
    tuned = folder / "tuned.yaml"
    objective = read_settings(tuned if tuned.exists() else folder / "config.yaml").objective
    first = next(iter(objective.values())).weight
    names = {smooth(task): "diffusion", "half-mind": "half"}
    return {names.get(name, name): round(term.weight / first, 5) for name, term in list(objective.items())[1:]}


def rows_of(arguments: argparse.Namespace) -> dict[str, tuple[str, Path]]:
    """Every training that is done: name → task, folder."""
    out: dict[str, tuple[str, Path]] = {}
    for job in jobs_of(PARTS, [*CONTENT["tasks"]]):
        folder = folder_of(arguments.runs, name_of(job))
        out[name_of(job)] = job["task"], folder
        if "budget" in job:
            out[name_of(job) + ", again"] = job["task"], again(folder)
    for found in ("gp", "random", *CONTENT["against"]):
        out[f"heart, {found}"] = "heart", folder_of(arguments.runs, f"heart, {found}")
    return {name: found for name, found in out.items() if (found[1] / "done.json").exists()}


def evaluate(arguments: argparse.Namespace) -> None:
    """Measure every training's last weights on people of a part."""
    out = RESULTS / f"tuning_{arguments.on}.json"
    rows = rows_of(arguments)
    if arguments.on == "test":
        if not arguments.reason:
            raise SystemExit("--reason: why are test people looked at?")
        note_in_ledger("tuning", arguments.reason, [*rows])
    found: list[dict[str, Any]] = []
    for name, (task, folder) in rows.items():
        dataset = dataset_of(task, arguments.data)
        method = Method.of_model(Model.load(folder / "last"))
        last = [r for r in history(folder) if r["kind"] == "validation"][-1]
        measured = []
        for number, pair in enumerate(pairs_of(task, dataset, arguments.on)):
            row = run_method(name, method, pair, dataset.averaged, change=change_of(task, number))
            measured.append({
                "fixed": row.people[0], "moving": row.people[1], "dice": round(row.mean_dice, 5),
                "sd_log_jacobian": round(row.sd_log_jacobian, 4), "percent_ndv": row.percent_ndv,
            })  # fmt: skip
        done = json.loads((folder / "done.json").read_text())
        found.append({
            "name": name, "task": task, "weights": weights_of(folder, task), "pairs": measured, **times(folder),
            "on_select": {k: last[k] for k in ("dice", "sd_log_jacobian", "folded_percent") if k in last},
            "trained": {k: done[k] for k in ("date", "commit", "cpu", "cores", "load")},
        })  # fmt: skip
        print(name, found[-1]["weights"], np.mean([p["dice"] for p in measured]), flush=True)
    studies = {}
    for name in ("gp", "random", *CONTENT["against"]):
        if (file := arguments.runs / f"study-{name.replace(' ', '_')}" / TRIALS).exists():
            studies[name] = [json.loads(line) for line in file.read_text().splitlines()]
    facts = machine()
    content = {"command": facts.pop("command"), "on": arguments.on, "rows": found, "studies": studies, "measured": facts}
    out.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    table(arguments)


def table(arguments: argparse.Namespace) -> None:
    """What was measured, as Markdown, and a picture of λ by task."""
    content = json.loads((RESULTS / f"tuning_{arguments.on}.json").read_text())
    lines = [
        f"# Objectives that tune themselves: people of `{content['on']}`", "",
        f"`{content['command']}`; brackets: 95 % by bootstrap over people.",
        "Weights are ratios to that of the first similarity.", "",
    ]  # fmt: skip
    body: list[list[str]] = []
    for row in content["rows"]:
        pairs = [(p["fixed"], p["moving"]) for p in row["pairs"]]
        dice = [p["dice"] for p in row["pairs"]]
        low, high = interval(pairs, dice)
        rough, folds = (float(np.mean([p[key] for p in row["pairs"]])) for key in ("sd_log_jacobian", "percent_ndv"))
        body.append([
            row["name"], f"{row['weights']['diffusion']:.3g}", f"{row['weights']['half']:.3g}",
            f"{np.mean(dice):.4f} [{low:.3f}, {high:.3f}]", f"{rough:.3f}", f"{folds:.2g}",
            f"{row['on_select'].get('folded_percent', 0):.2g}", str(len({p for pair in pairs for p in pair})),
            str(row["steps"]), f"{row['minutes']}", str(row["trained"]["load"]), row["trained"]["commit"],
        ])  # fmt: skip
    head = ["run", "λ diffusion", "λ half", "Dice", "SDlogJ", "% NDV", "% folded before repair, select", "people",
            "steps", "minutes", "load", "commit"]  # fmt: skip
    several = len({row["task"] for row in content["rows"]}) > 1
    lines += [*markdown_table(head, body), "", *(["![λ by task](tuning.png)", ""] if several else []), *compared(content)]
    (RESULTS / f"tuning_{arguments.on}.md").write_text("\n".join(lines))
    if arguments.on == "test":
        put(HERE.parent / "docs" / "learning.md", BEGIN, compared(content))
    if several:
        drawn(content["rows"], RESULTS / "tuning.png")


def compared(content: dict[str, Any]) -> list[str]:
    """Hearts within the first budget: the tuned cascade against fixed weights, studies and other networks, on equal pairs.

    A fixed weight is beyond the budget where it is on people who select.
    """
    rows = {row["name"]: row for row in content["rows"]}
    budget, start = CONTENT["budgets"][0], CONTENT["common"]["objective"]["diffusion"]["weight"]
    name = f"heart, budget {budget:g}, start {start:g}"
    if name + ", again" not in rows:
        return []
    base = rows[name + ", again"]
    fixed = [row for key, row in rows.items() if key.startswith("heart, fixed")]
    cost = {name + ", again": rows[name]["minutes"] + base["minutes"]}
    others: dict[str, str] = {}
    for other in CONTENT["starts"]:
        key = f"heart, budget {budget:g}, start {other:g}"
        if other != start and key + ", again" in rows:
            others[f"the same from λ {other:g}"] = key + ", again"
            cost[key + ", again"] = rows[key]["minutes"] + rows[key + ", again"]["minutes"]
    for row in fixed:
        beyond = "" if row["on_select"]["sd_log_jacobian"] <= budget else ", beyond the budget"
        others[f"fixed, λ {row['weights']['diffusion']:g}{beyond}"] = row["name"]
        cost[row["name"]] = row["minutes"]
    for found in ("published λ", "gp", "random", *CONTENT["against"]):
        if f"heart, {found}" in rows:
            others[found] = f"heart, {found}"
            trials = content["studies"].get(found, [])
            cost[f"heart, {found}"] = sum(t["seconds"] for t in trials) / 60 + rows[f"heart, {found}"]["minutes"]
    table: list[list[str]] = []
    for title, key in {"tuned, then trained": name + ", again", **others}.items():
        row = rows[key]
        gaps = [a["dice"] - b["dice"] for a, b in zip(row["pairs"], base["pairs"], strict=True)]
        low, high = interval([(p["fixed"], p["moving"]) for p in row["pairs"]], gaps)
        share = row["weights"]["diffusion"] / (1 + row["weights"]["half"])
        table.append([
            title, f"{share:.3f}", f"{np.mean([p['dice'] for p in row['pairs']]):.4f}",
            "" if row is base else f"{np.mean(gaps):+.4f} [{low:+.3f}, {high:+.3f}]",
            f"{np.mean([p['sd_log_jacobian'] for p in row['pairs']]):.3f}",
            f"{row['on_select']['dice']:.4f} ({row['on_select']['sd_log_jacobian']:.3f})", f"{cost[key]:.1f}",
        ])  # fmt: skip
    head = [
        "hearts",
        "λ over all similarity",
        "Dice",
        "against tuned [95 %, people]",
        "SDlogJ",
        "on select: Dice (SDlogJ)",
        "minutes in all",
    ]
    about = f"Hearts, SDlogJ ≤ {budget:g} on people who tune or select; minutes: of all trainings that it took, one core."
    return [about, "", *markdown_table(head, table), ""]


def drawn(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """λ of the diffusion by task, at each budget."""
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axis: Any = figure.subplots()
    start = CONTENT["common"]["objective"]["diffusion"]["weight"]
    tasks = [t for t in CONTENT["tasks"] if any(r["task"] == t and "budget" in r["name"] for r in rows)]
    for n, budget in enumerate(CONTENT["budgets"]):
        wanted = {f"{task}, budget {budget:g}, start {start:g}": i for i, task in enumerate(tasks)}
        found = [(wanted[r["name"]], r["weights"]["diffusion"]) for r in rows if r["name"] in wanted]
        axis.scatter([i + 0.12 * (n - 0.5) for i, _ in found], [w for _, w in found], label=f"SDlogJ ≤ {budget:g}")
    axis.axhline(start, color="black", ls=":", lw=1, label="start")
    axis.set_yscale("log")
    axis.set_xticks(range(len(tasks)), tasks)
    axis.set_ylabel("λ of diffusion, λ of the similarity 1")
    axis.legend(frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["run", "evaluate", "table"])
    parser.add_argument("--runs", type=Path, default=Path("runs/tuning"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--parts", nargs="*", default=PARTS)
    parser.add_argument("--tasks", nargs="*", default=[*CONTENT["tasks"]])
    parser.add_argument("--budgets", nargs="*", type=float, default=CONTENT["budgets"])
    parser.add_argument("--on", choices=["select", "test"], default="test")
    parser.add_argument("--reason", default="")
    arguments = parser.parse_args()
    {"run": run, "evaluate": evaluate, "table": table}[arguments.what](arguments)


if __name__ == "__main__":
    main()
