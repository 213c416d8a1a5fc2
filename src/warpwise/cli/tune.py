"""warpwise tune: the weights of a solver's objective, learned by gradient from people whose labels are known."""

from pathlib import Path
from typing import Annotated, Any

import typer


def tune(
    config: Annotated[
        Path | None, typer.Argument(help="Settings (YAML); or none, with --dataset.", show_default=False)
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder of the run.", show_default=False)] = None,
    dataset: Annotated[
        Path | None, typer.Option(help="dataset.json or its folder, with label maps; overrides the settings.")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="What is tuned; its registrar is energy.", show_default="energy")
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option("--tune", help="These weights, 'objective.*.weight' or so; all of them by default."),
    ] = None,
    roughness: Annotated[
        float | None, typer.Option(min=0.01, help="The SD of log det J may be so large at most, over labelled voxels.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Moves of the weights, each of which registers a few pairs.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of pairs and labels.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run in OUTPUT was stopped.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads to use; all by default.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run that exists.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but errors and warnings.")] = False,
) -> None:
    """Learn the weights of the energy that a solver minimises; OUTPUT/tuned.yaml is then a method for register.

    Each step registers a few pairs and asks how their labels' overlap would change with each weight. Those whose pairs
    count learn it: judge the method by others.
    """
    from warpwise.cli.learning import available
    from warpwise.errors import InputError

    if output is None:
        raise InputError("Where should the run go?", hint="Pass -o FOLDER.")
    given: dict[str, Any] = {
        "CONFIG": config, "--dataset": dataset, "--method": method, "--tune": weights, "--roughness": roughness,
        "--steps": steps, "--seed": seed,
    }  # fmt: skip
    said = [name for name, value in given.items() if value is not None]
    if resume and said:
        raise InputError(f"{', '.join(said)}: a run goes on as it began.", hint=f"Its settings stand in {output}.")
    if not resume and config is None and dataset is None:
        raise InputError("There is nobody to learn from.", hint="Pass settings, or --dataset FOLDER.")
    available()
    import torch

    from warpwise.cli.progress import Progress
    from warpwise.levels.solver_tuning import TUNED
    from warpwise.levels.solver_tuning import tune as run
    from warpwise.ops import runtime

    settings = None if resume else _settings(config, dataset, method, weights, roughness, {"steps": steps, "seed": seed})
    if threads:
        runtime.set_threads(threads)
        torch.set_num_threads(threads)
    try:
        with Progress(quiet=quiet) as progress:
            before, after = run(settings, output, overwrite=overwrite, on_event=progress)
    except KeyboardInterrupt:
        typer.echo(f"Stopped. What was saved last is kept; go on with: warpwise tune -o {output} --resume", err=True)
        raise typer.Exit(130) from None
    for name, term in after.objective.items():
        if term.weight != before.objective[name].weight:
            typer.echo(f"objective.{name}.weight: {before.objective[name].weight:g} before, {term.weight:g} now")
    if not quiet:
        typer.echo(f"Use it: warpwise register FIXED MOVING -o DIR --method {output / TUNED}", err=True)


def _settings(
    config: Path | None,
    dataset: Path | None,
    method: str | None,
    weights: list[str] | None,
    roughness: float | None,
    others: dict[str, Any],
) -> Any:
    """Settings from a file, and what was said beside them."""
    from warpwise.levels.solver_tuning_settings import SolverTuningSettings, read_solver_tuning
    from warpwise.terms.term import parse_terms

    changes = {name: value for name, value in others.items() if value is not None}
    if dataset is not None:
        changes["data"] = {"dataset": dataset.absolute()}
    if method is not None:
        changes["method"] = method
    if config is None:
        settings = SolverTuningSettings.parse(changes)
    else:
        known = read_solver_tuning(config)
        if dataset is not None:
            changes["data"] = known.data.replace(dataset=dataset.absolute())
        settings = known.replace(**changes) if changes else known
    tuning = settings.tuning
    if weights:
        names = [pattern.removeprefix("objective.").removesuffix(".weight") for pattern in weights]
        tuning = tuning.replace(weights=tuple(names))
    if roughness is not None:
        budget = parse_terms({"budget": {"at_most": roughness, "weight": 10.0}})
        tuning = tuning.replace(outer={**tuning.outer, **budget})
    return settings.replace(tuning=tuning)
