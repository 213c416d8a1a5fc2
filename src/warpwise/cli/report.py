"""warpwise report: the page of a registration that was made before."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    folder: Annotated[Path, typer.Argument(help="What warpwise register wrote.", show_default=False)],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Page to write; by default in that folder.")] = None,
    figures: Annotated[bool, typer.Option("--figures", help="Also write the figures as PNG and SVG.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a page that exists.")] = False,
) -> None:
    """Write a self-contained page of a registration: before and after, deformation, folds, convergence, warnings."""
    from warpwise.errors import InputError
    from warpwise.io.run_folder import appearing, claim
    from warpwise.report import available
    from warpwise.report.material import Material
    from warpwise.report.page import page, write_figures

    available()
    target = output or folder / "report.html"
    if target.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{target}: not a name for a page.", hint="Expected .html.")
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder.")
    claim(target, overwrite=overwrite)
    pictures = target.parent / "figures"
    if figures and pictures.exists() and not overwrite:
        raise InputError(f"{pictures}: exists already.", hint="Pass --overwrite to replace it.")
    material = Material.of_folder(folder)
    with appearing(target.parent) as scratch:
        (scratch / target.name).write_text(page(material), encoding="utf-8")
        if figures:
            write_figures(scratch / "figures", material)
