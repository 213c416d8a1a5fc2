"""Everything about a training run that a person may set, as one YAML file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from warpwise.data.settings import AugmentationSettings, DataSettings, SyntheticSettings
from warpwise.errors import InputError
from warpwise.networks.model import AnyNetwork
from warpwise.networks.pyramid import PyramidSettings
from warpwise.settings import Settings
from warpwise.terms.term import Terms, parse_terms


class OptimizerSettings(Settings):
    """How weights move.

    Attributes:
        learning_rate: of Adam, at its highest.
        schedule: constant; cosine (to 0 at the last step); plateau (halved when validation stops getting better).
        warmup: steps over which the learning rate rises.
        patience: validations without a better one before a plateau is called.
        clip: largest norm of the gradient.
        averaging: decay of the average of weights that is validated and kept; 0: the weights themselves.
    """

    learning_rate: float = Field(default=1e-3, gt=0)
    schedule: Literal["constant", "cosine", "plateau"] = "cosine"
    warmup: int = Field(default=20, ge=0)
    patience: int = Field(default=5, ge=1)
    clip: float = Field(default=1.0, gt=0)
    averaging: float = Field(default=0.99, ge=0, lt=1)


class TrainingSettings(Settings):
    """A training run.

    Attributes:
        network: its settings, `kind` among them, or its name alone.
        objective: terms by name, see `terms.TERMS`.
        steps: updates of the weights.
        batch: pairs a process looks at together; accumulate: such batches an update.
        validate_every: steps between validations; validation_pairs: at most so many (0: all).
        save_every_s: seconds between checkpoints, beside those at every validation.
        precision: 32-true; or bf16-mixed, faster on GPUs and on CPUs that know the type (twice, on whole brains).
        seed: of weights, pairs and augmentation.
        licence: under which the weights may be used, for the model's card.
    """

    network: AnyNetwork = Field(default_factory=PyramidSettings)
    objective: Terms = Field(default_factory=lambda: parse_terms({"lncc": {"radius": 3}, "diffusion": {"weight": 0.3}}))
    data: DataSettings = DataSettings()
    synthetic: SyntheticSettings | None = None
    augmentation: AugmentationSettings = AugmentationSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    steps: int = Field(default=2000, ge=1)
    batch: int = Field(default=2, ge=1)
    accumulate: int = Field(default=1, ge=1)
    validate_every: int = Field(default=200, ge=1)
    validation_pairs: int = Field(default=12, ge=0)
    save_every_s: float = Field(default=60.0, gt=0)
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    seed: int = 0
    licence: str = ""


def read_settings(path: Path) -> TrainingSettings:
    """Settings from a YAML file; paths in it are relative to its folder.

    Raises:
        InputError: it is missing, is not YAML, or holds what is not known or does not fit.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}).") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: is not YAML: {str(error).splitlines()[0]}.") from error
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds no settings.", hint="Write one with: warpwise train --init FILE --dataset FOLDER")
    settings = TrainingSettings.parse(content)
    changes: dict[str, Any] = {}
    for key in ("dataset", "atlas"):
        given = getattr(settings.data, key)
        if given is not None and not given.is_absolute():
            changes[key] = (path.parent / given).resolve()
    return settings.replace(data=settings.data.replace(**changes)) if changes else settings
