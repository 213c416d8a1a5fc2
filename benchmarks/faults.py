"""Kills and soaking: what is on disk after SIGKILL at random moments, and memory after many registrations.

    python benchmarks/faults.py [--kills 50] [--soak 200] [--seed 0]

Results: benchmarks/results/faults.json. The tests run a few kills of the same kind (tests/cli/test_faults.py).
"""

import argparse
import hashlib
import json
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import machine, solver

import warpwise as ww
from warpwise.io.images import read_image, write_image
from warpwise.io.transforms import read_transform
from warpwise.synthetic.phantoms import brain_pair

PROGRAM = Path(sys.executable).parent / "warpwise"
RESULTS = ("displacement.nii.gz", "inverse.h5", "result.json", "transform.h5", "warped.nii.gz")


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def whole(path: Path) -> bool:
    """Whether a file can be read to its end as what it is."""
    if path.suffix == ".json":
        json.loads(path.read_text(encoding="utf-8"))
    elif path.suffix == ".h5" or path.name.startswith("displacement"):
        read_transform(path)
    else:
        read_image(path)
    return True


class KillTest:
    """Registers and applies in processes that are killed, and looks at what is left."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.folder = folder
        pair = brain_pair((96, 114, 90), seed=4)
        self.images = folder / "fixed.nii.gz", folder / "moving.nii.gz"
        for path, image in zip(self.images, (pair.fixed, pair.moving), strict=True):
            write_image(path, image)
        self.out = folder / "out"
        self.moved = folder / "apply" / "moved.nii.gz"
        self.moved.parent.mkdir()
        began = time.perf_counter()
        self.run(self.register())
        self.register_s = time.perf_counter() - began
        self.reference = {name: digest(self.out / name) for name in RESULTS if name != "result.json"}
        began = time.perf_counter()
        self.run(self.apply())
        self.apply_s = time.perf_counter() - began
        self.moved_reference = digest(self.moved)

    def register(self) -> list[str]:
        return [str(PROGRAM), "register", *map(str, self.images), "-o", str(self.out), "--overwrite", "--quiet"]

    def apply(self) -> list[str]:
        where = ["--like", str(self.images[0]), "-o", str(self.moved), "--overwrite"]
        return [str(PROGRAM), "apply", str(self.folder / "kept.h5"), str(self.images[1]), *where]

    def run(self, command: list[str]) -> None:
        if command[1] == "apply" and not (self.folder / "kept.h5").exists():
            (self.folder / "kept.h5").write_bytes((self.out / "transform.h5").read_bytes())
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def kill(self, verb: str, share: float, *, fresh: bool) -> dict:
        """Kill one run after a share of its usual time; what was found on disk afterwards."""
        folder = self.out if verb == "register" else self.moved.parent
        names = RESULTS if verb == "register" else (self.moved.name,)
        if fresh:
            for name in names:
                (folder / name).unlink(missing_ok=True)
        command, usual = (self.register(), self.register_s) if verb == "register" else (self.apply(), self.apply_s)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(share * usual)
        process.send_signal(signal.SIGKILL)
        process.wait()
        partial = [name for name in names if (folder / name).exists() and not self.complete(folder / name)]
        unknown = [p.name for p in folder.iterdir() if p.name not in names and not p.name.startswith(".warpwise")]
        killed = process.returncode == -signal.SIGKILL
        self.run(command)
        wrong = [
            n
            for n in names
            if n != "result.json" and digest(folder / n) != {**self.reference, self.moved.name: self.moved_reference}[n]
        ]
        left = [p.name for p in folder.iterdir() if p.name not in names]
        return {"verb": verb, "killed": killed, "partial": partial + unknown, "wrong_after_rerun": wrong, "left": left}

    def complete(self, path: Path) -> bool:
        try:
            return whole(path) and (
                path.name == "result.json" or digest(path) in {*self.reference.values(), self.moved_reference}
            )
        except Exception:  # noqa: BLE001 - whatever it is, it is not complete
            return False

    def many(self, count: int) -> list[dict]:
        """So many kills that came in time; a run that was done before does not count."""
        out: list[dict] = []
        n = 0
        while len(out) < count:
            verb = "register" if n % 2 == 0 else "apply"
            # Half of them near the end, where files are written.
            share = self.random.uniform(0, 1.0) if n % 4 < 2 else self.random.uniform(0.7, 1.0)
            found = self.kill(verb, share, fresh=self.random.random() < 0.5)
            out += [found] if found["killed"] or found["partial"] else []
            n += 1
        return out


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 1e6


def soak(count: int, *, warm_up: int = 20) -> dict:
    """Resident memory of one process after `warm_up` registrations and after all of them."""
    pairs = [brain_pair((40, 48, 38), seed=k) for k in range(4)]
    solvers = ("greedy", "svf", "affine", "symmetric")
    track = []
    for n in range(count):
        pair = pairs[n % 4]
        found = ww.register(pair.fixed, pair.moving, method=solver("fast", transform=solvers[(n // 4) % 4]))
        assert found.certificate.percent_ndv == 0
        track.append(resident_mb())
    growth = 100 * (max(track[-10:]) / max(track[warm_up - 10 : warm_up]) - 1)
    return {"registrations": count, "mb_after_warm_up": round(track[warm_up - 1], 1), "mb_at_end": round(track[-1], 1),
            "growth_percent": round(growth, 2)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--soak", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    soaked = soak(options.soak)
    print(soaked, flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        found = KillTest(Path(scratch), options.seed).many(options.kills)
    result = {
        "seed": options.seed, **machine(), "soak": soaked,
        "kills": {
            "asked": len(found), "killed_while_running": sum(f["killed"] for f in found),
            "during_register": sum(f["verb"] == "register" and f["killed"] for f in found),
            "partial_files_under_final_names": sum(len(f["partial"]) for f in found),
            "wrong_results_after_rerun": sum(len(f["wrong_after_rerun"]) for f in found),
            "left_behind_after_rerun": sum(len(f["left"]) for f in found),
        },
    }  # fmt: skip
    print(json.dumps(result["kills"], indent=1))
    (Path(__file__).parent / "results" / "faults.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
