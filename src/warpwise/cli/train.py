"""warpwise train and models: networks, from data or from nothing."""

from pathlib import Path
from typing import Annotated, Any

import typer

from warpwise.cli.method_options import Device
from warpwise.networks import NETWORKS


def train(
    config: Annotated[Path | None, typer.Argument(help="Settings (YAML); see --init.", show_default=False)] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder of the run.", show_default=False)] = None,
    init: Annotated[
        Path | None, typer.Option(help="Write commented settings for --dataset into this file, and stop.")
    ] = None,
    dataset: Annotated[Path | None, typer.Option(help="dataset.json or its folder; overrides the settings.")] = None,
    spacing: Annotated[float | None, typer.Option(min=0.001, help="Of the network's voxels, mm.")] = None,
    network: Annotated[str | None, typer.Option(help=f"{', '.join(NETWORKS)}.")] = None,
    synthetic: Annotated[
        bool, typer.Option("--synthetic", help="Train on random shapes and contrasts: no data are needed.")
    ] = False,
    steps: Annotated[int | None, typer.Option(min=1, help="Updates of the weights.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, pairs and augmentation.")] = None,
    tune: Annotated[
        list[str] | None,
        typer.Option(help="Also learn these weights, 'objective.*.weight' or so, on the people of `tune`: tuned.yaml."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run in OUTPUT was stopped.")] = False,
    cache: Annotated[Path | None, typer.Option(help="Where decoded images are kept; inside OUTPUT by default.")] = None,
    processes: Annotated[int, typer.Option(min=1, help="That train side by side (DDP).")] = 1,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = Device.auto,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads to use; all by default.")] = None,
    allow_outside: Annotated[
        bool, typer.Option("--allow-outside", help="The dataset may name images outside its folder.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run that exists.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but errors and warnings.")] = False,
) -> None:
    """Train a registration network; OUTPUT then holds best/ and last/, which register takes as --method.

    A run that is killed goes on with --resume, and ends with the same weights on a CPU as if it had not been.
    """
    from warpwise.errors import InputError

    if init is not None:
        given = {
            "--network": network, "--spacing": spacing, "--steps": steps, "--seed": seed, "--output": output,
            "--resume": resume or None, "--synthetic": synthetic or None, "--tune": tune,
        }  # fmt: skip
        if idle := [name for name, value in given.items() if value is not None]:
            raise InputError(f"{', '.join(idle)}: does nothing with --init; change the file.")
        _write_settings(init, dataset, allow_outside=allow_outside, overwrite=overwrite)
        return
    if output is None:
        raise InputError("Where should the run go?", hint="Pass -o FOLDER.")
    from warpwise.cli.learning import available, settings_of
    from warpwise.cli.progress import Progress

    available()
    import logging

    import torch

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)

    from warpwise.levels.training import Run
    from warpwise.levels.training import train as run
    from warpwise.ops import runtime

    changes: dict[str, Any] = {"dataset": dataset, "spacing": spacing, "network": network, "steps": steps, "seed": seed}
    changes["tune"] = tune or None
    settings = settings_of(config, output, changes, synthetic=synthetic, resume=resume, allow_outside=allow_outside)
    if threads:
        runtime.set_threads(threads)
        torch.set_num_threads(threads)
    try:
        with Progress(quiet=quiet) as progress:
            run(settings, Run(output, cache, resume, overwrite, device.value, processes, progress))
    except KeyboardInterrupt:
        typer.echo(f"Stopped. What was saved last is kept; go on with: warpwise train -o {output} --resume", err=True)
        raise typer.Exit(130) from None
    if not quiet and settings.tuning is not None:
        typer.echo(f"Train by what was found: warpwise train {output / 'tuned.yaml'} -o ANOTHER", err=True)
    if not quiet:
        typer.echo(f"Use it: warpwise register FIXED MOVING -o DIR {how_to_use(settings.network.kind, output)}", err=True)


def how_to_use(kind: str, run: Path) -> str:
    """What `register` is told of a trained network."""
    term = f"objective.structures={{term: features, model: {run}, least_mm: 6}}"
    return f"--set '{term}'" if kind == "segmentation" else f"--method {run}"


def _write_settings(path: Path, dataset: Path | None, *, allow_outside: bool, overwrite: bool) -> None:
    from warpwise.errors import InputError
    from warpwise.io.run_folder import appearing, claim
    from warpwise.levels.starter import starter

    if dataset is None:
        raise InputError("--init looks at a dataset.", hint="Pass --dataset FOLDER with a dataset.json in it.")
    claim(path, overwrite=overwrite)
    text = starter(dataset.absolute(), allow_outside=allow_outside)
    with appearing(path.absolute().parent) as scratch:
        (scratch / path.name).write_text(text, encoding="utf-8")
    typer.echo(f"Look at {path}, then: warpwise train {path} -o RUN")


def models(
    folder: Annotated[Path | None, typer.Argument(help="A model or run to look at, instead of those installed.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """List the networks that are installed, or show one: size, spacing, contrast, licence."""
    import json

    from warpwise.extras import need

    need("torch", "safetensors", what="A network")
    from warpwise.networks import model

    cards = model.cards() if folder is None else [model.read_card(model.find(folder) / model.CARD)]
    if json_output:
        typer.echo(json.dumps([card.model_dump(mode="json") for card in cards], indent=2))
        return
    if not cards:
        typer.echo("No model is installed. Train one: warpwise train --synthetic -o RUN")
    for card in cards:
        network = card.build()
        count, megabytes = model.size(network)
        shape = [max(16, round(f / s)) for f, s in zip(card.field_mm or (64,) * card.dim, card.spacing_mm, strict=True)]
        work = model.flops(network, shape, channels=card.channels) / 1e9
        spacing = "×".join(f"{s:g}" for s in card.spacing_mm)
        typer.echo(
            f"{card.name or folder}: {card.network.kind}, {card.dim}-D, {spacing} mm, {card.contrast or 'contrast unknown'}"
        )
        typer.echo(
            f"  {count:,} parameters ({megabytes:.1f} MB), {work:.1f} GFLOP for {'×'.join(map(str, shape))} voxels; "
            f"licence: {card.licence or 'not stated'}"
        )
        for name, value in card.validation.items():
            typer.echo(f"  validation {name}: {value:g}")
