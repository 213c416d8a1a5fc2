"""warpwise convert, invert, jacobian: what can be done with a transform alone."""

from pathlib import Path
from typing import Annotated

import typer

from warpwise.cli.chain import ORDER, Fixed, From, Moving

Chain = Annotated[list[str], typer.Argument(metavar="TRANSFORM...", help=ORDER, show_default=False)]
Output = Annotated[Path, typer.Option("-o", "--output", help="File to write.", show_default=False)]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")]
To = Annotated[
    str | None,
    typer.Option(
        "--to",
        help="itk, displacement, ants (a prefix), flirt, fnirt, lta, x5 or learn2reg; by default what the suffix says.",
    ),
]


def convert(
    transforms: Chain,
    output: Output,
    to: To = None,
    kind: From = None,
    fixed: Fixed = None,
    moving: Moving = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a chain of transforms in another format.

    FSL matrices and warps, FreeSurfer LTA and Learn2Reg fields need --fixed and --moving, ANTs' and dense fields --fixed.
    """
    from warpwise.io.transforms.chain import read_chain, spaces_of

    spaces = spaces_of(fixed, moving)
    _claim(output, to, overwrite=overwrite)
    _write(output, read_chain(transforms, kind=kind, spaces=spaces), to, spaces)


def invert(
    transforms: Chain,
    output: Output,
    like: Annotated[
        Path | None, typer.Option(help="Moving image: the inverse becomes one field on its grid, the most exact form.")
    ] = None,
    to: To = None,
    kind: From = None,
    fixed: Fixed = None,
    moving: Moving = None,
    overwrite: Overwrite = False,
) -> None:
    """Write the inverse of a chain of transforms: matrices exactly, fields as fields that other programs read."""
    from warpwise.io.images import read_geometry
    from warpwise.io.transforms import Spaces
    from warpwise.io.transforms.chain import read_chain, spaces_of
    from warpwise.transforms.gridded import dense

    spaces = spaces_of(fixed, moving)
    _claim(output, to, overwrite=overwrite)
    grid = None if like is None else read_geometry(like).grid
    back = read_chain(transforms, kind=kind, spaces=spaces).inverse()
    # What was the moving image is now the fixed one.
    _write(output, back if grid is None else dense(back, grid), to, Spaces(spaces.moving, spaces.fixed))


def jacobian(
    transforms: Chain,
    output: Output,
    like: Annotated[Path, typer.Option(help="Fixed image: the map has its grid.", show_default=False)],
    log: Annotated[
        bool, typer.Option("--log", help="Its natural logarithm; folds, which have none, get log 1e-6.")
    ] = False,
    kind: From = None,
    fixed: Fixed = None,
    moving: Moving = None,
    overwrite: Overwrite = False,
) -> None:
    """Write the map of the Jacobian determinant: above 1 where the moving image is larger than the fixed one."""
    from warpwise.evaluation.metrics import jacobian_map
    from warpwise.io.images import image_name, read_geometry, write_array
    from warpwise.io.run_folder import appearing, claim
    from warpwise.io.transforms.chain import read_chain, spaces_of

    image_name(output)
    claim(output, overwrite=overwrite)
    geometry = read_geometry(like)
    values = jacobian_map(read_chain(transforms, kind=kind, spaces=spaces_of(fixed, moving)), geometry.grid, log=log)
    with appearing(output.parent) as scratch:
        write_array(scratch / output.name, values, geometry.grid, like=geometry)


def _claim(output: Path, to: str | None, *, overwrite: bool) -> None:
    from warpwise.io.run_folder import claim
    from warpwise.io.transforms import FORMATS, kind_by_name
    from warpwise.io.transforms.ants import Ants

    if to == "ants":
        for name in Ants.names(output.name):
            claim(output.with_name(name), overwrite=overwrite)
        return
    if to is None:
        kind_by_name(output)
    else:
        FORMATS[to]
    claim(output, overwrite=overwrite)


def _write(output: Path, transform: object, to: str | None, spaces: object) -> None:
    from warpwise.io.run_folder import appearing
    from warpwise.io.transforms import write_transform

    with appearing(output.parent) as scratch:
        write_transform(scratch / output.name, transform, kind=to, spaces=spaces)  # type: ignore[arg-type]
