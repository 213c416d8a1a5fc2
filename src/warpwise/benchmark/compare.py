"""Methods on all pairs of a dataset: overlap, folds, seconds."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from warpwise.data.pairs import AllPairs
from warpwise.errors import InputError
from warpwise.evaluation.statistics import compared
from warpwise.io.datasets import Dataset
from warpwise.levels.measurement import Row, run_method
from warpwise.methods import Method


def compare(
    dataset: Dataset,
    methods: Mapping[str, Method],
    *,
    on: Literal["validation", "test"] = "validation",
    pairs: int = 0,
    on_row: Callable[[Row], None] | None = None,
) -> list[Row]:
    """Every method on every pair to validate or to test on (the first `pairs` of them; 0: all).

    Pairs that are listed; to validate on, else all ordered ones of the validation images.

    Raises:
        InputError: the dataset lists no pairs, or one of them cannot be used, or a method cannot be built.
    """
    if on == "test":
        wanted, key = list(dataset.test_pairs), "registration_test"
    else:
        wanted, key = list(dataset.validation_pairs or AllPairs(dataset.validation)), "registration_val"
    if not wanted:
        raise InputError(f"{dataset.folder}: no pairs to evaluate on ({key} is empty, or its files are not here).")
    built = {name: method.build() for name, method in methods.items()}  # refuses before hours of work
    rows: list[Row] = []
    for pair in wanted[: pairs or None]:
        for name, method in methods.items():
            row = run_method(name, method, pair, dataset.averaged, registrar=built[name])
            rows.append(row)
            if on_row is not None:
                on_row(row)
    return rows


def summary(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Means over pairs, by method; seconds are medians."""
    out: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(row.method for row in rows):
        mine = [row for row in rows if row.method == name]
        out[name] = {
            "pairs": len(mine),
            "dice": float(np.mean([r.mean_dice for r in mine])),
            "dice_sd": float(np.std([r.mean_dice for r in mine])),
            "sd_log_jacobian": float(np.mean([r.sd_log_jacobian for r in mine])),
            "percent_folded": float(np.mean([r.percent_folded for r in mine])),
            "percent_ndv": float(np.mean([r.percent_ndv for r in mine])),
            "seconds": float(np.median([r.seconds for r in mine])),
        }
    return out


def table(rows: Sequence[Row]) -> str:
    """The summary as Markdown, and which gaps in Dice are more than chance."""
    means = summary(rows)
    lines = [
        "| method | pairs | Dice | SD | SDlogJ | % det J ≤ 0 | % NDV | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, s in means.items():
        lines.append(
            f"| {name} | {s['pairs']:.0f} | {s['dice']:.4f} | {s['dice_sd']:.4f} | {s['sd_log_jacobian']:.3f} | "
            f"{s['percent_folded']:.4g} | {s['percent_ndv']:.4g} | {s['seconds']:.2f} |"
        )
    scores = {name: [r.mean_dice for r in rows if r.method == name] for name in means}
    pairs = [row.people for row in rows if row.method == rows[0].method] if rows else []
    tests = compared(scores, pairs) if pairs and {len(pairs)} == {*map(len, scores.values())} else {}
    for (one, other), p in tests.items():
        lines.append(f"\nDice of {one} against {other}: p = {p:.2g} (jackknife over people, Holm).")
    return "\n".join(lines)
