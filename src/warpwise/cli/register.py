"""warpwise register: align two images and write everything that follows from it."""

from pathlib import Path
from typing import Annotated

import typer

from warpwise.cli.apply import PointsSpace
from warpwise.cli.method_options import Asked, method_options


@method_options()
def register(
    fixed: Annotated[
        Path, typer.Argument(help="Image that stays: NIfTI, MHA, NRRD, DICOM folder, PNG …", show_default=False)
    ],
    moving: Annotated[Path, typer.Argument(help="Image that is moved onto it.", show_default=False)],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the results.", show_default=False)],
    asked: Asked,
    initial: Annotated[
        list[str] | None, typer.Option(help="Transform to begin with (a chain if repeated); no start is searched then.")
    ] = None,
    fixed_mask: Annotated[Path | None, typer.Option(help="Only fixed voxels where this is > 0 count.")] = None,
    moving_mask: Annotated[Path | None, typer.Option(help="Only moving voxels where this is > 0 count.")] = None,
    fixed_exclude: Annotated[Path | None, typer.Option(help="Fixed voxels > 0 do not count (lesions).")] = None,
    moving_exclude: Annotated[Path | None, typer.Option(help="Moving voxels > 0 do not count (lesions).")] = None,
    fixed_labels: Annotated[Path | None, typer.Option(help="Label map of the fixed image, as a further term.")] = None,
    moving_labels: Annotated[Path | None, typer.Option(help="Label map of the moving image.")] = None,
    fixed_landmarks: Annotated[
        Path | None, typer.Option(help="Points of the fixed image (.csv, .fcsv, .mrk.json), as a further term.")
    ] = None,
    moving_landmarks: Annotated[Path | None, typer.Option(help="The same points in the moving image.")] = None,
    points_space: Annotated[
        PointsSpace | None, typer.Option(help="What columns x, y, z of a table mean; lps is ANTs'.")
    ] = None,
    volume: Annotated[int | None, typer.Option(help="Which volume of 4-D images, from 0.")] = None,
    series: Annotated[list[str] | None, typer.Option(help="UID of a DICOM series, where a folder holds several.")] = None,
    spacing: Annotated[float | None, typer.Option(min=0, help="Pixel size of pictures, mm.")] = None,
    grey: Annotated[bool, typer.Option("--grey", help="Take the luminance of colour images.")] = False,
    nan_to_zero: Annotated[bool, typer.Option("--nan-to-zero", help="Take voxels that are not finite as 0.")] = False,
    report: Annotated[bool, typer.Option("--report", help="Also write report.html, to look at.")] = False,
    figures: Annotated[bool, typer.Option("--figures", help="Also write the report's figures as PNG and SVG.")] = False,
    bids: Annotated[bool, typer.Option("--bids", help="OUTPUT is a BIDS derivatives folder; name files its way.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads to use; all by default.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that exist.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but errors and warnings.")] = False,
) -> None:
    """Align MOVING with FIXED.

    Writes warped.nii.gz, transform.h5, inverse.h5, displacement.nii.gz and result.json into the output folder.
    """
    from warpwise.cli.progress import Progress
    from warpwise.cli.run import extras, run
    from warpwise.errors import InputError
    from warpwise.io.images import Reading
    from warpwise.io.scan import Scan
    from warpwise.registration.files import Output

    reading = Reading(volume, tuple(series or ()), None if spacing is None else (spacing,), grey, nan_to_zero)
    space = None if points_space is None else points_space.value
    sides = (
        (fixed, fixed_mask, fixed_exclude, fixed_labels, fixed_landmarks),
        (moving, moving_mask, moving_exclude, moving_labels, moving_landmarks),
    )
    for one, other in zip(sides[0][3:], sides[1][3:], strict=True):
        if (one is None) != (other is None):
            raise InputError(f"{one or other}: the other image's file is missing.", hint="Give both, or neither.")
    scans = [
        Scan(
            image=image, mask=mask, exclude=exclude, labels=labels, landmarks=points, reading=reading, points_space=space
        )
        for image, mask, exclude, labels, points in sides
    ]  # fmt: skip
    extra, names = extras(report=report, figures=figures)
    place = Output(folder=output, bids=bids, overwrite=overwrite, extra=extra, extra_names=names)
    with Progress(quiet=quiet) as say:
        run(scans[0], scans[1], place, asked.method(), initial=tuple(initial or ()), threads=threads, say=say)
