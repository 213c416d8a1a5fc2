"""What a person may set of a solver's objective that tunes itself, as one YAML file."""

from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from warpwise.errors import InputError
from warpwise.levels.settings import mapping_of
from warpwise.levels.study_settings import StudyData, method_of, settled_paths
from warpwise.levels.tuning_settings import TuningSettings
from warpwise.methods import Method
from warpwise.objective import Objective
from warpwise.registrars.deformable.energy import Energy
from warpwise.settings import Settings
from warpwise.similarity.base import Similarity


class SolverTuningSettings(Settings):
    """The weights of an energy that its solver minimises, learned from people whose labels are known.

    Attributes:
        method: what is tuned: a preset, a file, or settings (with `base`: changes of those); its registrar is `energy`.
        tuning: which weights, by what they are judged, and how they move. Its estimator is the implicit gradient at the
            solver's stationary point, by conjugate gradients of at most `iterations`; `every`, `damping` and `rate` are of
            networks.
        data: from whom it is learned.
        steps: of the weights; each registers `tuning.batch` pairs.
        newton_steps: at most so many after the solver has ended, for the gradient belongs to a stationary point.
        labels_at_once: so many labels, drawn at random, are looked at in a step.
        seed: of pairs and labels.
    """

    method: str | dict[str, Any] = "energy"
    tuning: TuningSettings = TuningSettings(learning_rate=0.1, warmup=0, iterations=30)
    data: StudyData
    steps: int = Field(default=60, ge=1)
    newton_steps: int = Field(default=6, ge=0)
    labels_at_once: int = Field(default=16, ge=1)
    seed: int = 0

    @model_validator(mode="after")
    def _fits(self) -> Self:
        method = self.base()
        if not isinstance(method.registrar, Energy):
            kind = "none" if method.registrar is None else method.registrar.kind
            raise InputError(
                f"method: its registrar is {kind!r}; a gradient by λ exists where a solver ends at a stationary point.",
                hint="Take registrar: {kind: energy}, or look for settings by trying them: warpwise search.",
            )
        if self.tuning.windows:
            raise InputError("tuning.windows: are of networks; list several similarities with radii, and tune.shares.")
        if self.tuning.estimator not in ("one-step", "conjugate-gradient"):  # the first is what nobody chose
            raise InputError("tuning.estimator: a solver's is the implicit gradient, by conjugate gradients.")
        objective = dict(method.objective)
        self.tuning.factors(objective)
        self.tuning.check(objective)
        Objective.of(self.tuning.outer)
        return self

    def base(self) -> Method:
        """The method that is tuned.

        Raises:
            InputError: it cannot be read.
        """
        return method_of(self.method)

    @property
    def names(self) -> tuple[str, ...]:
        """The similarities that count, in their order."""
        terms = self.base().objective.items()
        return tuple(name for name, term in terms if isinstance(term, Similarity) and term.weight > 0)


def read_solver_tuning(path: Path) -> SolverTuningSettings:
    """Settings from a YAML file; paths in it are relative to its folder.

    Raises:
        InputError: it is missing, is not YAML, or holds what is not known or does not fit.
    """
    settings = SolverTuningSettings.parse(mapping_of(path))
    changes = settled_paths(path, settings.method, settings.data)
    return settings.replace(**changes) if changes else settings
