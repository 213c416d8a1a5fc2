"""The page of a study: whether it found something, where, and what it cost."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from warpwise.levels.findings import Findings
from warpwise.levels.search import BEST, TRIALS
from warpwise.levels.space import written
from warpwise.levels.study_settings import StudySettings
from warpwise.report.figures import STYLE
from warpwise.report.rendering import address, rendered

COLOURS = {"study": "#81c784", "random": "#9aa6b2", "front": "#64b5f6"}
Rows = Sequence[Mapping[str, Any]]
"""Proposals, as they stand in trials.jsonl."""


def write_page(settings: StudySettings, found: Findings, folder: Path) -> Path:
    """report.html of a study that has ended; its path."""
    lines = (folder / TRIALS).read_text(encoding="utf-8").splitlines()
    text = page(settings, found, [json.loads(line) for line in lines], (folder / BEST).read_text(encoding="utf-8"))
    out = folder / "report.html"
    out.write_text(text, encoding="utf-8")
    return out


def page(settings: StudySettings, found: Findings, rows: Rows, best: str) -> str:
    """The page as text."""
    return rendered(
        "study.html.j2",
        title=title(settings),
        verdict=verdict(settings, found),
        warnings=warnings(settings, found),
        tables=tables(settings, found),
        figures=[(title, picture(title, draw, settings, found, rows)) for title, draw in FIGURES if wanted(title, found)],
        best=best,
    )


def title(settings: StudySettings) -> str:
    """What was searched, and on what."""
    return "Study of a training" if settings.data is None else f"Study of a method on {settings.data.dataset.name}"


def verdict(settings: StudySettings, found: Findings) -> tuple[str, str]:
    """A word and a colour for the whole: is the best better than what it began with, on people who did not choose it?"""
    guarded = found.guarded
    if guarded is None:
        return ("not tested on others", "doubt")
    sign = settings.sign()
    low, high = sorted((sign * guarded.gain_low, sign * guarded.gain_high))
    if low > 0:
        return ("better than before", "good")
    return ("worse than before", "bad") if high < 0 else ("no better than chance", "doubt")


def warnings(settings: StudySettings, found: Findings) -> list[str]:
    """What should make a reader careful."""
    out: list[str] = []
    name, sign = settings.leading, settings.sign()
    if name in found.base and len(settings.objectives) == 1 and sign * found.base[name] >= sign * found.best.figures[name]:
        out.append("Nothing better than what it began with was found: keep that.")
    if len(settings.objectives) == 1 and found.guarded is None and settings.config is None:
        out.append("Four people at least are needed to say what the best is on people who did not choose it.")
    if settings.config is not None:
        out.append("A training's figures are those of the people by whom it was chosen: test the best on others.")
    if "random" not in found.so_far and len(settings.objectives) == 1:
        out.append("There was no random search to compare with (baseline: false).")
    elif len(settings.objectives) == 1 and not ahead(settings, found):
        out.append("A random search of equal budget found as much.")
    failed = found.counts["study"].get("failed", 0)
    if failed:
        out.append(f"{failed} of {settings.trials} proposals did not work; reasons stand in {TRIALS}.")
    return out


def ahead(settings: StudySettings, found: Findings) -> bool:
    """Whether the study ended above the random search."""
    ends = [values[-1] for values in found.so_far.values()]
    if ends[1] is None:
        return True
    assert ends[0] is not None
    sign = settings.sign()
    return sign * ends[0] > sign * ends[1]


def tables(settings: StudySettings, found: Findings) -> list[tuple[str, list[tuple[str, str]]]]:
    """Figures in words."""
    goals = [(f"{direction} {name}", shown(found.best.figures, name)) for name, direction in settings.objectives.items()]
    bounds = [(f"{name} bounded", shown(found.best.figures, name)) for name in settings.constraints]
    names = dict.fromkeys([*settings.objectives, *settings.constraints, *found.best.figures])
    rest = [(name, f"{shown(found.base, name)} → {shown(found.best.figures, name)}") for name in names]
    values = [(path, number(value)) for path, value in found.best.values.items()]
    cost = [
        (f"{name}: " + ", ".join(f"{count} {state}" for state, count in found.counts[name].items()), f"{seconds:.0f} s")
        for name, seconds in found.seconds.items()
    ]
    out = [(f"Best: proposal {found.best.number + 1} of {settings.trials}", [*goals, *bounds]), ("Before → best", rest)]
    if found.guarded is not None:
        g = found.guarded
        name = settings.leading
        title = f"On people who did not choose it ({g.people} people, {g.folds} folds)"
        out.append((
            title,
            [
                (name, f"{g.mean:.4f} [{g.low:.4f}, {g.high:.4f}]"),
                ("gain over what it began with", f"{g.gain:+.4f} [{g.gain_low:+.4f}, {g.gain_high:+.4f}]"),
                ("optimism of those who chose", f"{g.optimism:+.4f}"),
            ],
        ))
    return [*out, ("Values of the best", values), ("Cost", cost)]


def shown(figures: Mapping[str, float], name: str) -> str:
    """A figure, if it was measured."""
    return f"{figures[name]:.4g}" if name in figures else "–"


def number(value: Any) -> str:
    """A value for people."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


Draw = Callable[[StudySettings, Findings, Rows], Figure]


def picture(name: str, draw: Draw, settings: StudySettings, found: Findings, rows: Rows) -> str:
    """A figure as a data address."""
    with mpl.rc_context(STYLE):
        return address(name, draw(settings, found, rows), "svg")


