"""Methods on all pairs of a dataset: overlap, folds, seconds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from warpwise.data.pairs import AllPairs
from warpwise.data.people import person
from warpwise.errors import InputError
from warpwise.evaluation.metrics import label_overlap, regularity
from warpwise.evaluation.statistics import compared
from warpwise.image import Image
from warpwise.io.datasets import Dataset
from warpwise.io.scan import Scan, read_both
from warpwise.methods import Method
from warpwise.registrars.base import Registrar
from warpwise.registration.register import register_scans


@dataclass(frozen=True)
class Row:
    """One method on one pair.

    Attributes:
        people: whom the fixed and the moving image show.
        dice: of each label that both maps hold; moved by nearest neighbour in one resampling.
        seconds: of the registration, files apart.
    """

    method: str
    pair: str
    people: tuple[str, str]
    dice: dict[int, float]
    sd_log_jacobian: float
    percent_folded: float
    percent_ndv: float
    seconds: float
    warnings: tuple[str, ...] = ()

    @property
    def mean_dice(self) -> float:
        """Over labels."""
        return float(np.mean([*self.dice.values()])) if self.dice else float("nan")


Change = Callable[[Image], Image]


def as_it_is(image: Image) -> Image:
    """The change that changes nothing."""
    return image


def run_method(
    name: str,
    method: Method,
    pair: tuple[Scan, Scan],
    labels: Sequence[int],
    *,
    registrar: Registrar | None = None,
    change: Change = as_it_is,
) -> Row:
    """Register one pair and measure it; label maps only measure.

    Args:
        name: what the row is called; method: how to register.
        pair: fixed and moving.
        labels: over which overlap is measured.
        registrar: what `method.build()` gives, where it is at hand.
        change: what is done to both images first, such as noise.

    Raises:
        InputError: an image cannot be used, or a label map is missing.
    """
    fixed, moving = pair
    if fixed.labels is None or moving.labels is None:
        raise InputError(f"{fixed.title} ← {moving.title}: there are no label maps to measure overlap by.")
    scans = read_both(fixed, moving)
    blind = [scan.replaced(image=change(scan.image), labels=None, landmarks=None) for scan in scans]
    result = register_scans((blind[0], blind[1]), method, registrar or method.build())
    maps = [scan.labels for scan in scans]
    assert maps[0] is not None
    assert maps[1] is not None
    shape = regularity(result.transform, maps[0].grid, maps[0].data[0] > 0)
    return Row(
        name,
        f"{fixed.title} ← {moving.title}",
        (person(fixed), person(moving)),
        label_overlap(maps[0], maps[1], result.transform, labels=labels),
        shape.sd_log_jacobian,
        shape.percent_folded,
        shape.percent_ndv,
        float(sum(result.timings_s.values())),
        result.warnings,
    )


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
