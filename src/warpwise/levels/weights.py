"""Level 1: the weights ω of a network, by Adam on an objective."""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from warpwise.alignment import Alignment
from warpwise.data.batches import Batch, Sampler
from warpwise.errors import RunError
from warpwise.levels.checkpoint import State, adopt, moments, part, remember, under
from warpwise.levels.loop import Verdict
from warpwise.levels.settings import StepSettings, TrainingSettings
from warpwise.levels.validation import Judged, Predict, alignment_of
from warpwise.networks.base import predict, side_by_side
from warpwise.objective import Objective
from warpwise.prediction import Prediction
from warpwise.similarity.posterior import FeaturePrior, divergences, told

PATIENCE = 5  # steps in a row that may fail before the run does
UNTOLD = 5e-3  # nats: a channel that tells less tells nothing (0.2 and more at first, 0.001 where features have collapsed)
COLLAPSED = 20  # steps in a row in which no channel tells anything


def everything(name: str) -> bool:  # noqa: ARG001 - of whatever name
    """Every parameter."""
    return True


Judge = Callable[[nn.Module], Judged | None]
"""How good a network is; None where there is nothing to judge by."""
Publish = Callable[[str, int, Mapping[str, float], Mapping[str, Tensor]], None]
"""(best or last, step, figures, weights): keeps a model for others."""


