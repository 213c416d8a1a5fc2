"""Studies: a Gaussian process, a Parzen estimator and chance on the solver of hippocampi; and a study that is killed.

    python benchmarks/studies.py compare --data DATA --runs DIR [--seeds 0 1 2] [--trials 30]
    python benchmarks/studies.py kills [--kills 20]

Compare: `balanced` on pairs of the twelve people of `objective` (benchmarks/protocol.md), no rougher than it is; nothing is
pruned, so that samplers are compared by equal numbers of whole trials. Studies that were stopped go on. The best of the
first seed's Gaussian process is then measured on people who select, against what it began with.
Kills: SIGKILL at random moments of a study whose trials are a formula, each time gone on with.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, markdown_table
from matplotlib.figure import Figure
from protocol import DATASETS, people

from warpwise.data.pairs import balanced
from warpwise.data.people import parts
from warpwise.evaluation.statistics import interval
from warpwise.events import Event
from warpwise.io.datasets import Dataset, read_dataset
from warpwise.levels.measurement import run_method
from warpwise.levels.search import BEST, TRIALS, run
from warpwise.levels.study import JOURNAL, Study
from warpwise.levels.study_settings import StudySettings
from warpwise.methods import Method

RESULTS = Path(__file__).parent / "results"
TOY = Path(__file__).parents[1] / "tests" / "toy_study.py"
TASK = "hippocampus"
SPACE = {
    "objective.smoothness.update_sigma": {"low": 0.5, "high": 4.0, "log": True},
    "objective.smoothness.field_sigma": {"low": 0.2, "high": 1.2},
    "registrar.scales.*.radius": {"low": 1, "high": 5},
    "registrar.momentum": {"low": 0.0, "high": 0.9},
    "registrar.cap": {"low": 0.2, "high": 0.8},
}
SAMPLERS = ("gp", "tpe", "random")
TRIALS_KILLED = 80
NAMES = {"gp": "Gaussian process", "tpe": "Parzen estimator", "random": "chance"}


def study_of(sampler: str, seed: int, dataset: Dataset, trials: int) -> StudySettings:
    return StudySettings.parse({
        "method": "balanced", "space": SPACE, "sampler": sampler, "seed": seed, "trials": trials, "pruning": False,
        "baseline": False, "constraints": {"sd_log_jacobian": {"at_most": 1.0, "of_base": True}},
        "data": {"dataset": dataset.folder, "people": people(TASK, dataset)["objective"], "pairs": 12},
    })  # fmt: skip


def compare(arguments: argparse.Namespace) -> None:
    dataset = read_dataset(arguments.data / DATASETS[TASK])
    out = RESULTS / "studies.json"
    rows: list[dict[str, Any]] = []
    for seed in arguments.seeds:
        for sampler in SAMPLERS:
            folder = arguments.runs / f"{sampler}-{seed}"
            known = (folder / "study.yaml").exists()
            settings = None if known else study_of(sampler, seed, dataset, arguments.trials)
            found = run(settings, folder, on_event=told)
            lines = [json.loads(line) for line in (folder / TRIALS).read_text().splitlines()]
            rows.append({
                "sampler": sampler, "seed": seed, "so_far": found.so_far["study"], "before": found.base["dice"],
                "best": found.best.values, "figures": found.best.figures,
                "guarded": None if found.guarded is None else vars(found.guarded),
                "seconds": found.seconds["study"], "load": round(float(np.mean([line["load"] for line in lines])), 1),
                **{k: v for k, v in machine().items() if k in ("date", "commit", "cpu", "cores")},
            })  # fmt: skip
            out.write_text(json.dumps({"command": machine()["command"], "rows": rows}, indent=1, ensure_ascii=False) + "\n")
    on_others = judged(arguments.runs / f"gp-{arguments.seeds[0]}" / BEST, dataset)
    out.write_text(
        json.dumps({"command": machine()["command"], "rows": rows, "select": on_others}, indent=1, ensure_ascii=False)
        + "\n"
    )
    out.with_suffix(".md").write_text(report(rows, on_others))
    drawn(rows, RESULTS / "studies.png")


def told(event: Event) -> None:
    print(event.stage, event.step, event.text, {k: round(v, 4) for k, v in event.values.items()}, flush=True)


def judged(best: Path, dataset: Dataset) -> list[dict[str, Any]]:
    """The best, and what it began with, on people who select."""
    part = parts(dataset, {"select": people(TASK, dataset)["select"]})["select"]
    methods = {"balanced": Method.named("balanced"), "found": Method.named(best), "accurate": Method.named("accurate")}
    out: list[dict[str, Any]] = []
    for pair in balanced(part.scans, 48):
        for name, method in methods.items():
            row = run_method(name, method, pair, dataset.averaged)
            out.append({
                "method": name, "fixed": row.people[0], "moving": row.people[1], "dice": round(row.mean_dice, 5),
                "sd_log_jacobian": round(row.sd_log_jacobian, 4), "seconds": round(row.seconds, 3),
            })  # fmt: skip
    return out


def report(rows: list[dict[str, Any]], on_others: list[dict[str, Any]]) -> str:
    """Best so far, and the best on people who select, as Markdown."""
    at = [n for n in (5, 10, 20, 30) if n <= len(rows[0]["so_far"])]
    table = []
    for sampler in dict.fromkeys(r["sampler"] for r in rows):
        mine = [r for r in rows if r["sampler"] == sampler]
        cells = []
        for n in at:
            values = [r["so_far"][n - 1] or float("nan") for r in mine]
            cells.append(f"{np.nanmedian(values):.4f} [{np.nanmin(values):.4f}, {np.nanmax(values):.4f}]")
        seconds, load = (np.mean([r[key] for r in mine]) for key in ("seconds", "load"))
        commits = ", ".join(dict.fromkeys(r["commit"] for r in mine))
        table.append([NAMES[sampler], *cells, str(len(mine)), f"{seconds:.0f}", f"{load:.1f}", commits])
    head = ["best Dice so far after", *[f"{n} trials" for n in at], "seeds", "seconds", "load", "commit"]
    lines = [
        "# Studies of the solver on hippocampi", "",
        f"`python benchmarks/studies.py compare`; before: {rows[0]['before']:.4f}. Median and range over seeds; twelve",
        "pairs of the twelve people of `objective`; no rougher than `balanced`.", "", *markdown_table(head, table), "",
        "![curves](studies.png)", "", "On 48 pairs of the 24 people who select, whom nothing of it was chosen by:", "",
    ]  # fmt: skip
    base = [r for r in on_others if r["method"] == "balanced"]
    pairs = [(r["fixed"], r["moving"]) for r in base]
    table = []
    for name in dict.fromkeys(r["method"] for r in on_others):
        mine = [r for r in on_others if r["method"] == name]
        gaps = [a["dice"] - b["dice"] for a, b in zip(mine, base, strict=True)]
        low, high = interval(pairs, gaps)
        table.append([
            name, f"{np.mean([r['dice'] for r in mine]):.4f}", f"{np.mean(gaps):+.4f} [{low:+.4f}, {high:+.4f}]",
            f"{np.mean([r['sd_log_jacobian'] for r in mine]):.3f}", f"{np.median([r['seconds'] for r in mine]):.2f}",
        ])  # fmt: skip
    head = ["method", "Dice", "more than balanced [95 %, people]", "SDlogJ", "seconds"]
    return "\n".join([*lines, *markdown_table(head, table)]) + "\n"


def drawn(rows: list[dict[str, Any]], path: Path) -> None:
    """Median of the best so far over seeds, and its range."""
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axis: Any = figure.subplots()
    for n, sampler in enumerate(dict.fromkeys(r["sampler"] for r in rows)):
        curves = np.array([[np.nan if v is None else v for v in r["so_far"]] for r in rows if r["sampler"] == sampler])
        x = np.arange(1, curves.shape[1] + 1)
        axis.step(x, np.nanmedian(curves, 0), where="post", color=f"C{n}", label=NAMES[sampler])
        axis.fill_between(x, np.nanmin(curves, 0), np.nanmax(curves, 0), step="post", color=f"C{n}", alpha=0.15, lw=0)
    axis.axhline(rows[0]["before"], color="black", ls=":", lw=1, label="balanced")
    axis.set_xlabel("trials")
    axis.set_ylabel("best Dice so far (median, range of seeds)")
    axis.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=110)


def kills(arguments: argparse.Namespace) -> None:
    """A study that is killed at random moments, against one that is not."""
    sys.path.insert(0, str(TOY.parent))
    import toy_study

    rng, at_work = random.Random(0), 0
    ends: dict[str, list[Any]] = {}
    with tempfile.TemporaryDirectory() as place:
        for name, count in (("killed", arguments.kills), ("whole", 0)):
            folder = Path(place) / name
            journal = folder / JOURNAL
            program = [sys.executable, str(TOY), str(folder), "0.2", str(TRIALS_KILLED)]
            for _ in range(count):
                process = subprocess.Popen(program)
                before = journal.stat().st_size if journal.exists() else 0
                while process.poll() is None and (not journal.exists() or journal.stat().st_size == before):
                    time.sleep(0.01)
                time.sleep(rng.uniform(0.0, 1.2))  # it is at work
                at_work += process.poll() is None
                process.send_signal(signal.SIGKILL)
                process.wait()
            subprocess.run(program, check=True)
            study = Study(toy_study.settings(trials=TRIALS_KILLED), Method.named("balanced"), folder)
            ends[name] = [(p.number, p.state, p.values, p.figures) for p in study.proposals()]
            attempts = len(study.optuna.get_trials())
            if name == "killed":
                row = {"kills": at_work, "attempts": attempts}
    row |= {"proposals": len(ends["killed"]), "all_complete": all(p[1] == "complete" for p in ends["killed"]),
            "numbers_once_each": [p[0] for p in ends["killed"]] == list(range(len(ends["killed"]))),
            "same_as_never_killed": ends["killed"] == ends["whole"], **machine()}  # fmt: skip
    (RESULTS / "study_kills.json").write_text(json.dumps(row, indent=1) + "\n")
    print(row)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["compare", "kills"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--runs", type=Path, default=Path("runs/studies"))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--kills", type=int, default=20)
    arguments = parser.parse_args()
    {"compare": compare, "kills": kills}[arguments.what](arguments)


if __name__ == "__main__":
    main()
