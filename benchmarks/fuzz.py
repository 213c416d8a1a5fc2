"""Hostile files: valid ones of every format, mutated, given to the readers. None may crash, hang or take memory.

    python benchmarks/fuzz.py [--cases 24000] [--seed 0]

Each case runs in a worker process with a limit on its address space; a watchdog notes cases that take over five seconds.
Results: benchmarks/results/fuzz.json.
"""

import argparse
import gzip
import json
import multiprocessing as mp
import os
import resource
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from common import machine

from warpwise.errors import InputError
from warpwise.grid import Grid
from warpwise.io.images import Reading, read_image
from warpwise.io.points import Points, read_points, write_points
from warpwise.io.transforms import Space, Spaces, read_transform, write_transform
from warpwise.transforms.affine import Affine
from warpwise.transforms.base import Composite
from warpwise.transforms.displacement import DisplacementField

HANG_S = 5.0
MEMORY = 4 << 30
SPACE = Space((9, 10, 11), np.diag([1.0, 1.1, 1.2, 1.0]))
SPACES = Spaces(SPACE, SPACE)
MATRIX = np.array([[1, 0.1, 0, 2], [-0.1, 1, 0, 3], [0, 0, 1.1, 4], [0, 0, 0, 1.0]])


def seeds(folder: Path) -> dict[str, Path]:
    """One valid file of every format."""
    rng = np.random.default_rng(0)
    data = (rng.random((9, 10, 11)) * 200).astype(np.int16)
    out: dict[str, Path] = {}

    def put(name: str) -> Path:
        out[name] = folder / name
        return out[name]

    nib.Nifti1Image(data, SPACE.affine).to_filename(put("image.nii"))
    nib.Nifti1Image(data, SPACE.affine).to_filename(put("image.nii.gz"))
    nib.Nifti2Image(data, SPACE.affine).to_filename(put("two.nii"))
    nib.Nifti1Image(np.stack([data] * 3, -1), SPACE.affine).to_filename(put("series.nii.gz"))
    image = sitk.GetImageFromArray(data)
    for name in ("image.mha", "image.nrrd"):
        sitk.WriteImage(image, str(put(name)), useCompression=False)
    sitk.WriteImage(image, str(put("packed.nrrd")), useCompression=True)
    plane = sitk.GetImageFromArray(data[0].astype(np.uint8))
    for name in ("image.png", "image.tif", "image.jpg", "image.bmp", "image.dcm"):
        sitk.WriteImage(plane, str(put(name)))
    affine = Affine(MATRIX)
    vectors = rng.normal(size=(3, 9, 10, 11)).astype(np.float32) * 0.1
    field = DisplacementField(vectors, Grid(SPACE.shape, SPACE.affine))
    chain = Composite((field, affine))
    write_transform(put("chain.h5"), chain)
    for name in ("affine.tfm", "affine.txt", "affine.mat", "affine.h5"):
        write_transform(put(name), affine)
    write_transform(put("affine.lta"), affine, spaces=SPACES)
    write_transform(put("flirt.mat"), affine, kind="flirt", spaces=SPACES)
    write_transform(put("warp.nii.gz"), field, kind="displacement")
    write_transform(put("warp.nii"), field, kind="displacement")
    write_transform(put("fnirt.nii"), chain, kind="fnirt", spaces=SPACES)
    write_transform(put("chain.x5"), chain)
    points = Points(rng.normal(size=(5, 3)), tuple("abcde"))
    for name in ("points.csv", "points.fcsv", "points.mrk.json", "points.tck", "points.trk"):
        write_points(put(name), points)
    return out


HEADER = {".nii": 352, ".gz": 352, ".mha": 400, ".nrrd": 300, ".h5": 4096, ".x5": 8192}
NASTY = [
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"-1",
    b"0",
    b"nan",
    b"inf",
    b"1e999",
    b"99999999999",
    b"\xff\xff\xff\x7f",
    b"\0\0\xc0\x7f",
]


def mutated(original: bytes, name: str, rng: np.random.Generator) -> bytes:
    """The file with some of it changed, mostly in its head; gzipped files are also changed under the gzip."""
    packed = name.endswith(".gz") and rng.random() < 0.8
    data = bytearray(gzip.decompress(original) if packed else original)
    head = min(HEADER.get(Path(name).suffix, 600), len(data))
    for _ in range(int(rng.integers(1, 7))):
        at = int(rng.integers(0, head if rng.random() < 0.85 else len(data)))
        what = rng.random()
        if what < 0.35:
            data[at] ^= 1 << int(rng.integers(0, 8))
        elif what < 0.6:
            data[at : at + 4] = rng.bytes(4)
        elif what < 0.85:
            word = NASTY[int(rng.integers(len(NASTY)))]
            data[at : at + len(word)] = word
        elif what < 0.9:
            del data[at:]
            break
        elif what < 0.95:
            del data[at : at + int(rng.integers(1, 9))]
        else:
            data[at:at] = rng.bytes(int(rng.integers(1, 9)))
        head = max(min(head, len(data)), 1)
        if not data:
            break
    return gzip.compress(bytes(data), 1) if packed else bytes(data)


