"""The table of verbs."""

import typer

from warpwise.cli.apply import apply
from warpwise.cli.demo import demo
from warpwise.cli.evaluate import evaluate
from warpwise.cli.features import features
from warpwise.cli.methods import methods
from warpwise.cli.register import register
from warpwise.cli.report import report
from warpwise.cli.search import search
from warpwise.cli.train import models, train
from warpwise.cli.transforms import convert, invert, jacobian
from warpwise.cli.tune import tune

app = typer.Typer(
    name="warpwise",
    help="Align medical images by smooth, invertible deformations.",
    epilog="Any command takes --debug, which shows the traceback of an error.",
    no_args_is_help=True,
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
VERBS = (
    register, apply, evaluate, report, train, tune, search, methods, models, features, convert, invert, jacobian, demo
)  # fmt: skip
for verb in VERBS:
    app.command()(verb)


@app.callback()
def root(version: bool = typer.Option(False, "--version", is_eager=True, help="Show the version and stop.")) -> None:
    """Align medical images by smooth, invertible deformations."""
    if version:
        from warpwise import __version__

        typer.echo(__version__)
        raise typer.Exit
