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

    from warpwise.cli.progress import Progress
    from warpwise.cli.run import run
    from warpwise.evaluation.metrics import label_overlap
    from warpwise.io.images import write_image
    from warpwise.io.run_folder import appearing, claim_folder
    from warpwise.io.scan import Scan
    from warpwise.methods import Method
    from warpwise.registration.files import Output
    from warpwise.registration.result import FILES
    from warpwise.synthetic.phantoms import brain_pair
    from warpwise.transforms.affine import Affine

    inputs = ("fixed.nii.gz", "moving.nii.gz", "fixed_labels.nii.gz", "moving_labels.nii.gz")
    claim_folder(output, [*inputs, *FILES], overwrite=overwrite)
    typer.echo("Drawing two synthetic brains …")
    pair = brain_pair()
    with appearing(output) as scratch:
        for name, image in zip(inputs, (pair.fixed, pair.moving, pair.fixed_labels, pair.moving_labels), strict=True):
            write_image(scratch / name, image)
    scans = [Scan(image=output / name) for name in inputs[:2]]
    with Progress(quiet=False) as say:
        place = Output(folder=output, overwrite=True)
        result = run(scans[0], scans[1], place, Method.named("balanced"), say=say)
    grid, body = pair.fixed.grid, pair.body
    truth = pair.truth.displacement(grid)
    voxel = np.array(grid.spacing_mm, np.float32)[:, None]
    before = np.linalg.norm(truth[:, body] / voxel, axis=0)
    after = np.linalg.norm((result.displacement_mm - truth)[:, body] / voxel, axis=0)
    typer.echo(f"Mean endpoint error inside the body: {before.mean():.2f} voxels before, {after.mean():.2f} after.")
    maps = pair.fixed_labels, pair.moving_labels
    overlap = [np.mean([*label_overlap(*maps, map_).values()]) for map_ in (Affine(np.eye(4)), result.transform)]
    typer.echo(f"Mean Dice of five tissues: {overlap[0]:.3f} before, {overlap[1]:.3f} after.")
