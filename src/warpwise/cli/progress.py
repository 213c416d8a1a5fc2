"""What people see of a long computation: a bar on a terminal, now and then a line elsewhere."""

import sys
from types import TracebackType
from typing import Any

from warpwise.events import Event

SEARCHES = ("study", "random")
EVERY = 50  # steps a line, of a training without a terminal


class Progress:
    """Told of every event of a registration, a training, a search; everything goes to stderr, so results can be piped."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self._bar: Any = None
        self._task: Any = None
        self._last: Event | None = None

    def __getstate__(self) -> dict[str, Any]:
        # Another process draws a bar of its own.
        return {"quiet": self.quiet, "_bar": None, "_task": None, "_last": None}

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._last is not None and kind is None:
            self._scale_done(self._last)
        self._bar = self._last = None

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if self.quiet:
            return
        if event.stage == "note":
            self.line(event.text)
        elif event.stage == "validation":
            self.line(f"step {event.step}: {figures(event)}{' (best)' if event.best else ''}")
        elif event.stage in SEARCHES:
            self.line(f"{event.stage} {event.step} of {event.steps}: {event.text or figures(event)}")
        elif sys.stderr.isatty():
            self._draw(event)
        elif event.scale is None:
            if event.step % EVERY == 0 or event.step == event.steps:
                self.line(f"step {event.step} of {event.steps}: {figures(event)}, {event.elapsed_s:.0f} s")
        else:
            last, self._last = self._last, event
            if last is not None and (last.stage, last.scale) != (event.stage, event.scale):
                self._scale_done(last)

    def line(self, text: str) -> None:
        """Say something."""
        if self.quiet:
            return
        if self._last is not None:
            self._scale_done(self._last)
            self._last = None
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def warning(self, text: str) -> None:
        """Say something that even the quiet must hear."""
        print(f"Warning: {text}", file=sys.stderr, flush=True)

    def _scale_done(self, event: Event) -> None:
        print(f"{event.stage} scale {event.scale}: {event.step} iterations, {figures(event)}", file=sys.stderr, flush=True)

    def _draw(self, event: Event) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[figures]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task(event.stage, total=None, figures="")
            self._bar.start()
        where = "" if event.scale is None else f" scale {event.scale}"
        self._bar.update(
            self._task,
            description=f"{event.stage}{where}, {event.step} of {event.steps}",
            total=event.steps,
            completed=event.step,
            figures=figures(event),
        )


def figures(event: Event) -> str:
    """What was measured, for people: the loss alone where there is one."""
    shown = {"loss": event.values["loss"]} if event.stage == "train" and "loss" in event.values else event.values
    return ", ".join(f"{name} {value:.5f}" for name, value in shown.items())
