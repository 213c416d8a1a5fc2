"""Packages that warpwise can do without, and the extra that brings each."""

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from warpwise.errors import InputError

EXTRAS = {
    "torch": "learn",
    "safetensors": "learn",
    "lightning_fabric": "learn",
    "tensorboard": "tensorboard",
    "jinja2": "report",
    "matplotlib": "report",
    "ipyniivue": "report",
    "nitransforms": "formats",
    "ray": "cluster",
    "optuna": "search",
}


def need(*packages: str, what: str) -> None:
    """Refuse what cannot be done without packages that are not installed, before any work is done.

    Args:
        packages: names that are imported.
        what: needs them: the beginning of the sentence.

    Raises:
        InputError: one is missing.
    """
    missing = [name for name in packages if not installed(name)]
    if missing:
        raise refusal(*missing, what=what)


def installed(package: str) -> bool:
    """Whether a package could be imported; it is not."""
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # what an import hook says of a package that it hides
        return False


def imported(module: str) -> ModuleType:
    """A module by its name.

    Raises:
        InputError: it needs a package that comes with an extra which is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = missing_from(error)
        if package is None:
            raise
        raise refusal(package, what="This") from error


def missing_from(error: ModuleNotFoundError) -> str | None:
    """The package of an extra that an import failed for; None where it failed for another reason."""
    package = (error.name or "").split(".")[0]
    return package if package in EXTRAS else None


def refusal(*missing: str, what: str) -> InputError:
    """What is said where packages of an extra are missing."""
    extras = ",".join(dict.fromkeys(EXTRAS[name] for name in missing))
    return InputError(f"{what} needs {', '.join(missing)}.", hint=f"pip install 'warpwise[{extras}]'")