@dataclass(kw_only=True, eq=False)
class Weights:
    """The weights of a network, or those of a part of it, of which an average is judged and kept.

    A step without a finite loss or gradient is left out, and the next ones are half as long. A run whose features all fell
    onto their prior ends: nothing of the images is in them any more.

    Attributes:
        fabric: the device, and the processes that step side by side.
        network: with its first weights.
        objective: what is minimised; its weights may be tensors that another level owns, without gradients.
        sampler: of the pairs to learn from.
        owns: which parameters, by name, this level moves; the others are constants to it.
        how: its optimizer's settings, where they are not those of the run.
        judge, publish: how good the network is, and where it is kept; none where another level sees to that.
        factor: of the learning rate; best, best_step: the best score so far, and when; stale: validations since;
            failures: steps in a row that were left out; collapsed: steps in a row in which no feature told anything.
    """

    fabric: Fabric
    network: nn.Module
    objective: Objective
    sampler: Sampler
    settings: TrainingSettings
    judge: Judge | None = None
    publish: Publish | None = None
    owns: Callable[[str], bool] = everything
    how: StepSettings | None = None
    name: str = "weights"
    factor: float = 1.0
    best: float | None = None
    best_step: int = 0
    stale: int = 0
    failures: int = 0
    collapsed: int = 0
    optimizer: torch.optim.Adam = field(init=False)
    average: AveragedModel = field(init=False)

    def __post_init__(self) -> None:
        settings = self.settings.optimizer
        if self.fabric.device.type == "cpu":
            side_by_side(self.network)
        self.optimizer = torch.optim.Adam(self.variables().values(), lr=self.optimization.learning_rate)
        self.average = AveragedModel(self.network, self.fabric.device, multi_avg_fn=following(settings.averaging)).eval()
        self._wrapped, self._wrapped_optimizer = cast(tuple[Any, Any], self.fabric.setup(self.network, self.optimizer))

    @property
    def optimization(self) -> StepSettings:
        """How these weights move."""
        return self.settings.optimizer if self.how is None else self.how

    def variables(self) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in self.network.named_parameters() if self.owns(name)}

    def draw(self, step: int) -> list[Batch]:
        """Those of a step's pairs that are this process's, one batch a turn of accumulation."""
        size, world, rank = self.settings.batch, self.fabric.world_size, self.fabric.global_rank
        slots = [[(turn * world + rank) * size + k for k in range(size)] for turn in range(self.settings.accumulate)]
        return [self.sampler.batch(step, some) for some in slots]

    def noise(self, step: int) -> torch.Generator | None:
        """Draws what is random in a network at a step; None where nothing is."""
        if not self.settings.network.uncertainty:
            return None
        fabric = self.fabric
        number = (self.settings.seed * 1_000_003 + step) * fabric.world_size + fabric.global_rank
        return torch.Generator().manual_seed(number)

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        settings = self.optimization
        rate = settings.learning_rate * self.factor * min(1.0, (step + 1) / max(settings.warmup, 1))
        if settings.schedule == "cosine":
            rate *= 0.5 * (1 + np.cos(np.pi * step / self.settings.steps))
        return float(rate)

    def step(self, step: int, drawn: list[Batch]) -> dict[str, float]:
        """One update; terms and loss, averaged over all processes, and the learning rate."""
        fabric = self.fabric
        rate = self.rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self._wrapped.train()
        self.optimizer.zero_grad()
        generator = self.noise(step)
        sums: dict[str, Tensor] = {}
        for turn, batch in enumerate(drawn):
            with self._alone(), fabric.no_backward_sync(self._wrapped, enabled=turn + 1 < len(drawn)):
                alignment = alignment_of(batch.to(fabric.device), self._wrapped, generator)
                values = self.objective.values(alignment)
                loss = self.objective.total(values) / len(drawn)
                fabric.backward(loss)
            informed = self._informed(alignment)
            for name, value in {**values, **informed, "loss": loss * len(drawn)}.items():
                sums[name] = sums.get(name, torch.zeros((), device=loss.device)) + value.detach() / len(drawn)
        means = {name: float(torch.as_tensor(fabric.all_reduce(value, reduce_op="mean"))) for name, value in sums.items()}
        norm = float(nn.utils.clip_grad_norm_(list(self.variables().values()), self.optimization.clip))
        self._watch(step, means)
        if np.isfinite(means["loss"]) and np.isfinite(norm):
            self.failures = 0
            self._wrapped_optimizer.step()
            # Steps count, also those that failed; from 1, for at 0 the weights would be copied.
            self.average.n_averaged.fill_(step + 1)
            self.average.update_parameters(self.network)
        else:
            self._fail(step, means["loss"], norm)
        return {**means, "learning_rate": rate}

    @contextmanager
    def _alone(self) -> Generator[None]:
        """Within, all but this level's weights are constants, through which gradients still pass."""
        others = [
            tensor for name, tensor in self.network.named_parameters() if not self.owns(name) and tensor.requires_grad
        ]
        for tensor in others:
            tensor.requires_grad = False
        try:
            yield
        finally:
            for tensor in others:
                tensor.requires_grad = True

    def _informed(self, alignment: Alignment) -> dict[str, Tensor]:
        """How far each channel of random features is from the prior they are held near, and what it tells; nats."""
        features = None if alignment.prediction is None else alignment.prediction.features
        held = any(isinstance(term, FeaturePrior) for term in self.objective.terms.values())
        if features is None or not held:
            return {}
        return {
            **{f"kl.{name}": value for name, value in divergences(features).items()},
            **{f"told.{name}": value for name, value in told(features).items()},
        }

    def _watch(self, step: int, means: Mapping[str, float]) -> None:
        channels = [value for name, value in means.items() if name.startswith("told.")]
        self.collapsed = self.collapsed + 1 if channels and max(channels) < UNTOLD else 0
        if self.collapsed >= COLLAPSED:
            raise RunError(
                f"The features told nothing of the images for {COLLAPSED} steps, at step {step}: each channel is the same "
                f"everywhere, to {UNTOLD:g} nats.",
                hint="Lower the weight of feature-prior, give their images a likelihood (lncc, reconstruction), or let the "
                "levels take turns.",
            )

    def _fail(self, step: int, loss: float, norm: float) -> None:
        self.failures += 1
        self.factor *= 0.5
        if self.failures >= PATIENCE:
            weights = {k: float(v) for k, v in self.objective.weights.items()}
            raise RunError(
                f"Training diverged at step {step}: loss {loss}, gradient norm {norm}, "
                f"learning rate {self.rate(step):.2g}; {self.settings.network.kind}, objective {weights}.",
                hint="Lower optimizer.learning_rate, or resume from the last checkpoint with other settings.",
            )

    def validate(self, step: int) -> Verdict | None:
        """Judge the average; publish it, and keep it if it is the best so far."""
        if self.judge is None or self.publish is None:
            return None
        verdict = self._judged(step, self.judge, self.publish) if self.fabric.is_global_zero else None
        if self.settings.optimizer.schedule == "plateau":
            self.factor = float(self.fabric.broadcast(self.factor))
        return verdict

    def _judged(self, step: int, judge: Judge, publish: Publish) -> Verdict:
        judged, kept = judge(self.average.module), self.average.module.state_dict()
        figures: Mapping[str, float] = {} if judged is None else judged.figures
        better = judged is None or judged.score > (-np.inf if self.best is None else self.best)
        if better:
            self.best, self.best_step, self.stale = None if judged is None else judged.score, step, 0
            publish("best", step, figures, kept)
        else:
            self.stale += 1
            settings = self.settings.optimizer
            if settings.schedule == "plateau" and self.stale >= settings.patience:
                self.factor, self.stale = 0.5 * self.factor, 0
        publish("last", step, figures, kept)
        return Verdict(figures, better, {} if judged is None else judged.shown)

    def state_dict(self) -> State:
        return {
            **under("network", self.network.state_dict()),
            **under("average", self.average.module.state_dict()),
            **under("optimizer", moments(self.optimizer)),
            "rate": self.optimizer.param_groups[0]["lr"],
            **{name: getattr(self, name) for name in PLAIN},
        }

    def load_state_dict(self, state: State) -> None:
        adopt(self.network.state_dict(), part(state, "network"))
        adopt(self.average.module.state_dict(), part(state, "average"))
        remember(self.optimizer, part(state, "optimizer"))
        for group in self.optimizer.param_groups:
            group["lr"] = state["rate"]  # a level that steps before this one may ask for it
        for name in PLAIN:
            setattr(self, name, state[name])


PLAIN = ("factor", "best", "best_step", "stale", "failures", "collapsed")
"""What a level of weights remembers beside tensors."""


def following(averaging: float) -> Callable[[Any, Any, Tensor | int], None]:
    """How an average follows the weights: faster in the first steps, then with this decay."""

    def follow(averages: list[Tensor], weights: list[Tensor], count: Tensor | int) -> None:
        share = 1 - min(averaging, int(count) / (9 + int(count)))
        for average, weight in zip(averages, weights, strict=True):
            average.lerp_(weight, share)

    return follow


def with_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> Predict:
    """A network under other weights than its own, for levels that differentiate through them (`networks.base.predict`)."""

    def predicted(fixed: Tensor, moving: Tensor, generator: torch.Generator | None = None) -> Prediction:
        return predict(network, weights, fixed, moving, generator=generator)

    return predicted
