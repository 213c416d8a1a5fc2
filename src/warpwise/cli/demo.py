"""warpwise demo: a synthetic pair with known truth, registered and judged."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for images and results.")] = Path("warpwise-demo"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that exist.")] = False,
) -> None:
    """Draw two brain-like images, register them, and print the distance from the known truth."""
    import numpy as np

    from warpwise.cli.run import FILES, Options, register_files
    from warpwise.evaluation.metrics import dice
    from warpwise.io.images import write_image
    from warpwise.io.run_folder import appearing, claim_folder
    from warpwise.resampling import resample
    from warpwise.synthetic.phantoms import brain_pair

    inputs = ("fixed.nii.gz", "moving.nii.gz", "fixed_labels.nii.gz", "moving_labels.nii.gz")
    claim_folder(output, [*inputs, *FILES], overwrite=overwrite)
    typer.echo("Drawing two synthetic brains …")
    pair = brain_pair()
    with appearing(output) as scratch:
        for name, image in zip(inputs, (pair.fixed, pair.moving, pair.fixed_labels, pair.moving_labels), strict=True):
            write_image(scratch / name, image)
    result = register_files(output / inputs[0], output / inputs[1], output, Options(overwrite=True))
    grid, body = pair.fixed.grid, pair.body
    truth = pair.truth.displacement(grid)
    voxel = np.array(grid.spacing_mm, np.float32)[:, None]
    before = np.linalg.norm(truth[:, body] / voxel, axis=0)
    after = np.linalg.norm((result.displacement_mm - truth)[:, body] / voxel, axis=0)
    labels = pair.fixed_labels.data[0]
    moved = resample(pair.moving_labels, grid, result.transform, interpolation="label")
    typer.echo(f"Mean endpoint error inside the body: {before.mean():.2f} voxels before, {after.mean():.2f} after.")
    overlap = [float(np.mean([*dice(labels, m.data[0]).values()])) for m in (pair.moving_labels, moved)]
    typer.echo(f"Mean Dice of five tissues: {overlap[0]:.3f} before, {overlap[1]:.3f} after.")
