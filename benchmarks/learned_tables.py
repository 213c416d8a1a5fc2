"""Tables of what `learned.py` measured: one of each task, and one of all of them for README and docs/learning.md."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from common import markdown_table

from warpwise.evaluation.statistics import holm, interval, p_value

HERE = Path(__file__).parent
PRESETS = ("affine", "fast", "balanced", "accurate", "energy")
BASE = "accurate"
SHOWN_TASKS = ("hippocampus", "heart", "brains")
SHOWN = {
    "affine": "affine stage alone",
    "fast": "solver, `fast`",
    "balanced": "solver, `balanced`",
    "accurate": "solver, `accurate`",
    "energy": "solver, `energy`",
    "VoxelMorph, labels": "VoxelMorph",
    "VoxelMorph on windows, labels": "VoxelMorph, on windows",
    "VoxelMorph on windows, labels, refined": "VoxelMorph, on windows, refined",
    "VM-diff, labels": "VM-diff",
    "VM-diff on windows, labels": "VM-diff, on windows",
    "VM-diff on windows, labels, refined": "VM-diff, on windows, refined",
    "TransMorph, labels": "TransMorph",
    "TransMorph on windows, labels": "TransMorph, on windows",
    "TransMorph on windows, labels, refined": "TransMorph, on windows, refined",
    "pyramid, labels": "**pyramid**",
    "pyramid, labels, refined": "**pyramid**, refined",
    "pyramid on windows, labels": "**pyramid**, on windows",
    "pyramid on windows, labels, refined": "**pyramid**, on windows, refined",
    "pyramid, no labels": "**pyramid**, without labels",
    "pyramid, no labels, refined": "**pyramid**, without labels, refined",
    "pyramid on windows, no labels": "**pyramid**, on windows, without labels",
    "pyramid on windows, no labels, refined": "**pyramid**, on windows, without labels, refined",
    "pyramid as in 0.1, labels": "pyramid as in 0.1",
    "pyramid as in 0.1 on windows, labels": "pyramid as in 0.1, on windows",
    "pyramid as in 0.1, no labels": "pyramid as in 0.1, without labels",
    "symmetric, labels": "**symmetric** pyramid",
    "symmetric on windows, labels": "**symmetric** pyramid, on windows",
    "symmetric on windows, labels, refined": "**symmetric** pyramid, on windows, refined",
    "features, labels": "**features** and their solver",
    "features, labels, refined": "**features**, refined",
    "features on windows, labels": "**features** and their solver, on windows",
    "features on windows, labels, refined": "**features**, on windows, refined",
    "features, no labels": "**features**, without labels",
    "features on windows, no labels": "**features**, on windows, without labels",
    "cascade, labels": "**cascade**",
    "cascade on windows, labels": "**cascade**, on windows",
    "cascade on windows, labels, refined": "**cascade**, on windows, refined",
    "accurate, structures": "`accurate`, led by **structures**",
    "accurate, features": "`accurate`, led by **features**",
    "accurate, features on windows": "`accurate`, led by **features** of windows",
    "accurate, features, no labels": "`accurate`, led by features without labels",
    "accurate, features on windows, no labels": "`accurate`, led by features of windows without labels",
    "energy, features": "`energy`, led by **features**",
    "energy, features on windows": "`energy`, led by **features** of windows",
    "energy, features, no labels": "`energy`, led by features without labels",
}
# In README one line each, of whole images or of windows, whichever was trained.
BRIEFLY = {
    SHOWN[names[0]]: names
    for names in (
        ("affine",), ("accurate",),
        ("VoxelMorph, labels", "VoxelMorph on windows, labels"),
        ("pyramid, labels", "pyramid on windows, labels"),
        ("pyramid, labels, refined", "pyramid on windows, labels, refined"),
        ("features, labels", "features on windows, labels"),
        ("accurate, structures",),
        ("accurate, features", "accurate, features on windows"),
    )
}  # fmt: skip
TOLD = "labels told apart / others / its own Dice"
BEGIN, END = "<!-- learned.py table -->", "<!-- end -->"


def content_of(task: str) -> dict[str, Any]:
    return yaml.safe_load((HERE / "learned" / f"{task}.yaml").read_text())


def report(content: dict[str, Any]) -> str:
    """The table as Markdown: seeds averaged on each pair, then pairs; people drawn anew for intervals."""
    settings = content_of(content["task"])
    known = {*settings.get("presets", PRESETS), *settings["rows"], *settings.get("led", {}), *settings.get("tried", ())}
    rows = [r for r in content["rows"] if r["method"].removesuffix(", refined") in known]
    base = settings.get("base", BASE)
    who = sorted({r["fixed"] for r in rows} | {r["moving"] for r in rows})
    pairs = sorted({r["pair"] for r in rows})
    primary = settings.get("primary", "") if content["on"] == "test" else ""
    lines = [
        f"# {content['task']}: {len(who)} people of `{content['on']}`, {len(pairs)} pairs",
        "",
        f"`python benchmarks/learned.py evaluate {content['task']} --on {content['on']}`; ± over seeds; brackets: 95 % by",
        f"bootstrap over people, in both roles; gain: over `{base}`, on the same pairs. Weights were chosen on `select`.",
        "p: jackknife over people, of these trained networks; another training may differ by more.",
        *([f"Named before the run to be compared: {primary}*; p of all others by Holm."] if primary else []),
        "",
    ]
    names = list(dict.fromkeys(r["method"] for r in rows))
    of = {name: [r for r in rows if r["method"] == name] for name in names}
    scores = {name: averaged(mine, pairs, "dice") for name, mine in of.items()}
    pairs_of_people = [next((r["fixed"], r["moving"]) for r in rows if r["pair"] == pair) for pair in pairs]
    gains = {k: np.subtract(v, scores[base]) for k, v in scores.items() if k != base and base in scores}
    whole = {k: v for k, v in gains.items() if np.isfinite(v).all()}
    chance = {k: p for k, v in whole.items() if (p := p_value(pairs_of_people, v)) is not None}
    others = [k for k in chance if k != primary]
    chance |= dict(zip(others, holm([chance[k] for k in others]), strict=True))
    table: list[list[str]] = []
    for name, mine in of.items():
        known_here = [n for n, value in enumerate(scores[name]) if np.isfinite(value)]
        people_here, dice = [pairs_of_people[n] for n in known_here], [scores[name][n] for n in known_here]
        seeds, spread = over_seeds(mine, digits=4)
        low, high = interval(people_here, dice)
        part = "" if len(known_here) == len(pairs) else f" ({len(known_here)} pairs)"
        cells = [name + part, mine[0]["labels"], f"{np.mean(dice):.4f}{spread} [{low:.3f}, {high:.3f}]"]
        bounds = interval(pairs_of_people, whole[name]) if name in whole else None
        cells.append(f"{whole[name].mean():+.4f} [{bounds[0]:+.3f}, {bounds[1]:+.3f}]" if bounds else "")
        cells.append(f"{chance[name]:.2g}" + ("*" if name == primary else "") if name in chance else "")
        cells.append(f"{np.mean([r['subcortical'] for r in mine]):.4f}" if "subcortical" in mine[0] else "")
        cells.append(of_structures(mine))
        cells += [
            f"{np.mean([r[k] for r in mine]):.{digits}g}" for k, digits in (("sd_log_jacobian", 3), ("percent_ndv", 2))
        ]
        cells += [f"{np.median([r['seconds'] for r in mine]):.2f}"]
        cells += [span([r[k] for r in mine if k in r]) for k in ("minutes", "steps")]
        cells += [", ".join(map(str, seeds)), f"{np.mean([r['load'] for r in mine]):.1f}"]
        cells += [", ".join(dict.fromkeys(r["commit"] for r in mine))]
        table.append(cells)
    head = ["method", "labels used", "Dice", "gain", "p", "subcortical", TOLD, "SDlogJ", "% NDV", "s a pair", "trained min",
            "steps", "seeds", "load", "commit"]  # fmt: skip
    empty = [n for n, title in enumerate(head) if title in ("p", "subcortical", TOLD) and not any(row[n] for row in table)]
    table = [[cell for n, cell in enumerate(row) if n not in empty] for row in table]
    head = [title for n, title in enumerate(head) if n not in empty]
    machines = "; ".join(dict.fromkeys(f"{r['cpu']}, {r['cores']} cores" for r in rows))
    return "\n".join([*lines, *markdown_table(head, table), "", f"{machines}."]) + "\n"


def over_seeds(rows: Sequence[dict[str, Any]], *, digits: int) -> tuple[list[int], str]:
    """Seeds of one method's rows, and ± the standard deviation of its mean Dice over them; empty where there is but one."""
    seeds = sorted({r["seed"] for r in rows if "seed" in r})
    means = [np.mean([r["dice"] for r in rows if r.get("seed") == seed]) for seed in seeds]
    return seeds, f" ± {np.std(means, ddof=1):.{digits}f}" if len(seeds) > 1 else ""


