"""What `register` and `demo` share: read, say what will happen, register, write."""

import json
import platform
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from warpwise import __version__
from warpwise.cli.progress import Progress
from warpwise.errors import InputError
from warpwise.image import Image, Kind
from warpwise.io import bids
from warpwise.io.images import Geometry, Reading, read_geometry, read_image, write_image
from warpwise.io.memory import peak_memory_mb
from warpwise.io.nifti import write_displacement
from warpwise.io.points import read_points
from warpwise.io.run_folder import appearing, claim_folder, locked, room_on_disk
from warpwise.io.transforms import write_transform
from warpwise.io.transforms.chain import read_chain
from warpwise.ops import runtime
from warpwise.registration.prepare import affordable, predicted_memory_mb
from warpwise.registration.register import register
from warpwise.registration.result import MAPS, Result
from warpwise.report import available

FILES = ("warped.nii.gz", "transform.h5", "inverse.h5", "displacement.nii.gz", "result.json")
REPORT = "report.html"
THIN = 16  # voxels along an axis that is too short to be halved
# What the results of a volume take on disk at the least, bytes a voxel: the rest compresses well or badly.
BYTES_A_VOXEL = 6

Two = tuple[Path | None, Path | None]
NEITHER: Two = (None, None)


@dataclass(frozen=True)
class Options:
    """The options of `warpwise register`; see its help. Pairs are (fixed, moving)."""

    preset: str = "balanced"
    transform: str = "greedy"
    similarity: str = "auto"
    initial: tuple[str, ...] = ()
    masks: Two = NEITHER
    exclude: Two = NEITHER
    labels: Two = NEITHER
    landmarks: Two = NEITHER
    weights: Mapping[str, float] = field(default_factory=dict[str, float])
    points_space: str | None = None
    percentiles: tuple[float, float] = (0.5, 99.5)
    bias_field: bool = False
    reading: Reading = field(default_factory=Reading)
    model: str | None = None
    refine: bool = False
    report: bool = False
    figures: bool = False
    bids: bool = False
    threads: int | None = None
    device: str = "auto"
    fit_memory: bool = False
    seed: int = 0
    overwrite: bool = False
    quiet: bool = False


@dataclass(frozen=True)
class Place:
    """Where results go: a folder, and what each file is called there."""

    folder: Path
    names: Mapping[str, str]

    @classmethod
    def of(cls, fixed: Path, moving: Path, folder: Path, options: Options) -> "Place":
        """By plain names, or as BIDS has it.

        Raises:
            InputError: BIDS names are wanted and the images have none.
        """
        plain = {name: name for name in (*FILES, REPORT)}
        if not options.bids:
            return cls(folder, plain)
        return cls(folder / bids.folder_of(moving), bids.names(fixed, moving))

    def wanted(self, options: Options) -> list[str]:
        """Names of what will be written."""
        made = [*FILES, *([REPORT] if options.report else [])]
        return [self.names[name] for name in made] + (["figures"] if options.figures else [])


def register_files(fixed: Path, moving: Path, folder: Path, options: Options) -> Result:
    """Read both images, register them, write the results; returns them too.

    Raises:
        InputError: something given cannot be used, or results exist; nothing is written then.
    """
    began = time.perf_counter()
    if options.device == "cuda":
        raise InputError("There are no CUDA kernels in this version.", hint="Use --device cpu or auto.")
    if options.report or options.figures:
        available()
    place = Place.of(fixed, moving, folder, options)
    claim_folder(place.folder, place.wanted(options), overwrite=options.overwrite)
    if options.threads:
        runtime.set_threads(options.threads)
        if options.model:
            import torch

            torch.set_num_threads(options.threads)
    say = Progress(quiet=options.quiet)
    given = read_inputs(fixed, moving, options)
    images = given["images"]
    read_s = time.perf_counter() - began
    need = predicted_memory_mb(images[0].grid, images[1].grid, len(images[0].data))
    affordable(images[0].grid, images[1].grid, len(images[0].data), fit=options.fit_memory)
    room_on_disk(place.folder, BYTES_A_VOXEL * float(np.prod(images[0].grid.shape)))
    say.line(f"{fixed.name} {size(images[0])} ← {moving.name} {size(images[1])}; about {need:.0f} MB of memory.")
    for path, image in zip((fixed, moving), images, strict=True):
        if min(image.grid.shape) < THIN:
            say.line(f"{path.name}: {min(image.grid.shape)} voxels along an axis; coarse levels keep all of them.")
    if runtime.cache_note():
        say.line(runtime.cache_note())
    if not runtime.compiled():
        say.line("Compiling kernels: the first run on this machine takes up to 40 s longer.")
    with locked(place.folder):
        claim_folder(place.folder, place.wanted(options), overwrite=options.overwrite)  # another may have been here since
        with say:
            result = register(
                *images,
                preset=options.preset,
                transform=options.transform,
                similarity=options.similarity,
                masks=given["masks"],
                exclude=given["exclude"],
                labels=given["labels"],
                landmarks=given["landmarks"],
                weights=options.weights,
                initial=given["initial"],
                percentiles=options.percentiles,
                bias_field=options.bias_field,
                fit_memory=options.fit_memory,
                model=options.model,
                refine=options.refine,
                on_step=say.step,
            )
        since = time.perf_counter()
        with appearing(place.folder, last=place.names["result.json"]) as scratch:
            planar = read_geometry(fixed, options.reading) if images[0].grid.dim == 2 else None
            write_outputs(scratch, result, images[0], planar, place.names)
            written_s = time.perf_counter() - since
            summary = describe(result, fixed, moving, options)
            summary["files"] = {name.split(".")[0]: place.names[name] for name in FILES}
            timings = {"read files": round(read_s, 3), **summary["timings_s"], "write files": round(written_s, 3)}
            summary["timings_s"] = {**timings, "total": round(time.perf_counter() - began, 3)}
            write_summary(scratch / place.names["result.json"], summary)
        if options.report or options.figures:
            add_report(place, result, images, summary, options)
        if options.bids and not (folder / "dataset_description.json").exists():
            with appearing(folder) as scratch:
                (scratch / "dataset_description.json").write_text(bids.description(), encoding="utf-8")
    report(say, result, summary, place.folder)
    return result


