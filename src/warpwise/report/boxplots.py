"""Overlap of every structure by every method, as box plots."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

COLUMNS = 24  # structures a row of the figure

Scores = Mapping[str, Mapping[str, Sequence[float]]]
"""Method → structure → Dice of each pair."""


def draw(scores: Scores, path: Path) -> None:
    """Write the figure; the suffix of the path says how (.png, .svg, .pdf)."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - half a second to import

    methods = list(scores)
    names = list(dict.fromkeys(name for of in scores.values() for name in of))
    overall = {m: [float(np.mean(v)) for v in zip(*scores[m].values(), strict=False)] for m in methods}
    groups = [["all structures"], *[names[k : k + COLUMNS] for k in range(0, len(names), COLUMNS)]]
    height = 2.6 * len(groups) + 0.8
    figure = Figure(figsize=(12, height), layout="constrained")
    axes: Any = figure.subplots(len(groups), 1, squeeze=False)[:, 0]
    for axis, group in zip(axes, groups, strict=True):
        for m, method in enumerate(methods):
            data = [overall[method] if name == "all structures" else list(scores[method].get(name, [])) for name in group]
            width = 0.8 / len(methods)
            at = [n + (m - (len(methods) - 1) / 2) * width for n in range(len(group))]
            boxes = axis.boxplot(
                data, positions=at, widths=0.85 * width, patch_artist=True, showfliers=True, manage_ticks=False,
                flierprops={"marker": ".", "markersize": 3}, medianprops={"color": "black"},
            )  # fmt: skip
            for box in boxes["boxes"]:
                box.set_facecolor(f"C{m}")
        axis.set_xticks(range(len(group)))
        turn = {"rotation": 40, "ha": "right"} if len(group) > 6 else {}
        axis.set_xticklabels(group, fontsize=7 if len(group) > 6 else 9, **turn)
        axis.set_xlim(-0.6, max(len(group), 3) - 0.4)
        axis.set_ylabel("Dice")
        axis.grid(axis="y", alpha=0.3)
    handles = [axes[0].plot([], [], "s", color=f"C{m}", label=method)[0] for m, method in enumerate(methods)]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(methods), 6), frameon=False)
    figure.savefig(path, dpi=110)
