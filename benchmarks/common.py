"""What every result file says about where it comes from."""

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from warpwise.methods import Method


def solver(preset: str = "balanced", *, transform: str = "greedy", similarity: str = "auto") -> Method:
    """A preset with another motion and similarity."""
    changes = {"objective.similarity": {"term": similarity}}
    if transform in ("rigid", "affine"):
        return Method.named(transform).changed(changes)
    return Method.named(preset).changed({"registrar.kind": transform, **changes})


def shortened(word: str) -> str:
    """A word of a command, without where things lie on this machine."""
    path = Path(word)
    return path.name if path.is_absolute() else word


def machine() -> dict:
    """Commit, command, machine and versions of a run."""

    def of(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "absent"

    cpu = platform.processor()
    try:
        with open("/proc/cpuinfo", encoding="ascii") as file:  # noqa: PTH123
            cpu = next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    dirty = subprocess.run(
        ["git", "status", "--porcelain", "src", "benchmarks/*.py", "benchmarks/learned"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    return {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "commit": commit.strip() + ("+" if dirty.strip() else ""),
        "command": "python " + " ".join(shortened(word) for word in sys.argv),
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": {n: of(n) for n in ("warpwise", "numpy", "numba", "torch", "antspyx", "itk-elastix", "picsl_greedy")},
    }


def markdown_table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a table."""
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]
