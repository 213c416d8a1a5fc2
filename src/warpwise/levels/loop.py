"""The one loop in which levels learn: they take turns, and all that they are is written down together.

A level owns variables: weights ω, an architecture α, the values of an objective λ … The loop knows none of them by name.
"""

import signal
import threading
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, TypeVar

import numpy as np
from torch import Tensor

from warpwise.errors import InputError
from warpwise.events import Event, OnEvent, ignore, note
from warpwise.levels import checkpoint
from warpwise.levels.board import Board
from warpwise.levels.checkpoint import State
from warpwise.levels.history import HISTORY, keep_history, record

LAST = "last"
LOG_EVERY = 10  # steps

Drawn = TypeVar("Drawn")


@dataclass(frozen=True, eq=False)
class Verdict:
    """What a level says of itself when it is validated.

    Attributes:
        figures: by name; best: whether it was never better; shown: images (X, Y[, Z]) by name, side by side on the board.
    """

    figures: Mapping[str, float]
    best: bool = False
    shown: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])


class Level(Protocol[Drawn]):
    """Something that learns: variables of its own, and a way to step with them.

    Whatever is random must come from the step's number, and whatever changes must be in the state: then a run that was
    killed and resumed ends with the bits of one that was not.
    """

    @property
    def name(self) -> str:
        """One word, its own among the levels of a run."""
        ...

    def variables(self) -> Mapping[str, Tensor]:
        """The tensors that this level alone changes."""
        ...

    def draw(self, step: int) -> Drawn:
        """What step number `step` looks at: batches of the level's own split. Called ahead of time, by another thread."""
        ...

    def step(self, step: int, drawn: Drawn) -> dict[str, float]:
        """Change the variables once; what was measured on the way, by name. Steps are counted from 0."""
        ...

    def validate(self, step: int) -> Verdict | None:
        """Judge the variables after so many steps, and keep what is to be kept; None from a level that is not judged."""
        ...

    def state_dict(self) -> State:
        """All that the next step depends on."""
        ...

    def load_state_dict(self, state: State) -> None:
        """Go back to where it was.

        Raises:
            InputError: the state is of another level.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Which level steps when.

    Attributes:
        steps: of the run.
        every: a level named here steps only at every so-manieth of them; others at each.
        validate_every: steps between validations; there is one after the last step, too.
        save_every_s: seconds between checkpoints, beside those at every validation.
    """

    steps: int
    every: Mapping[str, int] = field(default_factory=dict[str, int])
    validate_every: int = 200
    save_every_s: float = 60.0

    def due(self, name: str, step: int) -> bool:
        """Whether a level steps at step number `step`, counted from 0: with every = 2 at 1, 3, 5 …"""
        return (step + 1) % self.every.get(name, 1) == 0


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        step: steps done; seconds: spent in all; recent: what was measured since the last line of history.
    """

    step: int = 0
    seconds: float = 0.0
    recent: list[dict[str, float]] = field(default_factory=list[dict[str, float]])


def run(
    levels: Sequence[Level[Any]],
    schedule: Schedule,
    folder: Path,
    *,
    resume: bool = False,
    leads: bool = True,
    patient: bool = True,
    on_event: OnEvent = ignore,
) -> None:
    """Let levels learn in turns; within a step in the order in which they are given.

    Ctrl-C or SIGTERM ends a run after the step that is under way, with its state written; a second one ends it at once.

    The folder receives history.jsonl, tensorboard/ and last/state.safetensors, from which a run is resumed. What the
    first level measures stands there by its own name, what others measure as `level/name`.

    Args:
        resume: go on from last/state.safetensors.
        leads: whether this process writes and tells; off for all but one of several that step side by side.
        patient: whether a signal waits for the end of a step; off for several processes, of which each may be at another.

    Raises:
        InputError: two levels have one name or claim one tensor; the schedule names a level that is not there; what is
            resumed is damaged, or of other levels.
        KeyboardInterrupt: the run was asked to end.
    """
    check(levels, schedule)
    progress = restored(levels, folder / LAST) if resume else Progress()
    if leads and not resume:
        forget(folder)
    scribe = Scribe(folder, schedule, on_event, resumed_at=progress.step) if leads else None
    began, saved = time.monotonic() - progress.seconds, time.monotonic()
    try:
        with asked_to_end(patient=patient) as end, ThreadPoolExecutor(1) as pool:
            coming = ahead(turns(levels, schedule, progress.step), pool)
            for step in range(progress.step, schedule.steps):
                values: dict[str, float] = {}
                for level in levels:
                    if schedule.due(level.name, step):
                        values |= named(level.step(step, next(coming)), level, levels)
                progress.step, progress.seconds = step + 1, time.monotonic() - began
                if scribe is not None:
                    scribe.stepped(progress, values)
                last = progress.step == schedule.steps
                due = progress.step % schedule.validate_every == 0 or last
                for level in levels if due else ():
                    verdict = level.validate(progress.step)
                    if scribe is not None and verdict is not None:
                        scribe.judged(progress, verdict, named(verdict.figures, level, levels))
                if leads and (due or end.is_set() or time.monotonic() - saved > schedule.save_every_s):
                    checkpoint.save(folder / LAST, {level.name: level.state_dict() for level in levels}, vars(progress))
                    saved = time.monotonic()
                if end.is_set() and not last:
                    raise KeyboardInterrupt
    finally:
        if scribe is not None:
            scribe.close()


@contextmanager
def asked_to_end(*, patient: bool) -> Generator[threading.Event]:
    """Set by the first Ctrl-C or SIGTERM within; the second one is met as it would have been without, as are all where
    nobody is patient."""
    asked = threading.Event()
    if not patient or threading.current_thread() is not threading.main_thread():  # others cannot be told of signals
        yield asked
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as `signal` calls it
        asked.set()
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, ask)
    try:
        yield asked
    finally:
        restore()


def forget(folder: Path) -> None:
    """Leave nothing from which an earlier run in a folder could be resumed."""
    for left in (folder / HISTORY, folder / LAST / checkpoint.STATE):
        left.unlink(missing_ok=True)


def check(levels: Sequence[Level[Any]], schedule: Schedule) -> None:
    """Refuse levels that would be in each other's way.

    Raises:
        InputError: see `run`.
    """
    names = [level.name for level in levels]
    if not names or len(set(names)) < len(names) or any("." in name for name in names):
        raise InputError(f"Levels are called {', '.join(names) or 'nothing'}: each needs a name of its own, without a dot.")
    odd = sorted(set(schedule.every) - set(names))
    if odd:
        raise InputError(f"The schedule names a level {odd[0]!r}; there is {', '.join(names)}.")
    if schedule.validate_every < 1:
        raise InputError(f"validate_every is {schedule.validate_every}; at least 1 is needed.")
    slow = [name for name, every in schedule.every.items() if every < 1]
    if slow:
        raise InputError(f"Level {slow[0]!r} cannot step at every {schedule.every[slow[0]]}th step.")
    owners: dict[tuple[str, int], tuple[str, str]] = {}
    for level in levels:
        for name, tensor in level.variables().items():
            # Parts of one tensor share its storage; an empty one has no place in memory that it could share.
            storage = tensor.untyped_storage().data_ptr()
            place = (str(tensor.device), storage if tensor.numel() else id(tensor))
            owner, its = owners.setdefault(place, (level.name, name))
            if owner != level.name:
                raise InputError(f"Levels {owner!r} and {level.name!r} both claim one tensor ({its}, {name}).")


def restored(levels: Sequence[Level[Any]], folder: Path) -> Progress:
    """Put every level back where it was.

    Raises:
        InputError: there is no such state, or it is damaged or of other levels.
    """
    states, progress = checkpoint.load(folder)
    path = folder / checkpoint.STATE
    names = [level.name for level in levels]
    if set(states) != set(names):
        raise InputError(f"{path}: is of the levels {', '.join(states)}; these are {', '.join(names)}.")
    for level in levels:
        try:
            level.load_state_dict(states[level.name])
        except InputError as error:
            raise InputError(f"{path}: {level.name}: {error.message}", hint=error.hint) from error
    return Progress(**progress)


def turns(levels: Sequence[Level[Any]], schedule: Schedule, begin: int) -> Generator[tuple[Level[Any], int]]:
    """Who steps, and the number of the step, in order."""
    for step in range(begin, schedule.steps):
        for level in levels:
            if schedule.due(level.name, step):
                yield level, step


def ahead(coming: Iterable[tuple[Level[Any], int]], pool: ThreadPoolExecutor) -> Generator[Any]:
    """What every turn looks at; one is made ready in the background while the one before is at work."""
    waiting: Future[Any] | None = None
    for level, step in coming:
        following = pool.submit(level.draw, step)
        if waiting is not None:
            yield waiting.result()
        waiting = following
    if waiting is not None:
        yield waiting.result()


def named(values: Mapping[str, float], level: Level[Any], levels: Sequence[Level[Any]]) -> dict[str, float]:
    """What a level measured, under names that no other level uses."""
    return {name if level is levels[0] else f"{level.name}/{name}": value for name, value in values.items()}


class Scribe:
    """What a run leaves for people: history, curves, events."""

    def __init__(self, folder: Path, schedule: Schedule, on_event: OnEvent, *, resumed_at: int) -> None:
        self.folder = folder
        self.schedule = schedule
        self.tell = on_event
        folder.mkdir(parents=True, exist_ok=True)
        keep_history(folder, resumed_at)
        self.board = Board.open(folder / "tensorboard", resumed_at)
        if self.board is None:
            self.tell(note(f"TensorBoard is not installed: curves stand in {HISTORY} alone."))
        if resumed_at > 0:
            self.tell(note(f"Resumed after step {resumed_at}."))

    def stepped(self, progress: Progress, values: dict[str, float]) -> None:
        """A line of history every so many steps; every step to who listens."""
        step, steps = progress.step, self.schedule.steps
        progress.recent.append(values)
        self.tell(Event("train", step=step, steps=steps, values=values, elapsed_s=progress.seconds))
        if step % LOG_EVERY and step < steps:
            return
        names = list(dict.fromkeys(name for row in progress.recent for name in row))
        means = {k: float(np.mean([row[k] for row in progress.recent if k in row])) for k in names}
        progress.recent.clear()
        record(self.folder, {"kind": "train", "step": step, "seconds": progress.seconds, **means})
        if self.board is not None:
            self.board.curves("train", means, step)

    def judged(self, progress: Progress, verdict: Verdict, figures: Mapping[str, float]) -> None:
        """A line of history, an event, curves and images."""
        step, best = progress.step, verdict.best
        rounded = {k: round(v, 6) for k, v in figures.items()}
        record(self.folder, {"kind": "validation", "step": step, "best": best, **rounded})
        self.tell(
            Event("validation", step=step, steps=self.schedule.steps, values=rounded, elapsed_s=progress.seconds, best=best)
        )
        if self.board is not None:
            self.board.curves("validation", figures, step)
            self.board.images(verdict.shown, step)

    def close(self) -> None:
        """Finish what is open."""
        if self.board is not None:
            self.board.close()
