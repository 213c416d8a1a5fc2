"""What `register` and `demo` share: read, say what will happen, register, write."""

import json
import platform
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from warpwise import __version__
from warpwise.cli.progress import Progress
from warpwise.errors import InputError
from warpwise.image import Image
from warpwise.io.checks import free_memory
from warpwise.io.images import read_geometry, read_image, write_image
from warpwise.io.nifti import write_displacement
from warpwise.io.run_folder import appearing, claim_folder
from warpwise.io.transforms import read_transform, write_transform
from warpwise.ops.cpu import parallel
from warpwise.registrars.prepare import predicted_memory_mb
from warpwise.registrars.register import register
from warpwise.registrars.result import Result

FILES = ("warped.nii.gz", "transform.h5", "inverse.h5", "displacement.nii.gz", "result.json")


@dataclass(frozen=True)
class Options:
    """The options of `warpwise register`; see its help."""

    preset: str = "balanced"
    transform: str = "greedy"
    similarity: str = "auto"
    fixed_mask: Path | None = None
    moving_mask: Path | None = None
    initial: Path | None = None
    volume: int | None = None
    nan_to_zero: bool = False
    threads: int | None = None
    device: str = "auto"
    seed: int = 0
    overwrite: bool = False
    quiet: bool = False


def register_files(fixed: Path, moving: Path, folder: Path, options: Options) -> Result:
    """Read both images, register them, write the results; returns them too.

    Raises:
        InputError: something given cannot be used, or results exist; nothing is written then.
    """
    began = time.perf_counter()
    if options.device == "cuda":
        raise InputError("There are no CUDA kernels in this version.", hint="Use --device cpu or auto.")
    claim_folder(folder, FILES, overwrite=options.overwrite)
    if options.threads:
        parallel.set_threads(options.threads)
    say = Progress(quiet=options.quiet)
    images, masks = read_inputs(fixed, moving, options)
    initial = None if options.initial is None else read_transform(options.initial)
    read_s = time.perf_counter() - began
    need = predicted_memory_mb(images[0].grid, images[1].grid, len(images[0].data))
    if need * 1e6 > free_memory():
        raise InputError(
            f"About {need:.0f} MB are needed and {free_memory() / 1e6:.0f} MB are free.",
            hint="Resample the images to a coarser grid.",
        )
    say.line(f"{fixed.name} {size(images[0])} ← {moving.name} {size(images[1])}; about {need:.0f} MB of memory.")
    if not parallel.compiled():
        say.line("Compiling kernels: the first run on this machine takes up to 40 s longer.")
    with say:
        result = register(
            *images,
            preset=options.preset,
            transform=options.transform,
            similarity=options.similarity,
            masks=masks,
            initial=initial,
            on_step=say.step,
        )
    since = time.perf_counter()
    with appearing(folder) as scratch:
        write_outputs(scratch, result, images[0], fixed)
        written_s = time.perf_counter() - since
        summary = describe(result, fixed, moving, options)
        summary["timings_s"] = {"read files": round(read_s, 3), **summary["timings_s"], "write files": round(written_s, 3)}
        summary["timings_s"]["total"] = round(time.perf_counter() - began, 3)
        text = json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False)
        (scratch / "result.json").write_text(text + "\n", encoding="utf-8")
    report(say, result, summary, folder)
    return result


def read_inputs(
    fixed: Path, moving: Path, options: Options
) -> tuple[tuple[Image, Image], tuple[Image | None, Image | None]]:
    """Both images and their masks, read side by side."""
    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(read_image, path, volume=options.volume, nan_to_zero=options.nan_to_zero)
            for path in (fixed, moving)
        ]
        masks = [
            None if path is None else read_image(path, kind="mask") for path in (options.fixed_mask, options.moving_mask)
        ]
        return (jobs[0].result(), jobs[1].result()), (masks[0], masks[1])


def size(image: Image) -> str:
    """Shape and spacing, for people."""
    spacing = "×".join(f"{s:.3g}" for s in image.grid.spacing_mm)
    return f"({'×'.join(map(str, image.grid.shape))}, {spacing} mm)"


def write_outputs(folder: Path, result: Result, fixed: Image, like: Path | None) -> None:
    """The image and transform files, side by side."""
    planar = read_geometry(like) if like is not None and fixed.grid.dim == 2 else None
    with ThreadPoolExecutor(1) as pool:
        # ITK holds several float64 copies of a field: one file after the other keeps the peak low.
        chain = pool.submit(write_transform, folder / "transform.h5", result.transform)
        back = pool.submit(write_transform, folder / "inverse.h5", result.inverse_on_grid)
        write_displacement(folder / "displacement.nii.gz", result.displacement_mm, fixed.grid)
        write_image(folder / "warped.nii.gz", result.warped, like=planar)
        chain.result()
        back.result()


def peak_memory_mb() -> float:
    """The most memory this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3), 1)


def describe(result: Result, fixed: Path | str, moving: Path | str, options: Options) -> dict[str, Any]:
    """Plain data for result.json."""
    packages = ("numba", "numpy", "nibabel", "SimpleITK")
    return {
        "warpwise": __version__,
        "fixed": str(fixed),
        "moving": str(moving),
        "settings": {**result.settings, "preset": options.preset, "device": "cpu", "seed": options.seed},
        "similarity": {k: round(v, 6) for k, v in result.similarity.items()},
        "stop_reasons": {k: list(v) for k, v in result.stops.items()},
        "energies": [
            {"stage": s.stage, "level": s.level, "iteration": s.iteration, "energy": round(s.energy, 7)}
            for s in result.history
        ],
        "affine": [[round(float(v), 9) for v in row] for row in result.affine_only],
        "certificate": result.certificate.to_dict(),
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
    memory = summary["memory_mb"]["peak"]
    say.line(f"Results in {folder} after {summary['timings_s']['total']:.1f} s, {memory:.0f} MB of memory at most.")
    for warning in result.warnings:
        say.warning(warning)
