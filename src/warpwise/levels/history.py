"""history.jsonl: what a run measured, a line at a time."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from warpwise.io.run_folder import appearing

HISTORY = "history.jsonl"


def history(folder: Path) -> list[dict[str, Any]]:
    """All lines of a run's history; a line that a kill cut short is left out."""
    path = folder / HISTORY
    if not path.exists():
        return []
    rows: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def record(folder: Path, row: Mapping[str, Any]) -> None:
    """Add a line."""
    rounded = {k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()}
    with (folder / HISTORY).open("a", encoding="utf-8") as file:
        file.write(json.dumps(rounded) + "\n")


def keep_history(folder: Path, step: int) -> None:
    """Forget what was written after the checkpoint that a run goes on from."""
    rows = [row for row in history(folder) if row.get("step", 0) <= step]
    if (folder / HISTORY).exists():
        with appearing(folder) as scratch:
            (scratch / HISTORY).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
