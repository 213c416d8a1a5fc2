"""What a person may set of an objective that tunes itself."""

from fnmatch import fnmatchcase
from typing import Literal, Self

from pydantic import Field, model_validator

from warpwise.errors import InputError
from warpwise.settings import Settings, nearest
from warpwise.similarity.base import Similarity
from warpwise.terms.term import Term, Terms, parse_terms

PART = "tune"
"""The part of the people whose pairs say what an objective is good for; they neither train nor select."""


class TuningSettings(Settings):
    """Weights of an objective that fall along what they do to another objective, on pairs of people of their own.

    Attributes:
        weights: names of terms whose weights are tuned; `*` stands for any letters, as in `smooth-*`.
        groups: name → terms that keep their proportions: one factor for all of them, for example λ of a stage.
        shares: similarities whose weights are a softmax, each divided by its term's value at the start: what is tuned is
            how much each counts, and their sum is the gauge.
        windows: term with a `radius` → radii: in its place stand such terms, whose shares are tuned like `shares`.
        gauge: the term whose weight stays as it is, the first similarity if none is named: only ratios matter. With shares
            or windows there is none.
        outer: what the objective is for, U: labels (`dice`) and a bound on roughness (`budget`); or, without labels, a
            similarity that is not in the objective itself.
        learning_rate: of Adam (β 0.5, 0.999, as published) on logarithms of factors and shares, by a gradient's direction;
            cosine to 0.
        warmup: steps before weights move; every: they move at every so-manieth step.
        batch: pairs of `tune` a step.
        estimator: one-step, which differentiates the step that training makes, clip and all; or one for stationary points.
        iterations: of estimators that iterate; damping: added to the Hessian's diagonal; rate: of plain steps.
        within: no factor becomes more than so many times larger or smaller, no share so much smaller than the largest.
        tolerance, patience: tuning ends when no weight has moved by more than this share in so many of its steps.
        check_every: after so many of its steps the cosine to conjugate gradients is measured; 0: never.
    """

    weights: tuple[str, ...] = ("*",)
    groups: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    shares: tuple[str, ...] = ()
    windows: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    gauge: str = ""
    outer: Terms = Field(default_factory=lambda: parse_terms({"dice": {}}))
    learning_rate: float = Field(default=0.02, gt=0)
    warmup: int = Field(default=100, ge=0)
    every: int = Field(default=1, ge=1)
    batch: int = Field(default=2, ge=1)
    estimator: Literal["one-step", "unrolled", "neumann", "conjugate-gradient"] = "one-step"
    iterations: int = Field(default=8, ge=1)
    damping: float = Field(default=0.1, ge=0)
    rate: float = Field(default=0.01, gt=0)
    within: float = Field(default=100.0, gt=1)
    tolerance: float = Field(default=0.01, gt=0)
    patience: int = Field(default=200, ge=10)
    check_every: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _radii(self) -> Self:
        if any(len(set(radii)) < max(2, len(radii)) for radii in self.windows.values()):
            raise ValueError("windows: two radii at least, each once")
        return self

    def opened(self, objective: dict[str, Term]) -> dict[str, Term]:
        """The objective with a term for each window.

        Raises:
            InputError: a term has no radius, or there is none of this name.
        """
        out: dict[str, Term] = {}
        for name, term in objective.items():
            if name not in self.windows:
                out[name] = term
                continue
            if "radius" not in type(term).model_fields:
                raise InputError(f"tuning.windows: {name} ({term.row()}) has no radius.")
            for radius in self.windows[name]:
                out[f"{name}-{radius}"] = term.replace(radius=radius, weight=term.weight / len(self.windows[name]))
        if odd := [name for name in self.windows if name not in objective]:
            raise InputError(f"tuning.windows: the objective has no {odd[0]!r}.", hint=nearest(odd[0], objective))
        return out

    def mixtures(self, objective: dict[str, Term]) -> list[tuple[str, ...]]:
        """Terms, of the objective that was opened, whose shares are tuned against each other.

        Raises:
            InputError: a name is of no term, or of one that is no similarity.
        """
        out = [tuple(f"{name}-{radius}" for radius in radii) for name, radii in self.windows.items()]
        if self.shares:
            members = [n for name in self.shares for n in ([name] if name in objective else [])]
            if odd := [name for name in self.shares if name not in objective and name not in self.windows]:
                raise InputError(f"tuning.shares: the objective has no {odd[0]!r}.", hint=nearest(odd[0], objective))
            if odd := [name for name in members if not isinstance(objective[name], Similarity)]:
                raise InputError(f"tuning.shares: {odd[0]} is no similarity.")
            inside = [n for group in out for n in group if group[0].rsplit("-", 1)[0] in self.shares]
            out = [group for group in out if group[0] not in inside]
            out.append((*members, *inside))
        return out

    def factors(self, objective: dict[str, Term]) -> dict[str, tuple[str, ...]]:
        """Name of a factor → terms of the objective, opened, that it multiplies: groups, and terms for themselves.

        Raises:
            InputError: a name is of no term, or a term belongs to two.
        """
        mixed = {name for group in self.mixtures(objective) for name in group}
        gauge = self.gauge_of(objective)
        out: dict[str, tuple[str, ...]] = {}
        grouped: set[str] = set()
        for name, members in self.groups.items():
            found = [n for n in objective if any(fnmatchcase(n, m) for m in members)]
            if not found:
                raise InputError(f"tuning.groups: {name}: the objective has none of {', '.join(members)}.")
            if both := grouped & {*found}:
                raise InputError(f"tuning.groups: {both.pop()!r} is in two.")
            if odd := ({gauge} | mixed) & {*found}:
                raise InputError(f"tuning.groups: {odd.pop()!r} is what the others are measured by.", hint="Leave it out.")
            grouped |= {*found}
            out[name] = tuple(found)
        for pattern in self.weights:
            found = [n for n in objective if fnmatchcase(n, pattern)]
            if not found and not self.groups:
                raise InputError(f"tuning.weights: the objective has no {pattern!r}.", hint=nearest(pattern, objective))
            for n in found:
                if n not in grouped and n not in mixed and n != gauge and n not in out and objective[n].weight > 0:
                    out[n] = (n,)
        if not out and not mixed:
            raise InputError("tuning: nothing is tuned.", hint="An objective of one term has no ratio of weights.")
        return out

    def gauge_of(self, objective: dict[str, Term]) -> str:
        """The term whose weight stays; none where the shares of similarities sum to one.

        Raises:
            InputError: it is not there.
        """
        if self.gauge and self.gauge not in objective:
            raise InputError(f"tuning.gauge: the objective has no {self.gauge!r}.", hint=nearest(self.gauge, objective))
        if self.gauge or self.mixtures(objective):
            return self.gauge
        similarities = [name for name, term in objective.items() if isinstance(term, Similarity)]
        return similarities[0] if similarities else next(iter(objective))

    def check(self, objective: dict[str, Term]) -> None:
        """Refuse an outer objective that says what the inner one says.

        Raises:
            InputError: a term of it is in both.
        """
        for name, term in self.outer.items():
            same = [n for n, t in objective.items() if isinstance(t, Similarity) and t.replace(weight=term.weight) == term]
            if same:
                raise InputError(
                    f"tuning.outer: {name} is {same[0]} of the objective: raising its weight would seem good for ever.",
                    hint="Take labels (dice), or a similarity that is not trained by.",
                )
