"""warpwise features: what a trained encoder makes of an image."""

from pathlib import Path
from typing import Annotated

import typer


def features(
    image: Annotated[Path, typer.Argument(help="The image.", show_default=False)],
    model: Annotated[str, typer.Option("--model", help="A model that learned features: its name, folder or training run.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write to.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
) -> None:
    """Write an image's learned features, one file an octave: means, then log-variances, as channels of a 4-D image."""
    import json

    import numpy as np

    from warpwise.extras import need

    need("torch", "safetensors", what="A network")
    from warpwise.io.images import read_image, write_array
    from warpwise.io.run_folder import appearing, claim_folder, locked
    from warpwise.networks.model import Model
    from warpwise.registrars.learned.certainty import features_of

    loaded = Model.load(model)
    octaves = features_of(read_image(image), loaded)
    names = [f"features_{n + 1}.nii.gz" for n in range(len(octaves))]
    claim_folder(output, [*names, "features.json"], overwrite=overwrite)
    random = bool(loaded.card.network.uncertainty)
    with locked(output), appearing(output, last="features.json") as scratch:
        for name, octave in zip(names, octaves, strict=True):
            channels = np.moveaxis(octave.data, 0, -1)
            write_array(scratch / name, channels if octave.grid.dim == 3 else channels[:, :, None], octave.grid)
        content = {
            "image": str(image.absolute()),
            "model": model,
            "files": {
                name: {"spacing_mm": [round(s, 6) for s in octave.grid.spacing_mm], "channels": len(octave.data),
                       "means": len(octave.data) // (2 if random else 1)}
                for name, octave in zip(names, octaves, strict=True)
            },
        }  # fmt: skip
        (scratch / "features.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    typer.echo(f"{len(octaves)} octaves of {len(octaves[0].data)} channels in {output}")
