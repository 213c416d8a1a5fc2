"""Level 3 by gradient: the weights λ of an objective, tuned while a network learns by it.

λ falls along what it does, through the weights that answer to it, to another objective U on pairs of other people. U never
contains λ. The result is plain settings, to train by from the start.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from warpwise.data.batches import Batch, Sampler
from warpwise.errors import RunError
from warpwise.levels.estimators import AdamStep, ConjugateGradient, Neumann, OneStep, Unrolled
from warpwise.levels.hypergradient import Estimator, Loss, Variables, hypergradient
from warpwise.levels.lambdas import LambdaLevel
from warpwise.levels.validation import alignment_of
from warpwise.levels.weights import Weights, with_weights
from warpwise.objective import Objective


@dataclass(kw_only=True, eq=False)
class Tuning(LambdaLevel):
    """The weights of the objective by which `weights` learns.

    Attributes:
        weights: the level below, whose objective has `values` as its weights.
        outer: U; sampler: of the pairs on which it is measured.
    """

    weights: Weights
    outer: Objective
    sampler: Sampler

    def draw(self, step: int) -> tuple[list[Batch], Batch]:
        """The pairs by which the weights learn next, and some of its own."""
        if (self.scaled and step < self.settings.warmup) or self.frozen:
            return [], Batch(*[torch.zeros(0)] * 3)
        return self.weights.draw(step + 1), self.sampler.batch(step, [*range(self.settings.batch)])

    def step(self, step: int, drawn: tuple[list[Batch], Batch]) -> dict[str, float]:
        """Move once; the weights of terms, U, and the gradients."""
        learnt, own = [batch.to(self.weights.fabric.device) for batch in drawn[0]], drawn[1].to(self.weights.fabric.device)
        if self.frozen or not learnt:
            return {}
        if not self.scaled:
            self._scale(step, learnt)
        if step < self.settings.warmup:
            return {}
        gradient = self.gradient(step, learnt, own, self.estimator())
        said = {"outer": float(gradient.pop("outer"))}
        if self.settings.check_every and (self.moved + 1) % self.settings.check_every == 0:
            said["cosine"] = self.cosine(step, learnt, own, gradient)
        return {**said, **self.moves_by(step, gradient)}

    def gradient(self, step: int, learnt: list[Batch], own: Batch, estimator: Estimator) -> dict[str, Tensor]:
        """dU/d(free number) of each, and U itself as `outer`, at the weights as they stand."""
        inner = self.inner_loss(step + 1, learnt)
        found: list[Tensor] = []

        def outer(_: Variables, weights: Variables) -> Tensor:
            value = self.outer(alignment_of(own, with_weights(self.weights.network, weights)))
            found.append(value.detach())
            return value

        gradient = hypergradient(
            outer, inner, self.lambdas.free, self.weights.variables(), estimator=estimator, lenient=True
        )
        return {**gradient, "outer": found[0]}

    def inner_loss(self, step: int, drawn: list[Batch]) -> Loss:
        """By what the weights learn at a step, as a function of free numbers and weights: same pairs, same noise."""
        weights = self.weights

        def loss(free: Variables, inner: Variables) -> Tensor:
            objective = replace(weights.objective, weights=self.lambdas.of(free))
            generator = weights.noise(step)
            values = [objective(alignment_of(batch, with_weights(weights.network, inner), generator)) for batch in drawn]
            return torch.stack(values).mean()

        return loss

    def estimator(self) -> Estimator:
        """How the weights answer."""
        settings = self.settings
        if settings.estimator == "unrolled":
            return Unrolled(settings.iterations, settings.rate)
        if settings.estimator == "neumann":
            return Neumann(settings.iterations, settings.rate)
        if settings.estimator == "conjugate-gradient":
            return ConjugateGradient(settings.iterations, settings.damping)
        return OneStep(AdamStep(self.weights.optimizer, self.weights.optimization.clip))

    def cosine(self, step: int, learnt: list[Batch], own: Batch, gradient: Mapping[str, Tensor]) -> float:
        """Of a gradient to that of a few conjugate gradients at the same place; NaN where the loss bends downwards."""
        try:
            other = self.gradient(step, learnt, own, ConjugateGradient(self.settings.iterations, self.settings.damping))
        except RunError:
            return float("nan")
        one, two = (torch.cat([g[name].reshape(-1) for name in self.lambdas.free]) for g in (gradient, other))
        self.cosines.append(float(F.cosine_similarity(one, two, 0)))
        return self.cosines[-1]

    def _scale(self, step: int, learnt: list[Batch]) -> None:
        """Divide shares by what their terms come to now."""
        if self.lambdas.mixtures:
            with torch.no_grad():
                batch = learnt[0]
                weights = self.weights.variables()
                generator = self.weights.noise(step + 1)
                found = alignment_of(batch, with_weights(self.weights.network, weights), generator)
                values = self.weights.objective.values(found)
                for name, scale in self.lambdas.scales.items():
                    scale.copy_(values[name].abs().clamp(min=1e-6))
            self._publish()
        self.scaled = True
