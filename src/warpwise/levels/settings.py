"""Everything about a training run that a person may set, as one YAML file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, model_validator

from warpwise.data.settings import AugmentationSettings, DataSettings, SyntheticSettings
from warpwise.errors import InputError
from warpwise.levels.tuning_settings import PART, TuningSettings
from warpwise.networks.model import AnyNetwork
from warpwise.networks.probabilistic import FeatureSettings
from warpwise.networks.pyramid import PyramidSettings
from warpwise.networks.segmentation import SegmentationSettings
from warpwise.objective import Objective
from warpwise.settings import Settings
from warpwise.terms.term import Terms, parse_terms


class StepSettings(Settings):
    """How weights move that are judged with others.

    Attributes:
        learning_rate: of Adam, at its highest.
        schedule: constant; or cosine (to 0 at the last step).
        warmup: steps over which the learning rate rises.
        clip: largest norm of the gradient.
    """

    learning_rate: float = Field(default=1e-3, gt=0)
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup: int = Field(default=20, ge=0)
    clip: float = Field(default=1.0, gt=0)


class OptimizerSettings(StepSettings):
    """How weights move that are judged.

    Attributes:
        schedule: also plateau (halved when validation stops getting better).
        patience: validations without a better one before a plateau is called.
        averaging: decay of the average of weights that is validated and kept; 0: the weights themselves.
    """

    schedule: Literal["constant", "cosine", "plateau"] = "cosine"  # type: ignore[assignment] - settings are never written to
    patience: int = Field(default=5, ge=1)
    averaging: float = Field(default=0.99, ge=0, lt=1)


class RegistrationSettings(Settings):
    """The upper level of learning in turns: the registration of features, whose encoder belongs to the lower one.

    Attributes:
        objective: E_D + E_R, what registers features: `feature-energy` and a smoothness.
        optimizer: how its weights move: a cascade's, or the solver's weights of diffusion.
        every: it moves at every so-manieth step; the encoder at each.
        joint: one step of one optimiser for the sum of both objectives instead, to compare with.

    Source: Liu et al., IJCAI 2020.
    """

    objective: Terms = Field(default_factory=lambda: parse_terms({"feature-energy": {}, "diffusion": {"weight": 0.1}}))
    optimizer: StepSettings = StepSettings()
    every: int = Field(default=1, ge=1)
    joint: bool = False


class TrainingSettings(Settings):
    """A training run.

    Attributes:
        network: its settings, `kind` among them, or its name alone.
        objective: terms by name, see `terms.TERMS`.
        registration: a level of its own above the features that a network learns; then `objective` and `optimizer` are
            those of its encoder (and decoder), which learn in turns with it.
        tuning: the objective's weights are learned, too, on people of their own (`data.people`: `tune`).
        steps: updates of the weights.
        batch: pairs a process looks at together; accumulate: such batches an update.
        validate_every: steps between validations; validation_pairs: at most so many (0: all).
        save_every_s: seconds between checkpoints, beside those at every validation.
        precision: 32-true; or bf16-mixed, faster on GPUs and on CPUs that know the type (up to twice); on others it is
            float32 all the same.
        init: a model (name, or folder of one or of a run) whose weights are the first; its network must be this one.
        seed: of weights, pairs and augmentation.
        licence: under which the weights may be used, for the model's card.
    """

    network: AnyNetwork = Field(default_factory=PyramidSettings)
    objective: Terms = Field(default_factory=lambda: parse_terms({"lncc": {"radius": 3}, "diffusion": {"weight": 0.3}}))
    registration: RegistrationSettings | None = None
    tuning: TuningSettings | None = None
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
    init: str = ""
    seed: int = 0
    licence: str = ""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        above = self.registration
        if self.data.crop is not None and self.synthetic is not None:
            raise ValueError("data.crop: made pairs are as large as synthetic.shape says")
        if self.data.crop is not None and isinstance(self.network, SegmentationSettings) and self.network.places:
            raise ValueError("network.places are those in a whole object, and data.crop shows windows")
        terms = {**self.objective, **(above.objective if above else {})}
        apart = [name for name, term in terms.items() if term.row() in ("dice", "segmentation")]
        if self.data.label_codes and apart:
            raise ValueError(f"data.label_codes: {apart[0]!r} needs a channel for each label; the term 'labels' does not")
        if above and not isinstance(self.network, FeatureSettings):
            raise ValueError(f"registration: {self.network.kind!r} has no features to register; features and cascade have")
        if above and above.joint and set(self.objective) & set(above.objective):
            raise ValueError("registration: where both objectives are summed, their terms need names of their own")
        if self.tuning is not None:
            if above or self.synthetic is not None:
                raise ValueError("tuning: is of one objective, on pairs of people; without registration or synthetic pairs")
            opened = self.tuning.opened(self.objective)
            self.tuning.factors(opened)
            self.tuning.check(opened)
            Objective.of(self.tuning.outer)
            if PART not in self.data.people:
                raise InputError(
                    f"data.people: nobody is in {PART!r}.",
                    hint="Tuning needs people who neither train nor select: people: {train: […], select: […], tune: […]}.",
                )
        if self.data.teacher is not None and not any(term.row() == "endpoint" for term in terms.values()):
            raise ValueError("data.teacher: nothing learns from it without a term 'endpoint'")
        return self


def read_settings(path: Path) -> TrainingSettings:
    """Settings from a YAML file; paths in it are relative to its folder.

    Raises:
        InputError: it is missing, is not YAML, or holds what is not known or does not fit.
    """
    settings = TrainingSettings.parse(mapping_of(path))
    changes: dict[str, Any] = {}
    for key in ("dataset", "atlas"):
        given = getattr(settings.data, key)
        if given is not None and not given.is_absolute():
            changes[key] = (path.parent / given).resolve()
    if settings.data.teacher is not None:
        method = beside(path, settings.data.teacher.method)
        changes["teacher"] = settings.data.teacher.replace(method=method)
    data = settings.data.replace(**changes) if changes else settings.data
    return settings.replace(data=data, init=beside(path, settings.init))


def mapping_of(path: Path) -> dict[str, Any]:
    """What a YAML file says.

    Raises:
        InputError: it is missing, is not YAML, or holds no settings.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}).") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: is not YAML: {str(error).splitlines()[0]}.") from error
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds no settings.", hint="Write one with: warpwise train --init FILE --dataset FOLDER")
    rows: Mapping[Any, Any] = content
    return {str(key): value for key, value in rows.items()}


def yaml_of(settings: Settings) -> str:
    """Settings as the text that is read back."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def beside(path: Path, name: str) -> str:
    """A name, or where it leads from the folder of a file if it leads anywhere."""
    place = path.parent / name
    return str(place.resolve()) if name and place.exists() else name
