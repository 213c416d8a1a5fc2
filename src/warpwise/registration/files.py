"""A registration from files to files."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from warpwise.events import OnEvent, ignore, note
from warpwise.image import Image
from warpwise.io import bids
from warpwise.io.run_folder import appearing, claim_folder, locked, room_on_disk
from warpwise.io.scan import Scan, Scans, read_both
from warpwise.io.transforms.chain import read_chain
from warpwise.methods import Method
from warpwise.ops import runtime
from warpwise.registration.memory import affordable, predicted_memory_mb
from warpwise.registration.record import NAME, Record
from warpwise.registration.register import register_scans
from warpwise.registration.result import FIGURES, PLAIN, REPORT, Result

THIN = 16  # voxels along an axis that is too short to be halved
# What the results of a volume take on disk at the least, bytes a voxel: the rest compresses well or badly.
BYTES_A_VOXEL = 6

Extra = Callable[[Path, Mapping[str, str], Result, Scans, Record], None]
"""(scratch folder, names of files, …): writes more beside the results: a report, figures."""


@dataclass(frozen=True, kw_only=True)
class Output:
    """Where results go.

    Attributes:
        folder: with `bids`, of BIDS derivatives; files then have BIDS names.
        overwrite: whether results that exist are replaced.
        extra: what else is written when the results are safe, as files and folders of the names `extra_names`.
    """

    folder: Path
    bids: bool = False
    overwrite: bool = False
    extra: Extra | None = None
    extra_names: tuple[str, ...] = ()

    def place(self, fixed: Scan, moving: Scan) -> "Place":
        """The folder and file names for a pair.

        Raises:
            InputError: BIDS names are wanted and the images have none.
        """
        plain = {**PLAIN, REPORT: REPORT, FIGURES: FIGURES}
        if not self.bids:
            return Place(self.folder, plain)
        fixed_path, moving_path = (scan.path or Path(scan.title) for scan in (fixed, moving))
        return Place(self.folder / bids.folder_of(moving_path), bids.names(fixed_path, moving_path))


@dataclass(frozen=True)
class Place:
    """A folder, and what each file is called there."""

    folder: Path
    names: Mapping[str, str]


def register_files(
    fixed: Scan, moving: Scan, output: Output, *, method: Method, initial: Sequence[str] = (), on_step: OnEvent = ignore
) -> Result:
    """Read both scans, register them, write the results; returns them too.

    Args:
        fixed, moving: with paths.
        output: where results go; method: how to register.
        initial: files of a chain of transforms to begin with.
        on_step: told of every iteration, and of what will happen, as notes.

    Raises:
        InputError: something given cannot be used, or results exist; nothing is written then.
    """
    began = time.perf_counter()
    registrar = method.build()
    place = output.place(fixed, moving)
    wanted = [*(place.names[name] for name in PLAIN), *(place.names.get(name, name) for name in output.extra_names)]
    claim_folder(place.folder, wanted, overwrite=output.overwrite)
    scans = read_both(fixed, moving)
    chain = read_chain(initial) if initial else None
    read_s = time.perf_counter() - began
    affordable(scans, method)
    room_on_disk(place.folder, BYTES_A_VOXEL * float(np.prod(scans[0].image.grid.shape)))
    for words in announcements(scans, method):
        on_step(note(words))
    with locked(place.folder):
        claim_folder(place.folder, wanted, overwrite=output.overwrite)  # another may have been here since
        result = register_scans(scans, method, registrar, initial=chain, on_step=on_step)
        since = time.perf_counter()
        last = place.names[NAME]
        with appearing(place.folder, last=last, without=[*place.names.values()]) as scratch:
            written = result.write(scratch, place.names)
            written_s = time.perf_counter() - since
            timings = {"read files": round(read_s, 3), **result.timings_s, "write files": round(written_s, 3)}
            timings["total"] = round(time.perf_counter() - began, 3)
            record = result.record(written, timings)
            record.write(scratch / last)
        if output.extra is not None:
            since = time.perf_counter()
            with appearing(place.folder, last=last) as scratch:
                output.extra(scratch, place.names, result, scans, record)
                spent = {**record.timings_s, "report": round(time.perf_counter() - since, 3)}
                record.replace(timings_s=spent).write(scratch / last)
        if output.bids and not (output.folder / "dataset_description.json").exists():
            with appearing(output.folder) as scratch:
                (scratch / "dataset_description.json").write_text(bids.description(), encoding="utf-8")
    total_s, peak_mb = record.timings_s["total"], record.memory_mb["peak"]
    memory = f", {peak_mb:.0f} MB of memory at most" if peak_mb else ""
    on_step(note(f"Results in {place.folder} after {total_s:.1f} s{memory}."))
    return result


def announcements(scans: Scans, method: Method) -> list[str]:
    """What should be said before a registration begins."""
    names = [scan.source.path.name if scan.source and scan.source.path else scan.image.name for scan in scans]
    sizes = [size(scan.image) for scan in scans]
    need = predicted_memory_mb(scans, method)
    out = [f"{names[0]} {sizes[0]} ← {names[1]} {sizes[1]}; about {need:.0f} MB of memory."]
    for name, scan in zip(names, scans, strict=True):
        thinnest = min(scan.image.grid.shape)
        if thinnest < THIN:
            out.append(f"{name}: {thinnest} voxels along an axis; coarse scales keep all of them.")
    if runtime.cache_note():
        out.append(runtime.cache_note())
    if not runtime.compiled():
        out.append("Compiling kernels: the first run on this machine takes up to 40 s longer.")
    return out


def size(image: Image) -> str:
    """Shape and spacing, for people."""
    spacing = "×".join(f"{s:.3g}" for s in image.grid.spacing_mm)
    return f"({'×'.join(map(str, image.grid.shape))}, {spacing} mm)"
