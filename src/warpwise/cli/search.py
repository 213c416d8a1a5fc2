"""warpwise search: the best settings of a method or a training for a dataset, found by trying."""

from pathlib import Path
from typing import Annotated

import typer

READY = ("brain",)
"""Studies that come with the program."""


def search(
    given: Annotated[
        Path | None, typer.Argument(help="Study (YAML); with --study a dataset.json or its folder.", show_default=False)
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder of the study.", show_default=False)] = None,
    study: Annotated[str | None, typer.Option(help=f"A ready study instead: {', '.join(READY)}.")] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="So many proposals; with --resume, in all.")] = None,
    baseline: Annotated[
        bool, typer.Option(help="Afterwards, a random search of as many proposals to compare with.")
    ] = True,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the study in OUTPUT was stopped.")] = False,
    processes: Annotated[int, typer.Option(min=1, help="That try proposals side by side.")] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads to use; all by default.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a study that exists.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but errors and warnings.")] = False,
) -> None:
    """Search settings by trying them; OUTPUT then holds best.yaml, which register takes as --method (or train as CONFIG).

    STUDY says what may change (dotted paths and their ranges), on whom, and what is to be got: see docs/learning.md. A
    study that is killed goes on with --resume: what was under way is tried again, nothing is lost or tried twice.
    """
    from warpwise.errors import InputError
    from warpwise.extras import need

    if output is None:
        raise InputError("Where should the study go?", hint="Pass -o FOLDER.")
    idle = {"STUDY": given, "--study": study, "--overwrite": overwrite or None, "--no-baseline": None if baseline else True}
    if resume and any(value is not None for value in idle.values()):
        names = ", ".join(name for name, value in idle.items() if value is not None)
        raise InputError(f"{names}: a study goes on as it began.", hint=f"Its settings stand in {output}.")
    if not resume and given is None:
        raise InputError("There is nothing to search.", hint="Pass STUDY.yaml, or --study brain and a dataset.")
    need("optuna", what="A search")
    need("matplotlib", "jinja2", what="The page of a study")
    from warpwise.cli.progress import Progress
    from warpwise.levels.search import BEST, run
    from warpwise.levels.study_settings import read_study, ready_study
    from warpwise.ops import runtime
    from warpwise.report.study import verdict, write_page

    settings = None
    if given is not None:
        settings = read_study(given) if study is None else ready_study(study, given)
        settings = settings if trials is None else settings.replace(trials=trials)
        settings = settings if baseline else settings.replace(baseline=False)
    if threads:
        runtime.set_threads(threads)
    try:
        with Progress(quiet=quiet) as progress:
            found = run(settings, output, trials=trials, overwrite=overwrite, processes=processes, on_event=progress)
    except KeyboardInterrupt:
        typer.echo(f"Stopped. Go on with: warpwise search -o {output} --resume", err=True)
        raise typer.Exit(130) from None
    study_settings = read_study(output / "study.yaml")
    write_page(study_settings, found, output)
    for path, value in found.best.values.items():
        typer.echo(f"{path}: {value}")
    if not quiet:
        for name, value in found.best.figures.items():
            typer.echo(f"{name}: {found.base.get(name, float('nan')):.4g} before, {value:.4g} now", err=True)
        typer.echo(f"{verdict(study_settings, found)[0]} (folds of people, see the page)", err=True)
        typer.echo(f"Look at {output / 'report.html'}; the best is in {output / BEST}.", err=True)
