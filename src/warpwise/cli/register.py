"""warpwise register: align two images and write everything that follows from it."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from warpwise.cli.apply import PointsSpace


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
    fixed: Annotated[
        Path, typer.Argument(help="Image that stays: NIfTI, MHA, NRRD, DICOM folder, PNG …", show_default=False)
    ],
    moving: Annotated[Path, typer.Argument(help="Image that is moved onto it.", show_default=False)],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the results.", show_default=False)],
    preset: Annotated[Preset, typer.Option(help="Speed against accuracy.")] = Preset.balanced,
    transform: Annotated[Kind, typer.Option(help="What may move.")] = Kind.greedy,
    similarity: Annotated[
        Measure, typer.Option(help="How images are compared; auto is lncc, or mind across contrasts.")
    ] = Measure.auto,
    initial: Annotated[
        list[str] | None, typer.Option(help="Transform to begin with (a chain if repeated); no start is searched then.")
    ] = None,
    fixed_mask: Annotated[Path | None, typer.Option(help="Only fixed voxels where this is > 0 count.")] = None,
    moving_mask: Annotated[Path | None, typer.Option(help="Only moving voxels where this is > 0 count.")] = None,
    fixed_exclude: Annotated[Path | None, typer.Option(help="Fixed voxels > 0 do not count (lesions).")] = None,
    moving_exclude: Annotated[Path | None, typer.Option(help="Moving voxels > 0 do not count (lesions).")] = None,
    fixed_labels: Annotated[Path | None, typer.Option(help="Label map of the fixed image, as a further term.")] = None,
    moving_labels: Annotated[Path | None, typer.Option(help="Label map of the moving image.")] = None,
    label_weight: Annotated[float, typer.Option(min=0, help="Against the similarity; 0 only measures the overlap.")] = 1.0,
    fixed_landmarks: Annotated[
        Path | None, typer.Option(help="Points of the fixed image (.csv, .fcsv, .mrk.json), as a further term.")
    ] = None,
    moving_landmarks: Annotated[Path | None, typer.Option(help="The same points in the moving image.")] = None,
    landmark_weight: Annotated[float, typer.Option(min=0, help="Against the similarity; 0 only measures.")] = 1.0,
    points_space: Annotated[
        PointsSpace | None, typer.Option(help="What columns x, y, z of a table mean; lps is ANTs'.")
    ] = None,
    percentiles: Annotated[
        tuple[float, float], typer.Option(help="Intensities outside are cut before images are compared.")
    ] = (0.5, 99.5),
    bias_field: Annotated[bool, typer.Option("--bias-field", help="Remove slow shading first (N4).")] = False,
    volume: Annotated[int | None, typer.Option(help="Which volume of 4-D images, from 0.")] = None,
    series: Annotated[list[str] | None, typer.Option(help="UID of a DICOM series, where a folder holds several.")] = None,
    spacing: Annotated[float | None, typer.Option(min=0, help="Pixel size of pictures, mm.")] = None,
    grey: Annotated[bool, typer.Option("--grey", help="Take the luminance of colour images.")] = False,
    nan_to_zero: Annotated[bool, typer.Option("--nan-to-zero", help="Take voxels that are not finite as 0.")] = False,
    model: Annotated[
        str | None, typer.Option(help="A trained network instead of the solver: its name (see models), folder or run.")
    ] = None,
    refine: Annotated[bool, typer.Option("--refine", help="Let the solver go on from what the network says.")] = False,
    report: Annotated[bool, typer.Option("--report", help="Also write report.html, to look at.")] = False,
    figures: Annotated[bool, typer.Option("--figures", help="Also write the report's figures as PNG and SVG.")] = False,
    bids: Annotated[bool, typer.Option("--bids", help="OUTPUT is a BIDS derivatives folder; name files its way.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads to use; all by default.")] = None,
    device: Annotated[Device, typer.Option(help="auto takes what there are kernels for.")] = Device.auto,
    fit_memory: Annotated[
        bool, typer.Option("--fit-memory", help="Where memory is short, work on fewer voxels instead of refusing.")
    ] = False,
    seed: Annotated[int, typer.Option(help="For what is random; these solvers are not.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that exist.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but errors and warnings.")] = False,
) -> None:
    """Align MOVING with FIXED.

    Writes warped.nii.gz, transform.h5, inverse.h5, displacement.nii.gz and result.json into the output folder.
    """
    from warpwise.cli.run import Options, register_files
    from warpwise.io.images import Reading

    register_files(
        fixed,
        moving,
        output,
        Options(
            preset=preset.value,
            transform=transform.value,
            similarity=similarity.value,
            initial=tuple(initial or ()),
            masks=(fixed_mask, moving_mask),
            exclude=(fixed_exclude, moving_exclude),
            labels=(fixed_labels, moving_labels),
            landmarks=(fixed_landmarks, moving_landmarks),
            weights={"labels": label_weight, "landmarks": landmark_weight},
            points_space=None if points_space is None else points_space.value,
            percentiles=percentiles,
            bias_field=bias_field,
            reading=Reading(volume, tuple(series or ()), None if spacing is None else (spacing,), grey, nan_to_zero),
            model=model,
            refine=refine,
            report=report,
            figures=figures,
            bids=bids,
            threads=threads,
            device=device.value,
            fit_memory=fit_memory,
            seed=seed,
            overwrite=overwrite,
            quiet=quiet,
        ),
    )
