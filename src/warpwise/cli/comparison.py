"""Methods on a whole dataset: a table on the screen, and files of it."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

if TYPE_CHECKING:
    from warpwise.cli.method_options import Asked
    from warpwise.io.datasets import Dataset
    from warpwise.levels.measurement import Row

FILES = ("evaluation.json", "evaluation.md", "dice.png", "dice.svg")


def compare_methods(
    path: Path,
    asked: "Asked",
    *,
    on: "Literal['validation', 'test']",
    pairs: int,
    output: Path | None,
    overwrite: bool,
) -> None:
    """Register all pairs with each method, and with the affine stage alone; print and write what came out.

    Raises:
        InputError: the dataset, a method or the folder cannot be used.
    """
    from warpwise.benchmark.compare import compare, table
    from warpwise.io.datasets import read_dataset
    from warpwise.io.run_folder import claim_folder, locked
    from warpwise.methods import Method
    from warpwise.report import available

    if output is not None:
        available()
        claim_folder(output, FILES, overwrite=overwrite)
    dataset = read_dataset(path)
    affine, named = Method.named("affine"), asked.methods()
    if "affine" in named:
        named = {("affine, changed" if name == "affine" else name): method for name, method in named.items()}
    endings = [Path(name).name for name in named]
    short = {name: end for name, end in zip(named, endings, strict=True) if endings.count(end) == 1 and end != "affine"}
    methods = {"affine": affine, **{short.get(name, name): method for name, method in named.items()}}

    def tell(row: "Row") -> None:
        typer.echo(f"{row.pair}  {row.method}: Dice {row.mean_dice:.4f}, {row.seconds:.1f} s", err=True)
        for warning in row.warnings:
            typer.echo(f"  {warning}", err=True)

    rows = compare(dataset, methods, on=on, pairs=pairs, on_row=tell)
    typer.echo(table(rows))
    if output is not None:
        with locked(output):
            write(output, dataset, rows)


def write(folder: Path, dataset: "Dataset", rows: "Sequence[Row]") -> None:
    """The table as JSON and Markdown, and box plots of every structure."""
    from warpwise.benchmark.compare import summary, table
    from warpwise.io.run_folder import appearing
    from warpwise.report.boxplots import draw

    scores: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        for label, value in row.dice.items():
            name = dataset.labels.get(label, str(label))
            scores.setdefault(row.method, {}).setdefault(name, []).append(value)
    with appearing(folder) as scratch:
        content = {"dataset": dataset.name, "summary": summary(rows), "rows": [asdict(row) for row in rows]}
        (scratch / FILES[0]).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (scratch / FILES[1]).write_text(f"# {dataset.name}\n\n{table(rows)}\n", encoding="utf-8")
        for name in FILES[2:]:
            draw(scores, scratch / name)
