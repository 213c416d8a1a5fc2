"""warpwise apply: move an image, labels or points through a chain of transforms."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from warpwise.cli.chain import ORDER, Fixed, From, Moving

if TYPE_CHECKING:
    from warpwise.image import Image
    from warpwise.io.images import Geometry, Reading
    from warpwise.transforms.base import Transform


class Interpolation(StrEnum):
    """How values between voxels are made."""

    linear = "linear"
    nearest = "nearest"
    cubic = "cubic"
    label = "label"


class PointsSpace(StrEnum):
    """What the numbers of a table of points mean."""

    ras = "ras"
    lps = "lps"
    voxel = "voxel"


def apply(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="TRANSFORM... INPUT", help=f"{ORDER} Last, the image or points to move.", show_default=False
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write.", show_default=False)],
    like: Annotated[
        Path | None, typer.Option(help="Image whose grid the result has; for points in voxels, their image.")
    ] = None,
    interpolation: Annotated[Interpolation, typer.Option(help="label is for label maps.")] = Interpolation.linear,
    inverse: Annotated[bool, typer.Option("--inverse", help="Go the other way through the whole chain, exactly.")] = False,
    volume: Annotated[int | None, typer.Option(help="Only this volume of a 4-D image, from 0; else all.")] = None,
    fixed: Fixed = None,
    moving: Moving = None,
    kind: From = None,
    points_space: Annotated[
        PointsSpace | None, typer.Option(help="What columns x, y, z of a table mean; lps is ANTs'.")
    ] = None,
    series: Annotated[list[str] | None, typer.Option(help="UID of a DICOM series, where a folder holds several.")] = None,
    grey: Annotated[bool, typer.Option("--grey", help="Take the luminance of colour images.")] = False,
    spacing: Annotated[float | None, typer.Option(min=0, help="Pixel size of pictures, mm.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")] = False,
) -> None:
    """Bring INPUT through a chain of transforms, with one interpolation.

    An image, 4-D ones volume by volume, is brought from the moving onto the fixed grid (--like FIXED). Points (.csv,
    .fcsv, .mrk.json, .tck, .trk) go the way of every such tool, from the fixed to the moving image; --inverse takes
    points of the moving image to the fixed one.
    """
    from warpwise.errors import InputError
    from warpwise.io.images import Reading, image_name, read_geometry
    from warpwise.io.points import SUFFIXES, is_points
    from warpwise.io.run_folder import claim
    from warpwise.io.transforms.chain import read_chain, spaces_of

    if len(inputs) < 2:
        raise InputError("A transform and something to move are needed.", hint="warpwise apply TRANSFORM... INPUT -o OUT")
    *words, last = inputs
    source = Path(last)
    if is_points(source) and not is_points(output):
        raise InputError(f"{output}: not a name for a file of points.", hint=f"Known: {', '.join(SUFFIXES)}.")
    if not is_points(source):
        image_name(output)
    claim(output, overwrite=overwrite)
    reading = Reading(volume, tuple(series or ()), None if spacing is None else (spacing,), grey=grey)
    geometry = None if like is None else read_geometry(like, reading)
    if not is_points(source):
        # What a FLIRT matrix or the like is between, if nothing else is said.
        ends = (source, like) if inverse else (like, source)
        fixed, moving = fixed or ends[0], moving or ends[1]
    chain = read_chain(words, kind=kind, spaces=spaces_of(fixed, moving))
    chain = chain.inverse() if inverse else chain
    if is_points(source):
        _points(source, output, chain, geometry, points_space)
        return
    if geometry is None:
        raise InputError("An image needs a grid to be brought onto.", hint="Pass --like FIXED.")
    _image(source, output, chain, geometry, interpolation.value, reading)


def _points(source: Path, output: Path, chain: "Transform", geometry: "Geometry | None", space: PointsSpace | None) -> None:
    from warpwise.errors import InputError
    from warpwise.io.points import read_points, write_points
    from warpwise.io.run_folder import appearing

    grid = None if geometry is None else geometry.grid
    points = read_points(source, space=None if space is None else space.value, grid=grid)
    if points.mm.shape[1] != chain.dim:
        raise InputError(f"{source}: {points.mm.shape[1]}-D points for a {chain.dim}-D transform.")
    # Voxels of the image that --like names are left for mm: the points now belong to another image.
    moved = points.moved(chain.points(points.mm), space="ras" if points.space == "voxel" else None)
    with appearing(output.parent) as scratch:
        write_points(scratch / output.name, moved)


def _image(
    source: Path, output: Path, chain: "Transform", like: "Geometry", interpolation: str, reading: "Reading"
) -> None:
    import numpy as np

    from warpwise.io.checks import image_of, room_for
    from warpwise.io.images import read_geometry, read_image, volumes_of, write_array
    from warpwise.io.run_folder import appearing
    from warpwise.resampling import resample

    kind = "labels" if interpolation == "label" else "intensity"
    displacement = None
    volumes, count = (iter(()), 1) if reading.volume is not None or source.is_dir() else volumes_of(source)

    def moved(image: "Image") -> np.ndarray:
        return resample(image, like.grid, chain, interpolation=interpolation, displacement=displacement).data[0]

    if count == 1:
        data = moved(read_image(source, kind=kind, reading=reading))
    else:
        room_for(str(source), (*like.grid.shape, count), 4)
        displacement = chain.displacement(like.grid)
        where = read_geometry(source)
        data = np.stack(
            [
                moved(image_of(f"{source} volume {n}", v, where.affine, kind=kind, nan_to_zero=reading.nan_to_zero))
                for n, v in enumerate(volumes)
            ],
            -1,
        )
    with appearing(output.parent) as scratch:
        write_array(scratch / output.name, data, like.grid, like=like)
