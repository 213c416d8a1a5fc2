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
    from warpwise.io.images import image_name, read_geometry, read_image, write_image
    from warpwise.io.run_folder import appearing, claim
    from warpwise.io.transforms import read_transform
    from warpwise.resampling import resample

    image_name(output)
    claim(output, overwrite=overwrite)
    kind = "labels" if interpolation is Interpolation.label else "intensity"
    source = read_image(image, kind=kind, volume=volume)
    geometry = read_geometry(like)
    chain = read_transform(transform)
    moved = resample(source, geometry.grid, chain.inverse() if inverse else chain, interpolation=interpolation.value)
    with appearing(output.parent) as scratch:
        write_image(scratch / output.name, moved, like=geometry)
