"""warpwise apply: move an image through a transform."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Interpolation(StrEnum):
    """How values between voxels are made."""

    linear = "linear"
    nearest = "nearest"
    cubic = "cubic"
    label = "label"


def apply(
    transform: Annotated[Path, typer.Argument(help="Transform file (ITK .h5, .tfm, .txt, .mat).", show_default=False)],
    image: Annotated[Path, typer.Argument(help="Image to move (NIfTI).", show_default=False)],
    like: Annotated[Path, typer.Option(help="Image whose grid the result has.", show_default=False)],
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write (.nii or .nii.gz).", show_default=False)],
    interpolation: Annotated[Interpolation, typer.Option(help="label is for label maps.")] = Interpolation.linear,
    inverse: Annotated[bool, typer.Option("--inverse", help="Go the other way, exactly.")] = False,
    volume: Annotated[int | None, typer.Option(help="Which volume of a 4-D image, from 0.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")] = False,
) -> None:
    """Bring IMAGE onto the grid of --like through TRANSFORM, with one interpolation."""
    from warpwise.errors import InputError
    from warpwise.io.nifti import read_grid, read_image, write_image
    from warpwise.io.run_folder import appearing, claim
    from warpwise.io.transforms import read_transform
    from warpwise.resampling import resample

    if not output.name.endswith((".nii", ".nii.gz")):
        raise InputError(f"{output}: not a NIfTI file name.", hint="Expected .nii or .nii.gz.")
    claim(output, overwrite=overwrite)
    kind = "labels" if interpolation is Interpolation.label else "intensity"
    source = read_image(image, kind=kind, volume=volume)
    grid = read_grid(like)
    chain = read_transform(transform)
    moved = resample(source, grid, chain.inverse() if inverse else chain, interpolation=interpolation.value)
    with appearing(output.parent) as scratch:
        write_image(scratch / output.name, moved, like=like if grid.dim == 2 else None)