def wanted(title: str, found: Findings) -> bool:
    """Whether a figure has something to show."""
    needs = {"Best so far": bool(found.so_far), "Importance": bool(found.importance), "Front": not found.so_far}
    return needs.get(title, True)


def best_so_far(settings: StudySettings, found: Findings, rows: Rows) -> Figure:
    """The best objective after each proposal, beside a random search and what it began with."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axis: Any = figure.subplots()
    name = settings.leading
    for search, values in found.so_far.items():
        curve = [np.nan if v is None else v for v in values]
        axis.step(range(1, len(curve) + 1), curve, where="post", color=COLOURS[search], label=search, lw=1.8)
        mine = [
            (r["number"] + 1, r["figures"][name], r["state"])
            for r in rows
            if r["search"] == search and name in r["figures"]
        ]
        for state, face in (("complete", COLOURS[search]), ("pruned", "none")):
            points = [(x, y) for x, y, s in mine if s == state]
            if points:
                axis.scatter(*zip(*points, strict=True), s=14, facecolors=face, edgecolors=COLOURS[search], lw=0.8)
    if name in found.base:
        axis.axhline(found.base[name], color="#e8ecf0", ls=":", lw=1, label="before")
    settled = [r["figures"][name] for r in rows if r["state"] == "complete" and name in r["figures"]]
    low, high = np.quantile(settled, [0.1, 1]) if settings.sign() > 0 else np.quantile(settled, [0, 0.9])
    ends = [low, high, *([found.base[name]] if name in found.base else [])]
    margin = 0.15 * (max(ends) - min(ends)) or 0.01
    axis.set_ylim(min(ends) - margin, max(ends) + margin)
    axis.set_xlabel("proposal (hollow: pruned, at its last measurement)")
    axis.set_ylabel(name)
    axis.legend(frameon=False, loc="lower right", ncols=3)
    return figure


def importance(settings: StudySettings, found: Findings, rows: Rows) -> Figure:  # noqa: ARG001 - as all figures
    """What makes a proposal one of the best quarter."""
    shares = sorted(found.importance.items(), key=lambda item: item[1])
    figure = Figure(figsize=(9, 0.5 + 0.32 * len(shares)), layout="constrained")
    axis: Any = figure.subplots()
    axis.barh([path for path, _ in shares], [share for _, share in shares], color=COLOURS["study"], height=0.6)
    axis.set_xlabel("share in being one of the best quarter (PED-ANOVA)")
    axis.set_xlim(0, 1)
    return figure


def slices(settings: StudySettings, found: Findings, rows: Rows) -> Figure:
    """The first objective over each parameter."""
    paths, name = [*settings.space], settings.leading
    columns = min(3, len(paths))
    lines = -(-len(paths) // columns)
    figure = Figure(figsize=(9, 2.4 * lines), layout="constrained")
    axes: Any = figure.subplots(lines, columns, squeeze=False)
    done = [r for r in rows if r["state"] == "complete" and name in r["figures"]]
    for axis, path in zip(axes.flat, paths, strict=False):
        parameter = settings.space[path]
        mine = [r for r in done if path in r["values"]]
        y = [r["figures"][name] for r in mine]
        colours = [COLOURS[r["search"]] for r in mine]
        best = found.best.values.get(path)
        if parameter.choices:
            names = [written(choice) for choice in parameter.choices]
            x: list[Any] = [names.index(written(r["values"][path])) for r in mine]
            axis.set_xticks(range(len(names)), [label.strip('"')[:16] for label in names])
            best = None if best is None else names.index(written(best))
        else:
            x = [r["values"][path] for r in mine]
            axis.set_xscale("log" if parameter.log else "linear")
        axis.scatter(x, y, s=12, c=colours)
        if best is not None:
            axis.axvline(best, color=COLOURS["front"], lw=1)
        axis.set_xlabel(path if len(path) < 34 else "…" + path[-32:])
        axis.set_ylabel(name)
    for axis in axes.flat[len(paths) :]:
        axis.set_axis_off()
    return figure


def front(settings: StudySettings, found: Findings, rows: Rows) -> Figure:
    """The first two objectives against each other, and those that none beats in all."""
    one, other = [*settings.objectives][:2]
    figure = Figure(figsize=(9, 4), layout="constrained")
    axis: Any = figure.subplots()
    done = [r for r in rows if r["state"] == "complete"]
    for search in dict.fromkeys(r["search"] for r in done):
        mine = [r["figures"] for r in done if r["search"] == search]
        axis.scatter([f[other] for f in mine], [f[one] for f in mine], s=16, c=COLOURS[search], label=search)
    best = sorted(
        (r["figures"][other], r["figures"][one]) for r in done if r["search"] == "study" and r["number"] in found.front
    )
    axis.plot(*zip(*best, strict=True), color=COLOURS["front"], lw=1.2, marker="o", ms=5, mfc="none", label="front")
    axis.plot(found.best.figures[other], found.best.figures[one], "*", color=COLOURS["front"], ms=13, label="best.yaml")
    if one in found.base and other in found.base:
        axis.plot(found.base[other], found.base[one], "x", color="#e8ecf0", label="before")
    axis.set_xlabel(f"{other} ({settings.objectives[other]})")
    axis.set_ylabel(f"{one} ({settings.objectives[one]})")
    axis.legend(frameon=False)
    return figure


FIGURES: list[tuple[str, Draw]] = [
    ("Best so far", best_so_far), ("Front", front), ("Importance", importance), ("Slices", slices),
]  # fmt: skip
