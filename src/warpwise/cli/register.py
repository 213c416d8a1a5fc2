"""warpwise register: align two images and write everything that follows from it."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Preset(StrEnum):
    """Settings by name."""

    fast = "fast"
    balanced = "balanced"
    accurate = "accurate"


class Kind(StrEnum):
    """Transforms that can be searched for."""

    rigid = "rigid"
    affine = "affine"
    greedy = "greedy"
    svf = "svf"
    symmetric = "symmetric"


class Measure(StrEnum):
    """Similarities."""

    auto = "auto"
    lncc = "lncc"
    ncc = "ncc"
    mse = "mse"
    mi = "mi"
    mind = "mind"


class Device(StrEnum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


def register(
    fixed: Annotated[Path, typer.Argument(help="Image that stays (NIfTI).", show_default=False)],
    moving: Annotated[Path, typer.Argument(help="Image that is moved onto it.", show_default=False)],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the results.", show_default=False)],
    preset: Annotated[Preset, typer.Option(help="Speed against accuracy.")] = Preset.balanced,
    transform: Annotated[Kind, typer.Option(help="What may move.")] = Kind.greedy,
    similarity: Annotated[
        Measure, typer.Option(help="How images are compared; auto is lncc, or mind across contrasts.")
    ] = Measure.auto,
    fixed_mask: Annotated[Path | None, typer.Option(help="Only fixed voxels where this is > 0 count.")] = None,
    moving_mask: Annotated[Path | None, typer.Option(help="Only moving voxels where this is > 0 count.")] = None,
    initial: Annotated[Path | None, typer.Option(help="Transform to begin with; no start is searched then.")] = None,
    volume: Annotated[int | None, typer.Option(help="Which volume of 4-D images, from 0.")] = None,
    nan_to_zero: Annotated[bool, typer.Option("--nan-to-zero", help="Take voxels that are not finite as 0.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads to use; all by default.")] = None,
    device: Annotated[Device, typer.Option(help="auto takes what there are kernels for.")] = Device.auto,
    seed: Annotated[int, typer.Option(help="For what is random; these solvers are not.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that exist.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but errors and warnings.")] = False,
) -> None:
    """Align MOVING with FIXED.

    Writes warped.nii.gz, transform.h5, inverse.h5, displacement.nii.gz and result.json into the output folder.
    """
    from warpwise.cli.run import Options, register_files

    register_files(
        fixed,
        moving,
        output,
        Options(
            preset=preset.value,
            transform=transform.value,
            similarity=similarity.value,
            fixed_mask=fixed_mask,
            moving_mask=moving_mask,
            initial=initial,
            volume=volume,
            nan_to_zero=nan_to_zero,
            threads=threads,
            device=device.value,
            seed=seed,
            overwrite=overwrite,
            quiet=quiet,
        ),
    )