def parse(path: Path, name: str) -> None:
    if name.startswith("points"):
        read_points(path, space="ras")
    elif name.startswith(("image", "two", "series", "packed")):
        read_image(path, reading=Reading(volume=0, grey=True))
    else:
        kind = {"flirt.mat": "flirt", "fnirt.nii": "fnirt"}.get(name)
        read_transform(path, kind=kind, spaces=SPACES)


def worker(folder: str, name: str, original: bytes, first: int, count: int, state: Any) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # ITK and libpng talk to stderr
    place = Path(folder) / f"{os.getpid()}"
    place.mkdir(exist_ok=True)
    path = place / name
    log = (Path(folder) / "log").open("a", encoding="utf-8", buffering=1)

    def note(number: int, kind: str, text: str, began: float) -> None:
        log.write(json.dumps([number, kind, text, time.perf_counter() - began]) + "\n")

    for number in range(first, first + count):
        state[0], state[1] = number, time.monotonic()
        path.write_bytes(mutated(original, name, np.random.default_rng(number)))
        began = time.perf_counter()
        try:
            parse(path, name)
            note(number, "read", "", began)
        except InputError:
            note(number, "refused", "", began)
        except BaseException as error:  # noqa: BLE001 - that is what is looked for
            note(number, "escaped", f"{name}: {type(error).__name__}: {str(error)[:160]}", began)
        state[2] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def run_batch(folder: str, name: str, original: bytes, first: int, count: int) -> tuple[list, float]:
    """All cases of a batch; a crash or a hang costs only its own case."""
    results, peak, at = [], 0.0, first
    context = mp.get_context("fork")
    log = Path(folder) / "log"
    while at < first + count:
        log.write_text("", encoding="utf-8")
        state = context.Array("d", [at, time.monotonic(), 0.0])
        process = context.Process(target=worker, args=(folder, name, original, at, first + count - at, state))
        process.start()
        hung = False
        while process.is_alive():
            process.join(0.25)
            if process.is_alive() and time.monotonic() - state[1] > HANG_S:
                hung = True
                process.kill()
                process.join()
        results += [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        peak = max(peak, state[2])
        if not hung and process.exitcode == 0:
            break
        case = int(state[0])
        results.append([case, "hang" if hung else "crash", f"{name}: case {case}, exit {process.exitcode}", HANG_S])
        at = case + 1
    return results, peak


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=24_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--keep", default="", help="case to write out and stop: NAME:NUMBER")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    files = {k: v.read_bytes() for k, v in seeds(folder).items() if k.startswith(options.only)}
    if options.keep:
        name, number = options.keep.split(":")
        Path(name).write_bytes(mutated(files[name], name, np.random.default_rng(int(number))))
        return
    each = -(-options.cases // len(files))
    began = time.perf_counter()
    rows, peak, trouble = {}, 0.0, []
    baseline = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    for n, (name, original) in enumerate(files.items()):
        count = each if name != "chain.x5" else min(each, 200)  # each read in a process of its own
        results, most = run_batch(str(folder), name, original, options.seed + n * each, count)
        kinds = {k: sum(r[1] == k for r in results) for k in ("read", "refused", "escaped", "crash", "hang")}
        rows[name] = {**kinds, "slowest_s": round(max(r[3] for r in results), 3), "peak_mb": round(most)}
        trouble += [r[2] for r in results if r[2]]
        peak = max(peak, most)
        print(name, rows[name], *sorted({t for t in trouble if t.startswith(name)})[:6], sep="\n   ", flush=True)
    shutil.rmtree(folder)
    totals = {k: sum(row[k] for row in rows.values()) for k in ("read", "refused", "escaped", "crash", "hang")}
    result = {
        "cases": sum(totals.values()), **totals, "peak_mb": round(peak), "baseline_mb": round(baseline),
        "minutes": round((time.perf_counter() - began) / 60, 1), "formats": rows, "trouble": trouble[:50],
    }  # fmt: skip
    print(json.dumps({k: v for k, v in result.items() if k not in ("formats", "trouble")}))
    if not options.only:
        text = json.dumps({"seed": options.seed, **machine(), **result}, indent=1)
        (Path(__file__).parent / "results" / "fuzz.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
