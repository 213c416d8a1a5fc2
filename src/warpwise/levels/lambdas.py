"""Weights λ of an objective as numbers that learn: what is free, how it moves, when it ends, what should be said of it."""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from warpwise.levels.checkpoint import State, adopt, moments, part, remember, under
from warpwise.levels.loop import Verdict
from warpwise.levels.tuning_settings import TuningSettings
from warpwise.terms.term import Term

NAME = "tuning"
LEAK = 0.9  # of its way: whoever got so far hardly ever turned back
STEADY = 20  # steps of which that is asked at least
POOR = 0.3  # a mean cosine to conjugate gradients below this is a failure
BETAS = (0.5, 0.999)  # Liu et al., TPAMI 2022


@dataclass(kw_only=True, eq=False)
class Lambdas:
    """Weights of terms as functions of free numbers: exponentials of factors, and softmax shares.

    The sources write softplus, which climbs ten times as slowly as it falls; of a logarithm neither way is longer.

    Attributes:
        start: weights at the start; factors: name → terms it multiplies; mixtures: terms with shares of their sum.
        scales: value of each mixed term at the start, by which its share is divided; 1 until it is known.
        free: the numbers, by name of a factor, or number of a mixture.
    """

    start: Mapping[str, float]
    factors: Mapping[str, tuple[str, ...]]
    mixtures: Sequence[tuple[str, ...]]
    scales: dict[str, Tensor] = field(init=False)
    free: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.scales = {name: torch.ones(()) for group in self.mixtures for name in group}
        self.free = {name: torch.zeros(()) for name in self.factors}
        for n, group in enumerate(self.mixtures):
            shares = torch.tensor([max(self.start[name], 1e-6) for name in group])
            self.free[f"shares-{n}"] = (shares / shares.sum()).log()

    def of(self, free: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weight of every term, 0-dim, as a function of the free numbers."""
        out = {name: torch.tensor(value) for name, value in self.start.items()}
        for n, group in enumerate(self.mixtures):
            whole = sum(self.start[name] for name in group)
            shares = F.softmax(free[f"shares-{n}"], 0)
            out |= {name: whole * share / self.scales[name] for name, share in zip(group, shares, strict=True)}
        for name, terms in self.factors.items():
            factor = free[name].exp()
            out |= {term: out[term] * factor for term in terms}
        return out


@dataclass(kw_only=True, eq=False)
class LambdaLevel:
    """A level that owns the weights of an objective; who derives from it says how they change what the objective is for.

    Attributes:
        lambdas: what is free, and what it stands for.
        values: weights of terms as they stand in the objective, 0-dim each, written after every step.
        steps: of the run, for the learning rate.
        terms: of the objective; publish: told of them with their weights at every validation.
        moves: the free numbers after the last steps, for the rule that ends tuning, and for `leaks`.
        frozen: whether it has ended; moved: how often it moved; scaled: whether shares are divided by what terms come to.
        cosines: to conjugate gradients, as far as they were measured.
    """

    lambdas: Lambdas
    values: dict[str, Tensor]
    settings: TuningSettings
    steps: int
    terms: Mapping[str, Term]
    publish: Callable[[Mapping[str, Term]], None]
    name: str = NAME
    frozen: bool = False
    moved: int = 0
    scaled: bool = False
    cosines: list[float] = field(default_factory=list[float])
    optimizer: torch.optim.Adam = field(init=False)
    moves: "deque[list[float]]" = field(init=False)

    def __post_init__(self) -> None:
        self.moves = deque(maxlen=self.settings.patience)
        self.optimizer = torch.optim.Adam(self.lambdas.free.values(), lr=self.settings.learning_rate, betas=BETAS)
        self._publish()

    def variables(self) -> dict[str, Tensor]:
        return {
            **under("free", self.lambdas.free), **under("scale", self.lambdas.scales), **under("value", self.values)
        }  # fmt: skip

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        return self.settings.learning_rate * 0.5 * (1 + math.cos(math.pi * step / max(self.steps, 1)))

    def moves_by(self, step: int, gradient: Mapping[str, Tensor]) -> dict[str, float]:
        """Move once along dU/d(free number); what is to be said of it. A gradient that is not finite is left out, as a step
        of weights would be.

        Its direction alone counts: a budget that is exceeded by far makes gradients thousands of times as long as overlap
        does, after which Adam, whose memory is long, would stand still; and those of one step of training shrink with its
        learning rate. So weights end where as many steps pull one way as the other, at a median, and few odd pairs do not
        outvote the others.
        """
        length = float(sum(float((g.double() ** 2).sum()) for g in gradient.values()) ** 0.5)
        if not all(bool(torch.isfinite(value).all()) for value in gradient.values()):
            return {"failed": 1.0}
        for name, free in self.lambdas.free.items():
            free.grad = gradient[name].to(free.dtype) / max(length, 1e-30)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(step)
        self.optimizer.step()
        self._bound()
        self._publish()
        self.moved += 1
        self._watch()
        said = {f"weight.{name}": float(value) for name, value in self.values.items()}
        return {**said, "gradient": length, "drift": float(self.leaks)}

    def _bound(self) -> None:
        """No factor beyond its bounds."""
        most = math.log(self.settings.within)
        with torch.no_grad():
            for name in self.lambdas.factors:
                self.lambdas.free[name].clamp_(-most, most)
            for n in range(len(self.lambdas.mixtures)):
                logits = self.lambdas.free[f"shares-{n}"]
                logits.clamp_(min=float(logits.max()) - math.log(self.settings.within))  # so no share is lost for good

    def _publish(self) -> None:
        with torch.no_grad():
            for name, value in self.lambdas.of(self.lambdas.free).items():
                self.values[name].copy_(value)

    def _watch(self) -> None:
        self.moves.append([float(v) for free in self.lambdas.free.values() for v in free.reshape(-1)])
        if len(self.moves) < self.settings.patience:
            return
        gone = np.abs(np.subtract(self.moves[-1], self.moves[0]))  # logarithms, of factors as of shares
        self.frozen = float(gone.max()) < self.settings.tolerance

    @property
    def leaks(self) -> bool:
        """Whether of late all free numbers, two at least, went one way, and equally far.

        So they move when something else than U moves them, as an optimizer to which λ leaked: the slope of a loss by a
        weight is the term, whose sign never changes, and Adam then moves each by its rate a step. Whether these are the
        steps of an honest tuning that has far to go is not known.
        """
        if len(self.moves) < min(STEADY, self.settings.patience) or len(self.moves[0]) < 2:
            return False
        steps = np.diff(np.array(self.moves), axis=0)
        gone, way = np.abs(steps.sum(0)), np.abs(steps).sum(0)
        one_way = bool((gone > LEAK * way).all())
        return one_way and gone.min() > self.settings.tolerance and gone.max() < gone.min() / LEAK

    @property
    def bounded(self) -> list[str]:
        """Factors that stand at their bound."""
        most = math.log(self.settings.within) - 1e-3
        return [name for name in self.lambdas.factors if abs(float(self.lambdas.free[name])) > most]

    def warnings(self) -> list[str]:
        """What a person should know of the tuning."""
        out: list[str] = []
        if self.bounded:
            out.append(
                f"{', '.join(self.bounded)}: stands at its bound, {self.settings.within:g} times more or less than it was: "
                "start nearer, or widen tuning.within."
            )
        if self.leaks:
            out.append(
                "Every weight moved one way, and equally far: a drift, or steps that are far too small. Either another "
                "optimizer moves them, too, or give it more steps, or a larger tuning.learning_rate."
            )
        if self.cosines and sum(self.cosines) / len(self.cosines) < POOR:
            mean = sum(self.cosines) / len(self.cosines)
            out.append(
                f"The hypergradient points elsewhere than conjugate gradients do (mean cosine {mean:.2f}): tuning failed."
            )
        return out

    def tuned(self) -> dict[str, Term]:
        """Terms with the weights as they are now."""
        return {name: term.replace(weight=float(f"{float(self.values[name]):.6g}")) for name, term in self.terms.items()}

    def validate(self, step: int) -> Verdict | None:  # noqa: ARG002 - it is judged by U alone, at every step
        self.publish(self.tuned())
        return None

    def state_dict(self) -> State:
        rows: dict[str, Any] = {"moves": torch.tensor([*self.moves], dtype=torch.float64)} if self.moves else {}
        return {
            **self.variables(), **under("optimizer", moments(self.optimizer)), **rows,
            "frozen": self.frozen, "moved": self.moved, "scaled": self.scaled,
            "cosines": torch.tensor(self.cosines, dtype=torch.float64),
        }  # fmt: skip

    def load_state_dict(self, state: State) -> None:
        for name in ("free", "scale", "value"):
            adopt(part(self.variables(), name), part(state, name))
        remember(self.optimizer, part(state, "optimizer"))
        self.moves.clear()
        kept = state.get("moves")
        self.moves.extend(kept.tolist() if isinstance(kept, Tensor) else [])
        cosines = state["cosines"]
        assert isinstance(cosines, Tensor)
        self.cosines = cosines.tolist()
        self.frozen, self.scaled = bool(state["frozen"]), bool(state["scaled"])
        self.moved = int(state["moved"])  # type: ignore[arg-type]
