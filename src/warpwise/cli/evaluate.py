"""warpwise evaluate: overlap, surface distance, landmarks and regularity."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from warpwise.cli.apply import PointsSpace
from warpwise.cli.method_options import Asked, method_options

if TYPE_CHECKING:
    from warpwise.io.images import Geometry
    from warpwise.transforms.base import Transform

HINT = (
    "Give --dataset, or --fixed-labels and --warped-labels, or --fixed-landmarks and --moving-landmarks, "
    "or --transform with --like."
)


class Part(StrEnum):
    """Pairs of a dataset.json: registration_val, registration_test."""

    validation = "validation"
    test = "test"


@method_options(several=True)
def evaluate(
    asked: Asked,
    fixed_labels: Annotated[Path | None, typer.Option(help="Label map of the fixed image.")] = None,
    warped_labels: Annotated[Path | None, typer.Option(help="Label map brought onto its grid.")] = None,
    fixed_landmarks: Annotated[Path | None, typer.Option(help="Points of the fixed image.")] = None,
    moving_landmarks: Annotated[Path | None, typer.Option(help="The same points in the moving image.")] = None,
    transform: Annotated[list[str] | None, typer.Option(help="Also measure this transform; a chain if repeated.")] = None,
    like: Annotated[Path | None, typer.Option(help="Fixed image: the grid on which the transform is measured.")] = None,
    mask: Annotated[Path | None, typer.Option(help="Only voxels where this is > 0 count.")] = None,
    points_space: Annotated[PointsSpace | None, typer.Option(help="What columns x, y, z of a table mean.")] = None,
    moving: Annotated[Path | None, typer.Option(help="Moving image, for landmarks in voxels.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the numbers to this file.")] = None,
    dataset: Annotated[Path | None, typer.Option(help="Register and measure all pairs of a dataset.json instead.")] = None,
    on: Annotated[Part | None, typer.Option(help="Which pairs of it; validation pairs also choose weights.")] = None,
    pairs: Annotated[int, typer.Option(min=0, help="So many pairs of the dataset; 0 is all.")] = 0,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder for table and box plots.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")] = False,
) -> None:
    """Dice and HD95 of every label; the registration error of every landmark; SDlogJ, % det J ≤ 0 and %NDV.

    With --dataset: methods (--method, which may be repeated) on all of its validation or test pairs, which need label maps,
    as a table and box plots.
    """
    from warpwise.errors import InputError

    files: dict[str, Any] = {
        "--fixed-labels": fixed_labels, "--warped-labels": warped_labels, "--fixed-landmarks": fixed_landmarks,
        "--moving-landmarks": moving_landmarks, "--transform": transform, "--like": like, "--mask": mask,
        "--points-space": points_space, "--moving": moving, "--json": json_file,
    }  # fmt: skip
    whole: dict[str, Any] = {
        "--method": asked.names, "--set": asked.sets, "--refine": asked.refine, "--on": on, "--pairs": pairs,
        "--output": output,
    }  # fmt: skip
    idle = [name for name, value in (files if dataset is not None else whole).items() if value]
    if idle:
        raise InputError(f"{', '.join(idle)}: does nothing {'with' if dataset is not None else 'without'} --dataset.")
    if dataset is not None:
        from warpwise.cli.comparison import compare_methods

        compare_methods(dataset, asked, on=(on or Part.validation).value, pairs=pairs, output=output, overwrite=overwrite)
        return
    import json

    from warpwise.io.images import read_geometry
    from warpwise.io.run_folder import appearing, claim
    from warpwise.io.transforms.chain import read_chain

    given = ((fixed_labels, warped_labels, "labels"), (fixed_landmarks, moving_landmarks, "landmarks"))
    for one, other, what in given:
        if (one is None) != (other is None):
            raise InputError(f"One file of {what} without the other.", hint=HINT)
    if fixed_labels is None and fixed_landmarks is None and (not transform or like is None):
        raise InputError("There is nothing to evaluate.", hint=HINT)
    if mask is not None and fixed_labels is None and not transform:
        raise InputError("--mask: does nothing without label maps or a transform.")
    if fixed_landmarks is None and (moving is not None or points_space is not None):
        raise InputError("--moving and --points-space: do nothing without landmarks.")
    if json_file is not None:
        claim(json_file, overwrite=overwrite)
    chain = read_chain(transform) if transform else None
    geometry = None if like is None else read_geometry(like)
    measures: dict[str, Any] = {}
    if fixed_labels is not None and warped_labels is not None:
        measures.update(_overlap(fixed_labels, warped_labels, chain, mask))
    elif chain is not None and geometry is not None:
        measures.update(_shape(chain, geometry, mask))
    if fixed_landmarks is not None and moving_landmarks is not None:
        there = None if moving is None else read_geometry(moving)
        space = None if points_space is None else points_space.value
        measures.update(_points((fixed_landmarks, moving_landmarks), (geometry, there), space, chain))
    if "sd_log_jacobian" in measures:
        typer.echo(
            f"SDlogJ {measures['sd_log_jacobian']:.4f}, det J ≤ 0 {measures['percent_folded']:g} %, "
            f"NDV {measures['percent_ndv']:g} %"
        )
    if json_file is not None:
        with appearing(json_file.parent) as scratch:
            (scratch / json_file.name).write_text(json.dumps(measures, indent=2) + "\n", encoding="utf-8")


def _overlap(fixed: Path, warped: Path, chain: "Transform | None", mask: Path | None) -> dict[str, Any]:
    from warpwise.evaluation.metrics import evaluate as measure
    from warpwise.io.images import read_image

    measures = measure(
        read_image(fixed, kind="labels"),
        read_image(warped, kind="labels"),
        transform=chain,
        mask=None if mask is None else read_image(mask, kind="mask"),
    )
    typer.echo(f"{'label':>8} {'Dice':>7} {'HD95 mm':>8}")
    for label, value in measures.dice.items():
        typer.echo(f"{label:>8} {value:7.4f} {measures.hd95_mm[label]:8.2f}")
    typer.echo(f"{'mean':>8} {measures.mean_dice:7.4f} {measures.mean_hd95_mm:8.2f}")
    return measures.to_dict()


def _shape(chain: "Transform", geometry: "Geometry", mask: Path | None) -> dict[str, Any]:
    import numpy as np

    from warpwise.errors import InputError
    from warpwise.evaluation.metrics import regularity
    from warpwise.image import Image
    from warpwise.io.images import read_image
    from warpwise.resampling import brought

    inside = None
    if mask is not None:
        inside = (
            brought(read_image(mask, kind="mask"), Image(np.zeros((1, *geometry.grid.shape)), geometry.grid)).data[0] > 0
        )
        if not inside.any():
            raise InputError(f"{mask}: is empty on the grid of --like.")
    return vars(regularity(chain, geometry.grid, inside))


def _points(
    files: tuple[Path, Path],
    where: "tuple[Geometry | None, Geometry | None]",
    space: str | None,
    chain: "Transform | None",
) -> dict[str, Any]:
    import numpy as np

    from warpwise.evaluation.metrics import target_errors
    from warpwise.io.points import matched, read_points
    from warpwise.transforms.affine import Affine

    grids = [None if g is None else g.grid for g in where]
    points = [read_points(path, space=space, grid=grid) for path, grid in zip(files, grids, strict=True)]
    fixed, moving, names = matched(points[0], points[1])
    before = target_errors(Affine(np.eye(fixed.shape[1] + 1)), fixed, moving)
    after = before if chain is None else target_errors(chain, fixed, moving)
    width = max(8, *map(len, names))
    typer.echo(f"{'landmark':>{width}} {'before mm':>10} {'after mm':>9}")
    for name, one, other in zip(names, before, after, strict=True):
        typer.echo(f"{name:>{width}} {one:10.3f} {other:9.3f}")
    for word, of in (("mean", np.mean), ("median", np.median), ("largest", np.max)):
        typer.echo(f"{word:>{width}} {float(of(before)):10.3f} {float(of(after)):9.3f}")
    return {
        "tre_mm": dict(zip(names, after.tolist(), strict=True)),
        "mean_tre_mm": float(after.mean()),
        "median_tre_mm": float(np.median(after)),
        "mean_tre_before_mm": float(before.mean()),
    }
