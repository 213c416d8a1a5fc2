"""Whether one method is better than another on the same pairs."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from scipy import stats


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction for as many tests as there are values, in their order.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]

    Source: Holm, Scandinavian Journal of Statistics 1979.
    """
    order = np.argsort(p_values)
    out = np.ones(len(p_values))
    highest = 0.0
    for rank, at in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[at]))
        out[at] = highest
    return [round(float(v), 12) for v in out]


def compared(scores: Mapping[str, Sequence[float]]) -> dict[tuple[str, str], float]:
    """Corrected p-value of every two methods: Wilcoxon's signed-rank test over pairs of images, two-sided."""
    pairs = [*combinations(scores, 2)]
    p_values: list[float] = []
    for one, other in pairs:
        gap = np.array(scores[one]) - np.array(scores[other])
        p_values.append(float(stats.wilcoxon(gap).pvalue) if np.any(gap != 0) else 1.0)  # type: ignore[attr-defined]
    return dict(zip(pairs, holm(p_values), strict=True))
