"""What several verbs ask about transforms: a chain of files, and the images between which they map."""

from pathlib import Path
from typing import Annotated

import typer

ORDER = (
    "Transform files in the order in which a point of the fixed image meets them (the order of antsApplyTransforms). "
    "inverse:FILE, or [FILE,1] as in ANTs, turns one round."
)

Fixed = Annotated[Path | None, typer.Option("--fixed", help="Fixed image; FSL, LTA and Learn2Reg files need it.")]
Moving = Annotated[Path | None, typer.Option("--moving", help="Moving image, likewise.")]
From = Annotated[str | None, typer.Option("--from", help="Format of the transforms, where their files do not tell.")]
