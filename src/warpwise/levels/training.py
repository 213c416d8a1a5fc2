"""Level 1: weights. One explicit loop, on one device or several processes."""

import copy
import json
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.multiprocessing.spawn import ProcessRaisedException

from warpwise import __version__
from warpwise.data.batches import Batch
from warpwise.data.volumes import Store
from warpwise.errors import InputError, RunError
from warpwise.io.run_folder import appearing, claim_folder, locked
from warpwise.levels import checkpoint
from warpwise.levels.board import Board
from warpwise.levels.checkpoint import Progress
from warpwise.levels.prepared import Prepared, prepare
from warpwise.levels.settings import TrainingSettings
from warpwise.levels.validation import Judged, alignment_of, judge, judge_synthetic
from warpwise.networks.base import initialise
from warpwise.networks.model import ModelCard
from warpwise.objective import Objective
from warpwise.ops.runtime import get_threads, set_threads

CONFIG, HISTORY = "config.yaml", "history.jsonl"
LOG_EVERY = 10  # steps
PATIENCE = 5  # steps in a row that may fail before the run does
SYNTHETIC_PAIRS = 8  # pairs to validate on where pairs are made

Event = dict[str, Any]
OnEvent = Callable[[Event], None]


def silent(event: Event) -> None:
    """The callback for those who do not want to know."""


@dataclass(frozen=True)
class Run:
    """Where and how a training runs.

    Attributes:
        folder: config.yaml, history.jsonl, best/ and last/ (models), last/optimizer.safetensors, tensorboard/.
        cache: decoded images and linear transforms; inside the folder where none is given.
        resume: go on from last/.
        device: auto, cpu or cuda; processes: that train side by side.
        on_event: told of notes, steps, validations; must be picklable with several processes.
    """

    folder: Path
    cache: Path | None = None
    resume: bool = False
    overwrite: bool = False
    device: str = "auto"
    processes: int = 1
    on_event: OnEvent = silent


def train(settings: TrainingSettings, run: Run) -> None:
    """Train a network; the folder then holds its best and last weights.

    On a CPU, a run that was killed and resumed ends with the same bits as one that was not.

    Raises:
        InputError: the settings, the data or the folder cannot be used.
        RunError: the loss stayed without a finite value.
    """
    settings.network_settings()
    Objective.of(settings.objective)
    accelerator = device_of(run.device)
    if run.resume:
        if not checkpoint.exists(run.folder / "last"):
            raise InputError(f"{run.folder}: there is nothing to resume (no last/{checkpoint.STATE}).")
    else:
        claim_folder(run.folder, [CONFIG, "last", "best"], overwrite=run.overwrite)
    with locked(run.folder):
        if not run.resume:
            begin(settings, run.folder)
        many = run.processes > 1
        strategy = "ddp_spawn" if many else "auto"
        fabric = Fabric(accelerator=accelerator, devices=run.processes, strategy=strategy, precision=settings.precision)
        try:
            # Bound, not passed: Fabric would copy the arguments field by field, which frozen ones refuse.
            fabric.launch(partial(work, settings=settings, run=run))
        except ProcessRaisedException as error:
            last = str(error).strip().splitlines()[-1]
            raise RunError(f"A training process failed: {last}", hint="Train with one process to see where.") from error


def device_of(name: str) -> str:
    """What Fabric calls it.

    Raises:
        InputError: there is no GPU though one was asked for.
    """
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise InputError("No CUDA device was found.", hint="Use --device cpu or auto.")
    return "cuda" if there and name != "cpu" else "cpu"


def begin(settings: TrainingSettings, folder: Path) -> None:
    """A fresh run: its settings, and nothing left of one before it."""
    for left in (folder / HISTORY, folder / "last" / checkpoint.STATE):
        left.unlink(missing_ok=True)
    with appearing(folder) as scratch:
        text = yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        (scratch / CONFIG).write_text(text, encoding="utf-8")