def read_inputs(fixed: Path, moving: Path, options: Options) -> dict[str, Any]:
    """Everything that is to be read: images side by side, then what belongs to them.

    Raises:
        InputError: something cannot be used.
    """
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(read_image, path, reading=options.reading) for path in (fixed, moving)]
        images = jobs[0].result(), jobs[1].result()

    def two(paths: Two, kind: Kind) -> tuple[Image | None, Image | None]:
        first, second = (None if path is None else read_image(path, kind=kind) for path in paths)
        return first, second

    for one, other in (options.labels, options.landmarks):
        if (one is None) != (other is None):
            raise InputError(f"{one or other}: the other image's file is missing.", hint="Give both, or neither.")
    landmarks = [
        None if path is None else read_points(path, space=options.points_space, grid=image.grid)
        for path, image in zip(options.landmarks, images, strict=True)
    ]
    return {
        "images": images,
        "masks": two(options.masks, "mask"),
        "exclude": two(options.exclude, "mask"),
        "labels": two(options.labels, "labels"),
        "landmarks": None if landmarks[0] is None else (landmarks[0], landmarks[1]),
        "initial": read_chain(options.initial) if options.initial else None,
    }


def write_summary(path: Path, summary: dict[str, Any]) -> None:
    """Write result.json."""
    text = json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def add_report(
    place: Place, result: Result, images: tuple[Image, Image], summary: dict[str, Any], options: Options
) -> None:
    """Write the report and its figures beside the results, which are safe by now, and how long that took."""
    from warpwise.report.material import Material
    from warpwise.report.page import page, write_figures

    since = time.perf_counter()
    seen = Material.of_result(result, images, summary)
    with appearing(place.folder, last=place.names["result.json"]) as scratch:
        if options.figures:
            write_figures(scratch / "figures", seen)
        if options.report:
            (scratch / place.names[REPORT]).write_text(page(seen), encoding="utf-8")
        summary["timings_s"]["report"] = round(time.perf_counter() - since, 3)
        write_summary(scratch / place.names["result.json"], summary)


def size(image: Image) -> str:
    """Shape and spacing, for people."""
    spacing = "×".join(f"{s:.3g}" for s in image.grid.spacing_mm)
    return f"({'×'.join(map(str, image.grid.shape))}, {spacing} mm)"


def write_outputs(folder: Path, result: Result, fixed: Image, like: Geometry | None, names: Mapping[str, str]) -> None:
    """The image and transform files, side by side."""
    with ThreadPoolExecutor(1) as pool:
        # ITK holds several float64 copies of a field: one file after the other keeps the peak low.
        chain = pool.submit(write_transform, folder / names["transform.h5"], result.transform)
        back = pool.submit(write_transform, folder / names["inverse.h5"], result.inverse_on_grid)
        write_displacement(folder / names["displacement.nii.gz"], result.displacement_mm, fixed.grid)
        write_image(folder / names["warped.nii.gz"], result.warped, like=like)
        for name in MAPS:
            if (map_ := getattr(result, name)) is not None:
                write_image(folder / f"{name}.nii.gz", map_, like=like)
        chain.result()
        back.result()


def describe(result: Result, fixed: Path, moving: Path, options: Options) -> dict[str, Any]:
    """Plain data for result.json."""
    packages = ("numba", "numpy", "nibabel", "SimpleITK", *(["torch"] if options.model else []))
    return {
        "warpwise": __version__,
        "fixed": str(fixed.absolute()),
        "moving": str(moving.absolute()),
        "settings": {**result.settings, "preset": options.preset, "device": "cpu", "seed": options.seed},
        "similarity": {k: round(v, 6) for k, v in result.similarity.items()},
        "stop_reasons": {k: list(v) for k, v in result.stops.items()},
        "energies": [
            {"stage": s.stage, "level": s.level, "iteration": s.iteration, "energy": round(s.energy, 7)}
            for s in result.history
        ],
        "affine": [[round(float(v), 9) for v in row] for row in result.affine_only],
        "certificate": result.certificate.to_dict(),
        "scores": result.scores.to_dict() if result.scores else {},
        "warnings": list(result.warnings),
        "timings_s": dict(result.timings_s),
        "memory_mb": {"predicted": result.predicted_memory_mb, "peak": peak_memory_mb()},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }


def report(say: Progress, result: Result, summary: dict[str, Any], folder: Path) -> None:
    """The last lines on the screen."""
    certificate = result.certificate
    say.line(
        f"Folds: {certificate.percent_folded:g} % of voxels, {certificate.percent_ndv:g} % of the volume. "
        f"Forward and inverse agree to {certificate.forward_inverse_mean:.1g} voxel (mean), "
        f"{certificate.forward_inverse_max:.1g} (largest)."
    )
    peak = summary["memory_mb"]["peak"]
    memory = "" if peak is None else f", {peak:.0f} MB of memory at most"
    say.line(f"Results in {folder} after {summary['timings_s']['total']:.1f} s{memory}.")
    for warning in result.warnings:
        say.warning(warning)
