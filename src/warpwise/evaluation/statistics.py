"""Whether one method is better than another: people are the sample, not the pairs that they make."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from warpwise.errors import InputError

FEWEST = 6  # people of whom a p-value may be told


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


Pairs = Sequence[tuple[str, str]]
"""(fixed, moving) person of each value."""


def compared(scores: Mapping[str, Sequence[float]], pairs: Pairs) -> dict[tuple[str, str], float]:
    """Corrected p-value of every two methods, see `p_value`; none of fewer than six people.

    Args:
        scores: of each method on each pair; pairs of which one has none (NaN) do not count.
    """
    values = np.array([*scores.values()], np.float64)
    kept: NDArray[np.bool_] = np.asarray(np.isfinite(values).all(0))
    people = [pair for pair, known in zip(pairs, kept, strict=True) if known]
    names = [*combinations(range(len(scores)), 2)]
    found = [p_value(people, values[one, kept] - values[other, kept]) for one, other in names]
    told = holm([p for p in found if p is not None])
    keys = [*scores]
    return {(keys[a], keys[b]): p for (a, b), p in zip(names, told, strict=True)} if None not in found else {}


def p_value(pairs: Pairs, gaps: Sequence[float] | NDArray[np.float64]) -> float | None:
    """How likely a mean gap so far from 0 is by chance, two-sided; None of fewer than six people.

    Student's t of the mean over its jackknife error, each person left out with all its pairs, of one degree of freedom
    less than there are people: a bootstrap of a dozen people calls twice as much more than chance as there is.

    Raises:
        InputError: there is nobody, or not a finite value for each pair.

    Source: Arvesen, Annals of Mathematical Statistics 1969, for means over pairs.
    """
    people, fixed, moving, values = numbered(pairs, gaps)
    if people < FEWEST:
        return None
    if not np.isfinite(values).all():
        raise InputError(f"{int((~np.isfinite(values)).sum())} of {len(values)} gaps are not finite.")
    left: list[float] = []
    for person in range(people):
        others = (fixed != person) & (moving != person)
        if not others.any():  # one person is in every pair: nothing can be told without them
            return 1.0
        left.append(float(values[others].mean()))
    error = np.sqrt((people - 1) * np.var(left))
    mean = float(values.mean())
    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * stats.t.sf(abs(mean) / error, people - 1))


def interval(
    pairs: Pairs, values: Sequence[float], *, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean over pairs, by bootstrap over people, who are drawn for both roles of a pair.

    A pair counts as often as both of its people were drawn: pairs of one person are not independent, and to draw pairs
    would say more than was seen. A person's own pairs count as often as that person was drawn.

    Args:
        level: share of draws inside; draws: so many; seed: of them.

    Raises:
        InputError: there is nobody, or not a value for each pair.
    """
    people, fixed, moving, found = numbered(pairs, values)
    rng = np.random.default_rng(seed)
    means: list[float] = []
    while len(means) < draws:
        times = np.bincount(rng.integers(people, size=people), minlength=people)
        weights = np.where(fixed == moving, times[fixed], times[fixed] * times[moving])
        if weights.sum() > 0:
            means.append(float((weights * found).sum() / weights.sum()))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def numbered(
    pairs: Pairs, values: Sequence[float] | NDArray[np.float64]
) -> tuple[int, NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """How many people there are; the fixed and the moving one of each pair, by number; and the pair's value.

    Raises:
        InputError: there is nobody, or not a value for each pair.
    """
    people = sorted({person for pair in pairs for person in pair})
    if not people or len(pairs) != len(values):
        raise InputError(f"{len(values)} values of {len(pairs)} pairs of {len(people)} people.")
    number = {person: n for n, person in enumerate(people)}
    fixed, moving = (np.array([number[pair[role]] for pair in pairs], np.int64) for role in (0, 1))
    return len(people), fixed, moving, np.array(values, np.float64)
