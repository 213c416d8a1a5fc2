"""What people see of a run: a bar on a terminal, a line a level elsewhere."""

import sys
from types import TracebackType
from typing import Any

from warpwise.registrars.base import Step


class Progress:
    """Told of every step; everything goes to stderr, so that results can be piped."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self._bar: Any = None
        self._task: Any = None
        self._last: Step | None = None

    def __enter__(self) -> "Progress":
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[energy]}"),
                TimeElapsedColumn(),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task("start", total=None, energy="")
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._last is not None and kind is None:
            self._level_done(self._last)
        self._bar = None

    def step(self, step: Step) -> None:
        """One iteration of a solver."""
        last, self._last = self._last, step
        if self._bar is not None:
            self._bar.update(
                self._task,
                description=f"{step.stage} level {step.level}, iteration {step.iteration}",
                total=step.iterations,
                completed=step.iteration,
                energy=f"{step.energy:.5f}",
            )
        elif last is not None and (last.stage, last.level) != (step.stage, step.level):
            self._level_done(last)

    def _level_done(self, step: Step) -> None:
        self.line(f"{step.stage} level {step.level}: {step.iteration} iterations, energy {step.energy:.5f}")

    def line(self, text: str) -> None:
        """Say something."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def warning(self, text: str) -> None:
        """Say something that even the quiet must hear."""
        print(f"Warning: {text}", file=sys.stderr, flush=True)
