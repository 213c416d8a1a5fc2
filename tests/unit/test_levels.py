"""The loop that runs levels: who steps when, what is written, what is refused."""

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor

from warpwise.errors import InputError
from warpwise.events import Event
from warpwise.levels.checkpoint import State, adopt
from warpwise.levels.history import history
from warpwise.levels.loop import Schedule, Verdict, run


@dataclass(eq=False)
class Sum:
    """Adds the numbers of its steps; stops at one of them."""

    name: str = "sum"
    total: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    stop: int = -1
    signal: int = 0
    steps: list[int] = field(default_factory=list)
    best: float | None = None

    def variables(self) -> dict[str, Tensor]:
        return {"total": self.total}

    def draw(self, step: int) -> float:
        return float(step)

    def step(self, step: int, drawn: float) -> dict[str, float]:
        if step == self.stop and self.signal:
            signal.raise_signal(self.signal)
        elif step == self.stop:
            raise KeyboardInterrupt
        assert drawn == step
        self.steps.append(step)
        self.total += drawn
        return {"loss": float(self.total)}

    def validate(self, step: int) -> Verdict:
        self.best = float(self.total)
        return Verdict({"score": self.best}, best=True)

    def state_dict(self) -> State:
        return {"total": self.total, "best": self.best}

    def load_state_dict(self, state: Mapping) -> None:
        adopt(self.variables(), {"total": state["total"]})
        self.best = state["best"]


def rows(folder: Path) -> list[dict]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in history(folder)]


def test_levels_step_when_they_are_due_in_the_order_given(tmp_path: Path):
    every, third = Sum("every"), Sum("third")
    events: list[Event] = []
    run([every, third], Schedule(steps=7, every={"third": 3}, validate_every=5), tmp_path, on_event=events.append)
    assert every.steps == [0, 1, 2, 3, 4, 5, 6]
    assert third.steps == [2, 5]
    assert [sorted(e.values) for e in events if e.stage == "train"][1:3] == [["loss"], ["loss", "third/loss"]]
    assert [(e.step, e.best, dict(e.values)) for e in events if e.stage == "validation"] == [
        (5, True, {"score": 10}), (5, True, {"third/score": 2}), (7, True, {"score": 21}), (7, True, {"third/score": 7}),
    ]  # fmt: skip
    # Means are over the steps at which a level stepped.
    assert rows(tmp_path)[2] == {"kind": "train", "step": 7, "loss": 8.0, "third/loss": 4.5}


def test_a_run_that_was_stopped_goes_on_with_all_its_levels_and_its_history(tmp_path: Path):
    schedule = Schedule(steps=25, every={"b": 2}, validate_every=4)
    run([Sum("a"), Sum("b")], schedule, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run([Sum("a", stop=14), Sum("b")], schedule, tmp_path / "parts")
    again = [Sum("a"), Sum("b")]
    run(again, schedule, tmp_path / "parts", resume=True)
    assert again[0].steps[0] == 12
    assert [float(level.total) for level in again] == [sum(range(25)), sum(range(1, 25, 2))]
    assert rows(tmp_path / "whole") == rows(tmp_path / "parts")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_step_under_way_and_nothing_is_lost(tmp_path: Path, number: signal.Signals):
    schedule = Schedule(steps=25, every={"b": 2}, validate_every=10, save_every_s=1e9)
    before = signal.getsignal(number)
    stopped = [Sum("a", stop=14, signal=number), Sum("b")]
    with pytest.raises(KeyboardInterrupt):
        run(stopped, schedule, tmp_path)
    assert signal.getsignal(number) is before
    assert (stopped[0].steps[-1], stopped[1].steps[-1]) == (14, 13)
    again = [Sum("a"), Sum("b")]
    run(again, schedule, tmp_path, resume=True)
    assert again[0].steps[0] == 15
    assert [float(level.total) for level in again] == [sum(range(25)), sum(range(1, 25, 2))]


def test_a_second_signal_ends_a_run_at_once(tmp_path: Path):
    class Twice(Sum):
        def step(self, step: int, drawn: float) -> dict[str, float]:
            if step == self.stop:
                signal.raise_signal(signal.SIGINT)
            return super().step(step, drawn)

    level = Twice("a", stop=14, signal=signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run([level], Schedule(steps=25, validate_every=10, save_every_s=1e9), tmp_path)
    assert level.steps[-1] == 13
    again = Sum("a")
    run([again], Schedule(steps=25, validate_every=10), tmp_path, resume=True)
    assert again.steps[0] == 10  # what was validated last


def test_levels_in_each_others_way_are_refused_by_name(tmp_path: Path):
    shared = torch.zeros(3)
    with pytest.raises(InputError, match=r"'one' and 'two' both claim one tensor \(total, total\)"):
        run([Sum("one", shared), Sum("two", shared[:2])], Schedule(steps=1), tmp_path)
    with pytest.raises(InputError, match="one, one: each needs a name of its own"):
        run([Sum("one"), Sum("one")], Schedule(steps=1), tmp_path)
    with pytest.raises(InputError, match="'two'; there is one"):
        run([Sum("one")], Schedule(steps=1, every={"two": 2}), tmp_path)
    with pytest.raises(InputError, match="'one' cannot step at every 0th"):
        run([Sum("one")], Schedule(steps=1, every={"one": 0}), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_state_of_other_levels_or_shapes_is_refused_by_name(tmp_path: Path):
    run([Sum("one")], Schedule(steps=1), tmp_path)
    with pytest.raises(InputError, match="is of the levels one; these are two"):
        run([Sum("two")], Schedule(steps=2), tmp_path, resume=True)
    with pytest.raises(InputError, match=r"state.safetensors: one: total has shape \(\), expected \(3,\)"):
        run([Sum("one", torch.zeros(3))], Schedule(steps=2), tmp_path, resume=True)
    with pytest.raises(InputError, match="no such file"):
        run([Sum("one")], Schedule(steps=2), tmp_path / "nowhere", resume=True)
