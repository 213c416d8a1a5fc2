"""Whether one method is better than another on the same pairs."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from scipy import stats

from warpwise.errors import InputError


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


def interval(
    pairs: Sequence[tuple[str, str]], values: Sequence[float], *, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean over pairs, by bootstrap over people, who are drawn for both roles of a pair.

    A pair counts as often as both of its people were drawn: pairs of one person are not independent, and to draw pairs
    would say more than was seen. A person's own pairs count as often as that person was drawn.

    Args:
        pairs: (fixed, moving) person of each value; level: share of draws inside; draws: so many; seed: of them.

    Raises:
        InputError: there is nobody, or not a value for each pair.
    """
    people = sorted({person for pair in pairs for person in pair})
    if not people or len(pairs) != len(values):
        raise InputError(f"{len(values)} values of {len(pairs)} pairs of {len(people)} people.")
    number = {person: n for n, person in enumerate(people)}
    fixed, moving = (np.array([number[pair[role]] for pair in pairs]) for role in (0, 1))
    found = np.array(values, np.float64)
    rng = np.random.default_rng(seed)
    means: list[float] = []
    while len(means) < draws:
        times = np.bincount(rng.integers(len(people), size=len(people)), minlength=len(people))
        weights = np.where(fixed == moving, times[fixed], times[fixed] * times[moving])
        if weights.sum() > 0:
            means.append(float((weights * found).sum() / weights.sum()))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
