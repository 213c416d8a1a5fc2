"""Whether one method is better than another: people are the sample, not the pairs that they make."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from warpwise.errors import InputError

FEWEST = 6  # people of whom a p-value may be told
DRAWS = 2000


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
        scores: of each method on each pair.
    """
    names = [*combinations(scores, 2)]
    found = [p_value(pairs, np.array(scores[one]) - np.array(scores[other])) for one, other in names]
    return dict(zip(names, holm([p for p in found if p is not None]), strict=True)) if None not in found else {}


def p_value(
    pairs: Pairs, gaps: Sequence[float] | NDArray[np.float64], *, draws: int = DRAWS, seed: int = 0
) -> float | None:
    """How likely a mean gap so far from 0 is by chance, two-sided: twice the share of bootstrap means beyond 0.

    People are drawn, as in `interval`, which holds 0 at level 1 − p. Never below 1/draws; None of fewer than six people.

    Raises:
        InputError: see `interval`.
    """
    if len({person for pair in pairs for person in pair}) < FEWEST:
        return None
    means = bootstrap(pairs, gaps, draws=draws, seed=seed)
    beyond = min(float((means <= 0).mean()), float((means >= 0).mean()))
    return min(1.0, max(2 * beyond, 1 / draws))


def interval(
    pairs: Pairs, values: Sequence[float], *, level: float = 0.95, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean over pairs, by bootstrap over people, see `bootstrap`.

    Args:
        level: share of draws inside; draws: so many; seed: of them.

    Raises:
        InputError: there is nobody, or not a value for each pair.
    """
    low, high = np.quantile(bootstrap(pairs, values, draws=draws, seed=seed), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap(
    pairs: Pairs, values: Sequence[float] | NDArray[np.float64], *, draws: int = DRAWS, seed: int = 0
) -> NDArray[np.float64]:
    """Means over pairs (draws,), each of people drawn anew, for both roles of a pair.

    A pair counts as often as both of its people were drawn: pairs of one person are not independent, and to draw pairs
    would say more than was seen. A person's own pairs count as often as that person was drawn.

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
    return np.array(means)
