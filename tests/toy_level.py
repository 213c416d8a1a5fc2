"""A second level in one file: the weight λ of a term, learned on pairs of its own while the weights learn on theirs.

As a program it trains, and kills itself after some steps: python tests/toy_level.py FOLDER DATASET STEP
"""

import os
import signal
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor
from toys import SMALL_NETWORK

from warpwise.data.batches import Batch, Sampler
from warpwise.data.prepared import sampler_of
from warpwise.data.settings import AugmentationSettings
from warpwise.events import Event, OnEvent, ignore
from warpwise.levels import loop
from warpwise.levels.checkpoint import State, adopt, moments, part, remember, under
from warpwise.levels.estimators import AdamStep, OneStep
from warpwise.levels.hypergradient import Variables, hypergradient
from warpwise.levels.settings import TrainingSettings
from warpwise.levels.training import Run, data_of, schedule_of, weights_of
from warpwise.levels.validation import alignment_of
from warpwise.levels.weights import Weights, with_weights
from warpwise.objective import Objective

BATCH = 2


@dataclass(kw_only=True, eq=False)
class TermWeight:
    """log λ falls along what one more step of the weights would do to an outer objective.

    Attributes:
        weights: the level below; term: the name of the term in its objective.
        value: λ as it stands in that objective, 0-dim.
        outer: what λ is for; sampler: of the pairs on which that is measured.
    """

    weights: Weights
    term: str
    value: Tensor
    outer: Objective
    sampler: Sampler
    name: str = "tuning"
    log: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.log = self.value.log().requires_grad_()
        self.optimizer = torch.optim.Adam([self.log], lr=0.1)

    def variables(self) -> dict[str, Tensor]:
        return {"log": self.log, "value": self.value}

    def draw(self, step: int) -> tuple[Batch, Batch]:
        slots = [*range(BATCH)]
        return self.weights.sampler.batch(step, slots), self.sampler.batch(step, slots)

    def step(self, step: int, drawn: tuple[Batch, Batch]) -> dict[str, float]:
        learnt, own = drawn
        network, objective = self.weights.network, self.weights.objective

        def inner_loss(outer: Variables, inner: Variables) -> Tensor:
            tuned = replace(objective, weights={**objective.weights, self.term: outer["log"].exp()})
            return tuned(alignment_of(learnt, with_weights(network, inner)))

        def outer_loss(_: Variables, inner: Variables) -> Tensor:
            return self.outer(alignment_of(own, with_weights(network, inner)))

        gradient = hypergradient(
            outer_loss,
            inner_loss,
            {"log": self.log},
            self.weights.variables(),
            estimator=OneStep(AdamStep(self.weights.optimizer)),
        )["log"]
        self.log.grad = gradient
        self.optimizer.step()
        with torch.no_grad():
            self.value.copy_(self.log.exp())
        return {"weight": float(self.value), "gradient": float(gradient)}

    def validate(self, step: int) -> None:
        return None

    def state_dict(self) -> State:
        return {**self.variables(), **under("optimizer", moments(self.optimizer))}

    def load_state_dict(self, state: State) -> None:
        adopt(self.variables(), {name: state[name] for name in ("log", "value")})
        remember(self.optimizer, part(state, "optimizer"))


def settings(data: Path) -> TrainingSettings:
    return TrainingSettings.parse({
        "network": {"kind": "pyramid", **SMALL_NETWORK},
        "data": {"dataset": data, "alignment": "none"},
        "objective": {"lncc": {"radius": 2}, "diffusion": {"weight": 0.1}},
        "optimizer": {"warmup": 0, "learning_rate": 3e-3},
        "batch": BATCH,
        "steps": 8,
        "validate_every": 3,
    })


def learn(folder: Path, data: Path, *, resume: bool = False, tuned: bool = True, on_event: OnEvent = ignore) -> None:
    """Weights at every step; at every second one λ, on validation pairs as they lie."""
    wanted = settings(data)
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.launch()
    ready = data_of(wanted, Run(folder), ignore)
    value = torch.tensor(0.1)
    fixed = Objective.of(wanted.objective)
    below = weights_of(
        fabric, wanted, ready, folder, objective=replace(fixed, weights={**fixed.weights, "diffusion": value})
    )
    still = AugmentationSettings(rotation_degrees=0, scaling=0, shift_voxels=0, flip=False, noise=0, bias=0, gamma=0)
    own = sampler_of(ready.validation, ready.labels, labels_at_once=8, augmentation=still, seed=7)
    outer = Objective({"lncc": fixed.terms["lncc"]}, {"lncc": 1.0})
    above = TermWeight(weights=below, term="diffusion", value=value, outer=outer, sampler=own)
    levels = [below, above] if tuned else [below]
    schedule = schedule_of(wanted, {"tuning": 2} if tuned else {})
    loop.run(levels, schedule, folder, resume=resume, on_event=on_event)


def main(folder: Path, data: Path, last: int) -> None:
    def end(event: Event) -> None:
        if event.stage == "train" and event.step == last:
            os.kill(os.getpid(), signal.SIGKILL)

    learn(folder, data, on_event=end)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