def of_structures(rows: Sequence[dict[str, Any]]) -> str:
    """Dice of labels that a segmentation tells apart, of the others, and its own on people who select; empty for others."""
    known = [[r[k] for r in rows if r.get(k) is not None] for k in ("dice_told", "dice_untold", "segmentation")]
    return " / ".join(f"{np.mean(values):.3f}" if values else "–" for values in known) if known[2] else ""


def averaged(rows: Sequence[dict[str, Any]], pairs: Sequence[str], key: str) -> list[float]:
    """Means over seeds for each pair; NaN where one of them has none."""
    by_pair: dict[str, list[float]] = {pair: [] for pair in pairs}
    for row in rows:
        by_pair[row["pair"]].append(row[key])
    seeds = len({row.get("seed") for row in rows})
    return [float(np.mean(values)) if len(values) == seeds else float("nan") for values in by_pair.values()]


def span(values: Sequence[float]) -> str:
    """From … to, or the one that all are."""
    low, high = min(values, default=""), max(values, default="")
    return str(low) if low == high else f"{low} – {high}"


def table_all(_: argparse.Namespace) -> None:
    """What is shown of all tasks, between marks in README.md and docs/learning.md."""
    places = {task: HERE / "results" / f"learned_{task}_test.json" for task in SHOWN_TASKS}
    found = {task: json.loads(place.read_text())["rows"] for task, place in places.items() if place.exists()}
    names = {r["method"].removesuffix(", refined") for rows in found.values() for r in rows}
    if untitled := sorted(names - set(SHOWN)):
        raise SystemExit(f"Measured, and without a title: {untitled}")
    head = ["mean Dice (SDlogJ) on people kept for a last test"]
    for task, rows in found.items():
        who = {r["fixed"] for r in rows} | {r["moving"] for r in rows}
        seeds = {r["seed"] for r in rows if "seed" in r}
        fewer = any(0 < len({r["seed"] for r in rows if r["method"] == n and "seed" in r}) < len(seeds) for n in names)
        said = f"{'at most ' * fewer}{len(seeds)} seed{'s' * (len(seeds) > 1)}"
        head.append(f"{task}: {len(who)} people, {said}")
    whole = {title: (name,) for name, title in SHOWN.items()}
    for path, titles in ((HERE.parent / "README.md", BRIEFLY), (HERE.parent / "docs" / "learning.md", whole)):
        table = [[title, *[cell(rows, names) for rows in found.values()]] for title, names in titles.items()]
        put(path, BEGIN, markdown_table(head, [row for row in table if any(part != "–" for part in row[1:])]))


def put(path: Path, begin: str, lines: Sequence[str]) -> None:
    """Lines between two marks of a page, in place of those that were there."""
    before, begun, rest = path.read_text(encoding="utf-8").partition(begin)
    _, ended, after = rest.partition(END)
    if not begun or not ended:
        raise SystemExit(f"{path} does not say where the table belongs: {begin} … {END}")
    path.write_text("\n".join([before + begin, *lines, END + after]), encoding="utf-8")


def cell(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> str:
    """Dice, roughness and minutes of training of the first of these methods that was measured."""
    mine = next((found for name in names if (found := [r for r in rows if r["method"] == name])), None)
    if mine is None:
        return "–"
    minutes = [r["minutes"] for r in mine if "minutes" in r]
    trained = f", {np.mean(minutes):.0f} min" if minutes else ""
    seeds, most = ({r["seed"] for r in some if "seed" in r} for some in (mine, rows))
    trained += f", {len(seeds)} seed{'s' * (len(seeds) > 1)}" if 0 < len(seeds) < len(most) else ""
    return f"{np.mean([r['dice'] for r in mine]):.3f} ({np.mean([r['sd_log_jacobian'] for r in mine]):.2f}{trained})"
