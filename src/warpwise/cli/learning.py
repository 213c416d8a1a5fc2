"""What people see of a training, and the settings it runs with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from warpwise.errors import InputError
from warpwise.extras import need


def available() -> None:
    """Refuse to train where the extra for it is not installed.

    Raises:
        InputError: a package is missing.
    """
    need("torch", "safetensors", "lightning_fabric", what="Training")


def settings_of(
    config: Path | None,
    output: Path,
    changes: Mapping[str, Any],
    *,
    synthetic: bool,
    resume: bool,
    allow_outside: bool,
) -> Any:
    """Settings from a file, from a run that is resumed, or for synthetic training; with what was said beside them.

    Raises:
        InputError: there are none, or they do not fit.
    """
    from warpwise.data.settings import SyntheticSettings
    from warpwise.levels.settings import TrainingSettings, read_settings
    from warpwise.levels.training import CONFIG
    from warpwise.levels.tuning_settings import TuningSettings
    from warpwise.terms.term import parse_terms

    given = {k: v for k, v in changes.items() if v is not None}
    if resume:
        if config is not None or synthetic or set(given) - {"steps"}:
            raise InputError("A run is resumed with its own settings.", hint=f"They stand in {output / CONFIG}.")
        settings = read_settings(output / CONFIG)
    elif config is not None:
        settings = read_settings(config)
    elif synthetic:
        settings = TrainingSettings(
            synthetic=SyntheticSettings(),
            objective=parse_terms({"endpoint": {}, "dice": {"weight": 0.5}, "diffusion": {"weight": 0.05}}),
            licence="Apache-2.0",
        )
    elif "dataset" in given:
        settings = TrainingSettings()
    else:
        raise InputError(
            "There is nothing to train on.", hint="Pass settings (see --init), --dataset FOLDER, or --synthetic."
        )
    if synthetic and settings.synthetic is None:
        settings = settings.replace(synthetic=SyntheticSettings())
    data: dict[str, Any] = {"allow_outside": True} if allow_outside else {}
    for key, name in (("dataset", "dataset"), ("spacing", "spacing_mm")):
        if key in given:
            value = given.pop(key)
            data[name] = value.absolute() if isinstance(value, Path) else value
    if data:
        settings = settings.replace(data=settings.data.replace(**data))
    if patterns := given.pop("tune", None):
        names = [pattern.removeprefix("objective.").removesuffix(".weight") for pattern in patterns]
        tuning = settings.tuning or TuningSettings()
        settings = settings.replace(tuning=tuning.replace(weights=tuple(names)))
    return settings.replace(**given) if given else settings
