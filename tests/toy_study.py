"""A study whose trials are a formula, for tests; as a program one that can be killed: FOLDER SECONDS TRIALS."""

import math
import sys
import time
from pathlib import Path
from typing import Any

from warpwise.levels.search import search
from warpwise.levels.study_settings import StudySettings
from warpwise.levels.trials import Outcome
from warpwise.methods import Method

PEOPLE = "ABCDEF"
SPACE = {
    "registrar.cap": {"low": 0.05, "high": 0.8},
    "objective.smoothness.update_sigma": {"low": 0.3, "high": 4.0, "log": True},
}


def settings(**changes: Any) -> StudySettings:
    content = {
        "method": "balanced", "data": {"dataset": "none"}, "space": SPACE, "trials": 12, "startup": 4, "sampler": "random",
        "pruning": False, "baseline": False, **changes,
    }  # fmt: skip
    return StudySettings.parse(content)


def value(method: Method) -> float:
    """Best, 1, at cap 0.3 and a width of 1.2."""
    smoothness: Any = method.objective["smoothness"]
    cap: Any = getattr(method.registrar, "cap", 0.5)
    return 1 - 4 * (cap - 0.3) ** 2 - math.log(smoothness.update_sigma / 1.2) ** 2


class Formula:
    """A trial: the value above, of pairs of six people, each a little different; more slowly if wanted."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def __call__(self, method: Method, number: int, report: Any) -> Outcome:
        time.sleep(self.seconds)
        best = value(method)
        pairs = [(a, b) for a in PEOPLE for b in PEOPLE if a != b]
        rows = [{"fixed": a, "moving": b, "dice": best + 0.001 * (PEOPLE.index(a) - 2.5)} for a, b in pairs]
        figures = {"dice": best, "sd_log_jacobian": 1 / (1.5 - best), "seconds": 1.0}
        for step in (1, 3):
            report(step, figures)
        return Outcome(figures, tuple(rows))

    def of(self, search: str) -> "Formula":
        return self


if __name__ == "__main__":
    search(settings(trials=int(sys.argv[3])), Path(sys.argv[1]), Formula(float(sys.argv[2])))
