"""Methods by name: presets, models, files."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from warpwise.errors import InputError
from warpwise.methods.method import ImageSettings, Method
from warpwise.methods.presets import PRESETS, REFINING
from warpwise.registrars.deformable.descent import Greedy
from warpwise.registrars.learned.settings import Network, Refined
from warpwise.registrars.linear.affine import LinearSettings
from warpwise.settings import nearest

FILE = "method.yaml"
"""What a folder holds whose method has one."""


def method_named(name: str | Path) -> Method:
    """See `Method.named`."""
    if str(name) in PRESETS:
        return PRESETS[str(name)]()
    path = Path(name)
    if path.is_file() and path.suffix.lower() in (".yaml", ".yml", ".json"):
        return read_method(path)
    if (path / FILE).is_file():
        return read_method(path / FILE)
    if (path / "result.json").is_file():
        return read_method(path / "result.json")
    known = [*PRESETS, *installed()]
    if str(name) not in known and not path.exists():
        raise InputError(
            f"{name}: is neither a method ({', '.join(known)}) nor a file or folder that holds one.",
            hint=nearest(str(name), known) if nearest(str(name), known).startswith("Did") else "See: warpwise methods",
        )
    return of_model(name)


def installed() -> list[str]:
    """Names of the models that came with the package; nothing of them is read."""
    root = Path(__file__).parents[1] / "models"
    return sorted(folder.name for folder in root.glob("*") if folder.is_dir())


def read_method(path: Path) -> Method:
    """A method from YAML, or from the result.json of a registration, which holds the one it was made by.

    Raises:
        InputError: it cannot be read, or holds none.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content: Any = json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({str(error).splitlines()[0]}).") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: is not YAML: {str(error).splitlines()[0]}.") from error
    if isinstance(content, Mapping) and "schema_version" in content:
        content = content.get("method")
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds no method.", hint="Write one with: warpwise methods balanced > FILE")
    base = content.get("base")
    try:
        if base is not None:
            rest = {k: v for k, v in content.items() if k != "base"}
            return Method.parse(merged(method_named(str(base)).plain(), rest))
        return Method.parse(content)
    except InputError as error:
        raise InputError(f"{path}: {error.message}", hint=error.hint) from error


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings, where both have one, merged; else the change."""
    out = dict(values)
    for key, value in changes.items():
        old = out.get(key)
        out[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return out


def of_model(model: Any) -> Method:
    """The method that a trained network is: its images are brought to it as its card has it.

    Raises:
        InputError: it cannot be loaded.
    """
    network = Network(model=model)
    card = network.loaded().card
    return Method(
        images=ImageSettings(percentiles=card.percentiles),
        linear=None if card.alignment == "none" else LinearSettings(transform=card.alignment),
        registrar=network,
    )


def refined(method: Method, *, like: str = "balanced") -> Method:
    """A network's method, followed by a solver; how cautious that is comes from a preset.

    Raises:
        InputError: the method has no network.
    """
    if not isinstance(method.registrar, Network):
        raise InputError("There is nothing to refine without a model.", hint="Name one: --method, for example synthetic.")
    solver = Greedy.parse(REFINING.model_dump())
    return method.replace(registrar=Refined(network=method.registrar, solver=solver), cautious=PRESETS[like]().cautious)
