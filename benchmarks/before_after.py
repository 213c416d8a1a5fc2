"""Two checkouts on one pair, in turns: CPU seconds, wall seconds and peak memory of whole `warpwise register` processes.

    python benchmarks/before_after.py OLD_CHECKOUT FIXED MOVING --runs 7

Both run with this environment's packages; the first run of each, which may compile kernels, is not counted.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import machine

HERE = Path(__file__).parent
PROGRAM = "from warpwise.cli import main; main()"


def once(checkout: Path, arguments: list[str]) -> dict[str, float]:
    """One process: CPU seconds with those of its children's threads, wall seconds, megabytes."""
    with tempfile.TemporaryDirectory() as folder:
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        command = [sys.executable, "-c", PROGRAM, "register", *arguments, "-o", f"{folder}/out", "--quiet"]
        environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
        subprocess.run(command, check=True, env=environment, capture_output=True)
        wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        told = json.loads(Path(folder, "out", "result.json").read_text())
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu_s": cpu, "wall_s": wall, "memory_mb": told["memory_mb"]["peak"]}


def commit(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("old", type=Path)
    parser.add_argument("images", nargs=2)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "before_after.json")
    options = parser.parse_args()
    checkouts = {"before": options.old.resolve(), "after": HERE.parent}
    for checkout in checkouts.values():
        once(checkout, options.images)
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in checkouts}
    loads: list[float] = []
    for _ in range(options.runs):
        for name, checkout in checkouts.items():
            loads.append(os.getloadavg()[0])
            rows[name].append(once(checkout, options.images))
        print({name: {k: round(v, 2) for k, v in mine[-1].items()} for name, mine in rows.items()}, flush=True)
    medians = {name: {k: statistics.median(row[k] for row in mine) for k in mine[0]} for name, mine in rows.items()}
    result = {
        **machine(),
        "images": [Path(image).name for image in options.images],
        "runs": options.runs,
        "load": [round(min(loads), 2), round(max(loads), 2)],
        "commits": {name: commit(checkout) for name, checkout in checkouts.items()},
        "medians": {name: {k: round(v, 3) for k, v in row.items()} for name, row in medians.items()},
        "ratio": {k: round(medians["after"][k] / medians["before"][k], 4) for k in medians["before"]},
    }
    result["command"] = f"python benchmarks/before_after.py OLD {' '.join(result['images'])} --runs {options.runs}"
    print(json.dumps(result["ratio"]))
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
