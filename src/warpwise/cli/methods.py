"""warpwise methods: ways to register, listed, or one of them as YAML."""

from typing import Annotated

import typer

from warpwise.cli.method_options import Asked, method_options


@method_options()
def methods(
    asked: Asked,
    name: Annotated[
        str | None, typer.Argument(help="One method: its YAML is printed, which --method reads.", show_default=False)
    ] = None,
) -> None:
    """List the ways to register that come with the package, or print one as YAML, changed by any option.

    warpwise methods accurate --set registrar.cap=0.3 > mine.yaml; warpwise register FIXED MOVING -o DIR --method mine.yaml
    """
    from dataclasses import replace

    from warpwise.errors import InputError
    from warpwise.methods import PRESETS
    from warpwise.models import installed

    if name is not None and asked.names:
        raise InputError(f"{name} and --method {asked.names[0]}: one method is needed.")
    if name is None and not asked.names and (asked.sets or asked.flags or asked.refine):
        raise InputError("What should be changed?", hint="Name a method, for example: warpwise methods balanced --set …")
    if name is not None or asked.names:
        typer.echo(replace(asked, names=asked.names or (str(name),)).method().yaml(), nl=False)
        return
    for preset in PRESETS:
        typer.echo(f"{preset:<12} {PRESETS[preset].__doc__}")
    for model in installed():
        typer.echo(f"{model:<12} A network (see: warpwise models); --refine lets a solver go on.")
    typer.echo("Besides: any YAML file, model folder, training run, or result.json. Print one: warpwise methods NAME")
