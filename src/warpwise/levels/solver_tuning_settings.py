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
from warpwise.regularizers.smoothness import Diffusion
from warpwise.settings import Settings
from warpwise.similarity.base import Similarity
from warpwise.terms.term import Term

OUTER = ("dice", "labels", "budget")
"""What U may hold beside similarities: what is known of a displacement without a network."""


class Moves(TuningSettings):
    """How weights of a solver's energy move: `TuningSettings`, with numbers for few and expensive steps.

    `windows`, `warmup`, `every`, `damping`, `rate` and `check_every` are of networks, and the estimator is the implicit
    gradient at the solver's stationary point, by conjugate gradients of at most `iterations`.
    """

    learning_rate: float = Field(default=0.2, gt=0)
    warmup: int = Field(default=0, ge=0, le=0)
    iterations: int = Field(default=30, ge=1)
    patience: int = Field(default=20, ge=10)


class SolverTuningSettings(Settings):
    """The weights of an energy that its solver minimises, learned from people whose labels are known.

    Attributes:
        method: what is tuned: a preset, a file, or settings (with `base`: changes of those); its registrar is `energy`.
        tuning: which weights, of similarities and of the diffusion, by what they are judged, and how they move.
        data: from whom it is learned.
        steps: of the weights, each of which registers `tuning.batch` pairs.
        newton_steps: at most so many after the solver has ended, for the gradient belongs to a stationary point.
        labels_at_once: so many labels, drawn at random, are looked at in a step.
        seed: of pairs and labels.
    """

    method: str | dict[str, Any] = "energy"
    tuning: Moves = Moves()
    data: StudyData
    steps: int = Field(default=60, ge=1)
    newton_steps: int = Field(default=10, ge=0)
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
        method.build()
        if self.tuning.windows:
            raise InputError("tuning.windows: are of networks; list several similarities with radii, and tuning.shares.")
        if self.tuning.estimator not in ("one-step", "conjugate-gradient"):  # the first is what nobody chose
            raise InputError("tuning.estimator: a solver's is the implicit gradient, by conjugate gradients.")
        odd = [n for n, t in self.tuning.outer.items() if t.row() not in OUTER and not isinstance(t, Similarity)]
        if odd:
            raise InputError(f"tuning.outer: {odd[0]} is for networks.", hint=f"Known: {', '.join(OUTER)}, similarities.")
        objective = self.terms
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

    def settled(self) -> "SolverTuningSettings":
        """The same with the method whole, and the dataset where it lies."""
        data = self.data.replace(dataset=self.data.dataset.absolute())
        return self.replace(method=self.base().model_dump(mode="json"), data=data)

    @property
    def terms(self) -> dict[str, Term]:
        """What may be tuned: the similarities and the diffusion that count, in their order."""
        terms = self.base().objective.items()
        mixed = {*self.tuning.shares}
        counts = {name: term for name, term in terms if term.weight > 0 or name in mixed}
        return {name: term for name, term in counts.items() if isinstance(term, Similarity | Diffusion)}

    @property
    def names(self) -> tuple[str, ...]:
        """The similarities that count, in their order."""
        return tuple(name for name, term in self.terms.items() if isinstance(term, Similarity))


def read_solver_tuning(path: Path) -> SolverTuningSettings:
    """Settings from a YAML file; paths in it are relative to its folder.

    Raises:
        InputError: it is missing, is not YAML, or holds what is not known or does not fit.
    """
    content = mapping_of(path)
    data = StudyData.parse(content["data"]) if isinstance(content.get("data"), dict) else None
    return SolverTuningSettings.parse({**content, **settled_paths(path, content.get("method"), data)})