def work(fabric: Fabric, settings: TrainingSettings, run: Run) -> None:
    """What each process does."""
    if run.processes > 1:
        share = max(1, get_threads() // run.processes)
        set_threads(share)
        torch.set_num_threads(share)
    first = fabric.global_rank == 0
    tell = run.on_event if first else silent
    store = Store(run.cache or run.folder / "cache")

    def say(text: str) -> None:
        tell({"kind": "note", "text": text})

    # The first process fills the cache, the others read it.
    ready = prepare(settings, store, say) if first else None
    fabric.barrier()
    trainer = Trainer.build(fabric, settings, run, ready or prepare(settings, store, say))
    trainer.loop(tell)


@dataclass
class Trainer:
    """One process of a run."""

    fabric: Fabric
    settings: TrainingSettings
    folder: Path
    ready: Prepared
    objective: Objective
    network: nn.Module
    optimizer: torch.optim.Optimizer
    wrapped: Any
    wrapped_optimizer: Any
    shadow: nn.Module
    average: dict[str, Tensor]
    progress: Progress
    board: Board | None = None
    recent: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    failures: int = 0

    @classmethod
    def build(cls, fabric: Fabric, settings: TrainingSettings, run: Run, ready: Prepared) -> "Trainer":
        """Network, optimizer and their state, fresh or from a checkpoint."""
        network = ready.card.build()
        initialise(network, torch.Generator().manual_seed(settings.seed))
        optimizer = torch.optim.Adam(network.parameters(), lr=settings.optimizer.learning_rate)
        shadow = copy.deepcopy(network).to(fabric.device).eval()
        wrapped, wrapped_optimizer = fabric.setup(network, optimizer)
        average = {k: v.detach().clone() for k, v in network.state_dict().items()}
        progress = Progress()
        if run.resume:
            average, progress = checkpoint.load(run.folder / "last", network, optimizer)
            average = {k: v.to(fabric.device) for k, v in average.items()}
        first = fabric.global_rank == 0
        if first:
            keep_history(run.folder / HISTORY, progress.step)
        board = Board.open(run.folder / "tensorboard", progress.step) if first else None
        objective = Objective.of(settings.objective)
        return cls(
            fabric, settings, run.folder, ready, objective, network, optimizer, wrapped, wrapped_optimizer, shadow,
            average, progress, board,
        )  # fmt: skip

    def loop(self, tell: OnEvent) -> None:
        """All steps that are left."""
        settings, progress = self.settings, self.progress
        saved = began = time.monotonic()
        already = progress.seconds
        first = self.fabric.global_rank == 0
        if first and progress.step > 0:
            tell({"kind": "note", "text": f"Resumed after step {progress.step}."})
        with ThreadPoolExecutor(1) as pool:
            coming = self.ask(pool, progress.step)
            while progress.step < settings.steps:
                batches = coming.result()
                if progress.step + 1 < settings.steps:
                    coming = self.ask(pool, progress.step + 1)
                values = self.step(batches)
                progress.step += 1
                now = time.monotonic()
                progress.seconds = already + now - began
                last = progress.step == settings.steps
                if first:
                    self.log(values, tell, last=last)
                    due = progress.step % settings.validate_every == 0 or last
                    if due:
                        self.validate(tell)
                    if due or now - saved > settings.save_every_s:
                        self.save()
                        saved = time.monotonic()
                if settings.optimizer.schedule == "plateau":
                    progress.factor = float(self.fabric.broadcast(progress.factor))
        self.fabric.barrier()
        if self.board is not None:
            self.board.close()

    def ask(self, pool: ThreadPoolExecutor, step: int) -> "Future[list[Batch]]":
        """One process's share of a step's pairs, made ready in the background."""
        size, world, rank = self.settings.batch, self.fabric.world_size, self.fabric.global_rank
        slots = [[(turn * world + rank) * size + k for k in range(size)] for turn in range(self.settings.accumulate)]
        return pool.submit(lambda: [self.ready.sampler.batch(step, some) for some in slots])

    def rate(self) -> float:
        """The learning rate of the coming step."""
        settings, step = self.settings.optimizer, self.progress.step
        rate = settings.learning_rate * self.progress.factor * min(1.0, (step + 1) / max(settings.warmup, 1))
        if settings.schedule == "cosine":
            rate *= 0.5 * (1 + np.cos(np.pi * step / self.settings.steps))
        return float(rate)

    def step(self, batches: list[Batch]) -> dict[str, float]:
        """One update; terms and loss, averaged over all processes."""
        fabric, settings = self.fabric, self.settings
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        self.wrapped.train()
        self.optimizer.zero_grad()
        number = (settings.seed * 1_000_003 + self.progress.step) * fabric.world_size + fabric.global_rank
        generator = torch.Generator().manual_seed(number) if self.network_samples() else None
        sums: dict[str, Tensor] = {}
        for turn, batch in enumerate(batches):
            with fabric.no_backward_sync(self.wrapped, enabled=turn + 1 < len(batches)):
                alignment = alignment_of(batch.to(fabric.device), self.wrapped, generator)
                values = self.objective.values(alignment)
                loss = self.objective.total(values) / len(batches)
                fabric.backward(loss)
            for name, value in {**values, "loss": loss * len(batches)}.items():
                sums[name] = sums.get(name, torch.zeros((), device=loss.device)) + value.detach() / len(batches)
        found = {name: float(torch.as_tensor(fabric.all_reduce(value, reduce_op="mean"))) for name, value in sums.items()}
        norm = float(nn.utils.clip_grad_norm_(self.network.parameters(), settings.optimizer.clip))
        if np.isfinite(found["loss"]) and np.isfinite(norm):
            self.failures = 0
            self.wrapped_optimizer.step()
            self.follow()
        else:
            self.fail(found["loss"], norm)
        return found

    def network_samples(self) -> bool:
        """Whether the network draws its velocity at random."""
        return self.settings.network_settings().uncertainty

    def fail(self, loss: float, norm: float) -> None:
        """A step without a finite loss or gradient is left out, and the next ones are half as long."""
        self.failures += 1
        self.progress.factor *= 0.5
        if self.failures >= PATIENCE:
            raise RunError(
                f"Training diverged at step {self.progress.step}: loss {loss}, gradient norm {norm}, "
                f"learning rate {self.rate():.2g}; {self.settings.network}, objective "
                f"{ {k: v.weight for k, v in self.settings.objective.items()} }.",
                hint="Lower optimizer.learning_rate, or resume from the last checkpoint with other settings.",
            )

    def follow(self) -> None:
        """Let the average follow the weights, faster in the first steps."""
        decay = min(self.settings.optimizer.averaging, (1 + self.progress.step) / (10 + self.progress.step))
        with torch.no_grad():
            for name, value in self.network.state_dict().items():
                if value.is_floating_point():
                    self.average[name].lerp_(value.detach(), 1 - decay)
                else:
                    self.average[name].copy_(value)

    def log(self, values: dict[str, float], tell: OnEvent, *, last: bool) -> None:
        """A line of history every so many steps; every step to who listens."""
        settings, step = self.settings, self.progress.step
        self.recent.append(values)
        rate = self.rate()
        tell({"kind": "step", "step": step, "steps": settings.steps, "seconds": self.progress.seconds, **values})
        if step % LOG_EVERY == 0 or last:
            means = {k: float(np.mean([row[k] for row in self.recent])) for k in values}
            self.recent.clear()
            record(self.folder / HISTORY, {"kind": "train", "step": step, "seconds": self.progress.seconds, **means})
            if self.board is not None:
                self.board.curves("train", {**means, "learning rate": rate}, step)

    def validate(self, tell: OnEvent) -> None:
        """Judge the averaged weights; keep them if they are the best so far."""
        settings, progress = self.settings, self.progress
        self.shadow.load_state_dict(self.average)
        device = self.fabric.device
        if self.ready.validation:
            found = judge(self.shadow, self.objective, self.ready.validation, self.ready.labels, device)
        elif settings.synthetic is not None:
            found = judge_synthetic(self.shadow, self.objective, self.ready.sampler, count=SYNTHETIC_PAIRS, device=device)
        else:
            found = Judged(-self.progress.step, {}, {})  # nothing to judge by: the last weights count as the best
        better = found.score > progress.best or not found.figures
        if better:
            progress.best, progress.best_step, progress.stale = found.score, progress.step, 0
            checkpoint.publish(self.folder / "best", self.card(found), self.average)
        else:
            progress.stale += 1
            if settings.optimizer.schedule == "plateau" and progress.stale >= settings.optimizer.patience:
                progress.factor, progress.stale = 0.5 * progress.factor, 0
        figures = {k: round(v, 6) for k, v in found.figures.items()}
        record(self.folder / HISTORY, {"kind": "validation", "step": progress.step, "best": better, **figures})
        tell({"kind": "validation", "step": progress.step, "best": better, **figures})
        checkpoint.publish(self.folder / "last", self.card(found), self.average)
        if self.board is not None:
            self.board.curves("validation", found.figures, progress.step)
            self.board.images(found.shown, progress.step)

    def card(self, found: Judged) -> ModelCard:
        """The model's card at this step."""
        told = self.settings.model_dump(mode="json")
        for key in ("dataset", "atlas"):  # names, not where they lie on this machine
            given = getattr(self.settings.data, key)
            told["data"][key] = None if given is None else given.name
        training = {"warpwise": __version__, "step": self.progress.step, "settings": told}
        return self.ready.card.replace(training=training, validation={k: round(v, 5) for k, v in found.figures.items()})

    def save(self) -> None:
        """What is needed to go on."""
        checkpoint.save(self.folder / "last", self.network, self.average, self.optimizer, self.progress)


def record(path: Path, row: dict[str, Any]) -> None:
    """Add a line to the history."""
    rounded = {k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(rounded) + "\n")


def history(folder: Path) -> list[dict[str, Any]]:
    """All lines of a run's history; a line that a kill cut short is left out."""
    path = folder / HISTORY
    if not path.exists():
        return []
    out: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            out.append(json.loads(line))
        except ValueError:
            continue
    return out


def keep_history(path: Path, step: int) -> None:
    """Forget what was written after the checkpoint that a run goes on from."""
    rows = [row for row in history(path.parent) if row.get("step", 0) <= step]
    if path.exists():
        with appearing(path.parent) as scratch:
            (scratch / path.name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
