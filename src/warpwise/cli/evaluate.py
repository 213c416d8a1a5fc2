"""warpwise evaluate: overlap, surface distance and regularity."""

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    fixed_labels: Annotated[Path, typer.Option(help="Label map of the fixed image.", show_default=False)],
    warped_labels: Annotated[Path, typer.Option(help="Label map brought onto its grid.", show_default=False)],
    transform: Annotated[Path | None, typer.Option(help="Also measure this transform.")] = None,
    mask: Annotated[Path | None, typer.Option(help="Only voxels where this is > 0 count.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the numbers to this file.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")] = False,
) -> None:
    """Dice and HD95 of every label and their means; with --transform SDlogJ, % det J ≤ 0 and %NDV."""
    import json

    from warpwise.evaluation.metrics import evaluate as measure
    from warpwise.io.images import read_image
    from warpwise.io.run_folder import appearing, claim
    from warpwise.io.transforms import read_transform

    if json_file is not None:
        claim(json_file, overwrite=overwrite)
    found = measure(
        read_image(fixed_labels, kind="labels"),
        read_image(warped_labels, kind="labels"),
        transform=None if transform is None else read_transform(transform),
        mask=None if mask is None else read_image(mask, kind="mask"),
    )
    typer.echo(f"{'label':>8} {'Dice':>7} {'HD95 mm':>8}")
    for label, value in found.dice.items():
        typer.echo(f"{label:>8} {value:7.4f} {found.hd95_mm[label]:8.2f}")
    typer.echo(f"{'mean':>8} {found.mean_dice:7.4f} {found.mean_hd95_mm:8.2f}")
    if found.regularity:
        r = found.regularity
        typer.echo(f"SDlogJ {r.sd_log_jacobian:.4f}, det J ≤ 0 {r.percent_folded:g} %, NDV {r.percent_ndv:g} %")
    if json_file is not None:
        with appearing(json_file.parent) as scratch:
            (scratch / json_file.name).write_text(json.dumps(found.to_dict(), indent=2) + "\n", encoding="utf-8")
