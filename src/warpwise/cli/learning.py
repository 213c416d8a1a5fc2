"""What people see of a training, and the settings it runs with."""

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from warpwise.errors import InputError
from warpwise.events import Event

EVERY = 50  # steps a line, where there is no terminal


def available() -> None:
    """Refuse to train where the extra for it is not installed.

    Raises:
        InputError: a package is missing.
    """
    missing = [name for name in ("torch", "lightning_fabric") if find_spec(name) is None]
    if missing:
        raise InputError(f"Training needs {', '.join(missing)}.", hint="Install them: pip install 'warpwise[learn]'")


def settings_of(
    config: Path | None,
    output: Path,
    changes: Mapping[str, Any],
    *,
    synthetic: bool,
    resume: bool,
    allow_outside: bool,
) -> Any:
    """Settings from a file, from a run that is resumed, or for synthetic training; with what was said beside them.

    Raises:
        InputError: there are none, or they do not fit.
    """
    from warpwise.data.settings import SyntheticSettings
    from warpwise.levels.settings import TrainingSettings, read_settings
    from warpwise.levels.training import CONFIG
    from warpwise.objective import TermSettings

    given = {k: v for k, v in changes.items() if v is not None}
    if resume:
        if config is not None or synthetic or set(given) - {"steps"}:
            raise InputError("A run is resumed with its own settings.", hint=f"They stand in {output / CONFIG}.")
        settings = read_settings(output / CONFIG)
    elif config is not None:
        settings = read_settings(config)
    elif synthetic:
        settings = TrainingSettings(
            synthetic=SyntheticSettings(),
            objective={
                "endpoint": TermSettings(),
                "dice": TermSettings(weight=0.5),
                "diffusion": TermSettings(weight=0.05),
            },
            licence="Apache-2.0",
        )
    elif "dataset" in given:
        settings = TrainingSettings()
    else:
        raise InputError(
            "There is nothing to train on.", hint="Pass settings (see --init), --dataset FOLDER, or --synthetic."
        )
    if synthetic and settings.synthetic is None:
        settings = settings.replace(synthetic=SyntheticSettings())
    data: dict[str, Any] = {"allow_outside": True} if allow_outside else {}
    for key, name in (("dataset", "dataset"), ("spacing", "spacing_mm")):
        if key in given:
            data[name] = given.pop(key)
    if data:
        settings = settings.replace(data=settings.data.replace(**data))
    return settings.replace(**given) if given else settings


class TrainingProgress:
    """Told of every event of a run; a bar with the time that is left on a terminal, now and then a line elsewhere."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self._bar: Any = None
        self._task: Any = None

    def __getstate__(self) -> dict[str, Any]:
        # Another process draws a bar of its own.
        return {"quiet": self.quiet, "_bar": None, "_task": None}

    def __enter__(self) -> "TrainingProgress":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if self.quiet:
            return
        if event.stage == "note":
            self._line(event.text)
        elif event.stage == "train":
            self._step(event)
        else:
            figures = ", ".join(f"{k} {v:.4f}" for k, v in event.values.items())
            self._line(f"step {event.step}: {figures}{' (best)' if event.best else ''}")

    def _step(self, event: Event) -> None:
        step, steps, loss = event.step, event.steps, event.values.get("loss", float("nan"))
        if not sys.stderr.isatty():
            if step % EVERY == 0 or step == steps:
                self._line(f"step {step} of {steps}: loss {loss:.4f}, {event.elapsed_s:.0f} s")
            return
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("step {task.completed} of {task.total}"),
                BarColumn(),
                TextColumn("loss {task.fields[loss]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task("train", total=steps, completed=step - 1, loss="")
            self._bar.start()
        self._bar.update(self._task, completed=step, loss=f"{loss:.4f}")

    def _line(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(text)
        else:
            print(text, file=sys.stderr, flush=True)
