"""An objective: named terms, each with a weight; one list, which solvers and networks both read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from warpwise import ops
from warpwise.errors import InputError
from warpwise.regularizers.gaussian import Gaussian
from warpwise.regularizers.smoothness import Diffusion
from warpwise.similarity.auto import settled
from warpwise.similarity.base import Similarity
from warpwise.similarity.label import LabelOverlap
from warpwise.similarity.landmarks import Landmarks
from warpwise.terms.term import Loss, Term

if TYPE_CHECKING:
    from torch import Tensor

    from warpwise.alignment import Alignment

Evaluation = Callable[["Alignment"], "Tensor"]


@dataclass(frozen=True, eq=False)
class Objective:
    """Σ weight · term on tensors; a weight may be a number or a 0-dim tensor that is itself learned.

    Raises:
        InputError: a term has no weight, or a weight no term.
    """

    terms: Mapping[str, Evaluation]
    weights: Mapping[str, "float | Tensor"]

    def __post_init__(self) -> None:
        if not self.terms:
            raise InputError("An objective needs at least one term.")
        if set(self.terms) != set(self.weights):
            odd = sorted(set(self.terms) ^ set(self.weights))
            raise InputError(f"Terms and weights must have the same names; {', '.join(odd)} stands alone.")

    @classmethod
    def of(cls, terms: Mapping[str, Term]) -> "Objective":
        """From what a person wrote.

        Example:
            >>> from warpwise.terms.term import parse_terms
            >>> Objective.of(parse_terms({"lncc": {}, "half": {"term": "lncc", "scale": 1, "weight": 0.3}})).weights
            {'lncc': 1.0, 'half': 0.3}

        Raises:
            InputError: there is no term, or one that is for solvers alone.
        """
        evaluations: dict[str, Evaluation] = {}
        for name, term in terms.items():
            if not isinstance(term, Loss) or (isinstance(term, Similarity) and not term.trains):
                raise InputError(
                    f"Term {name!r} ({term.row()}) is for solvers alone; nothing can be trained by it.",
                    hint="Smoothness of networks: diffusion or bending." if isinstance(term, Gaussian) else "",
                )
            evaluations[name] = term
        return cls(evaluations, {name: term.weight for name, term in terms.items()})

    def values(self, alignment: "Alignment") -> "dict[str, Tensor]":
        """Every term by itself; images and displacement are warped once for all terms of a stage, halved once for a scale.

        Raises:
            InputError: a term looks at a stage that there is not.
        """
        seen: dict[int | None, list[Alignment]] = {None: [alignment]}
        out: dict[str, Tensor] = {}
        for name, term in self.terms.items():
            stage, scale = (term.stage, term.scale) if isinstance(term, Loss) else (None, 0)
            if stage not in seen:
                assert stage is not None
                seen[stage] = [staged(alignment, stage)]
            scales = seen[stage]
            while len(scales) <= scale:
                scales.append(halved(scales[-1]))
            out[name] = term(scales[scale])
        return out

    def total(self, values: "Mapping[str, Tensor]") -> "Tensor":
        """The weighted sum of terms, 0-dim."""
        parts = [self.weights[name] * value for name, value in values.items()]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total  # type: ignore[return-value] - a weight times a tensor is a tensor

    def __call__(self, alignment: "Alignment") -> "Tensor":
        """The weighted sum, 0-dim."""
        return self.total(self.values(alignment))


def halved(alignment: "Alignment") -> "Alignment":
    """Every second voxel after a Gaussian of σ 0.7; displacements in voxels of the new grid. Predictions stay; what was not
    warped is left out."""
    halve = [n > 1 for n in alignment.fixed.shape[2:]]

    def half(x: "Tensor | None", scale: float = 1.0) -> Any:
        if x is None:
            return None
        return scale * ops.gaussian(x, sigma_voxels=[0.7 * h for h in halve], stride=[1 + h for h in halve])

    return replace(
        alignment,
        fixed=half(alignment.fixed),
        warped=half(alignment.warped),
        displacement=half(alignment.displacement, 0.5),
        mask=half(alignment.mask),
        fixed_labels=half(alignment.fixed_labels),
        warped_labels=half(alignment.warped_labels),
        truth=half(alignment.truth, 0.5),
        moving=None,
        moving_labels=None,
    )


def staged(alignment: "Alignment", stage: int) -> "Alignment":
    """What was known after a stage of a network, 1 the first: images and labels moved by that, and its features alone.

    Raises:
        InputError: there is no such stage.
    """
    from warpwise.ops.nodes import on_voxels  # noqa: PLC0415 - settings are read without torch

    prediction = alignment.prediction
    stages = () if prediction is None else prediction.stages
    if prediction is None or alignment.moving is None or not 1 <= stage <= len(stages):
        raise InputError(
            f"A term looks at stage {stage}, and the network has {len(stages) or 'none'}.",
            hint="Stages belong to a cascade of one round.",
        )
    there = stages[stage - 1]
    displacement = on_voxels(there.displacement, alignment.fixed.shape[2:], octave=there.octave)
    features = prediction.features
    if features is not None:
        features = features._replace(octaves=tuple(one for one in features.octaves if one.octave == there.octave))
    labels = alignment.moving_labels
    return replace(
        alignment,
        warped=ops.warp(alignment.moving, displacement),
        warped_labels=None if labels is None else ops.warp(labels, displacement),
        displacement=displacement,
        prediction=prediction._replace(displacement=displacement, velocity=there.velocity, features=features),
    )


SOLVABLE = (Similarity, LabelOverlap, Landmarks, Gaussian, Diffusion)


def solvable(term: Term) -> bool:
    """Whether solvers have a kernel for a term."""
    return isinstance(term, SOLVABLE) and (not isinstance(term, Similarity) or term.fusable)


@dataclass(frozen=True)
class SolverTerms:
    """An objective as solvers read it: what their kernels compute.

    Attributes:
        similarities: those of a weight above 0; the others: None where the objective has none, or with weight 0.
    """

    similarities: tuple[Similarity, ...]
    smoothness: Gaussian | None = None
    diffusion: Diffusion | None = None
    labels: LabelOverlap | None = None
    landmarks: Landmarks | None = None

    @classmethod
    def of(cls, terms: Mapping[str, Term]) -> "SolverTerms":
        """From what a person wrote.

        Raises:
            InputError: a term has no kernel, or there are two of a kind of which solvers take one.
        """
        parts: dict[type[Term], dict[str, Term]] = {kind: {} for kind in SOLVABLE}
        for name, term in terms.items():
            kind = next((kind for kind in parts if isinstance(term, kind)), None)
            if kind is None or not solvable(term):
                what = f"{term.row()}, faithful" if kind is not None else term.row()
                raise InputError(
                    f"Term {name!r} ({what}) has no kernel, so a solver cannot minimise it.",
                    hint="Solvers know auto, lncc, ncc, mse, mi, mind, labels, landmarks, gaussian and diffusion.",
                )
            if isinstance(term, Loss) and term.stage is not None:
                raise InputError(f"Term {name!r}: stage {term.stage}; stages are a network's.")
            if isinstance(term, Loss) and term.scale:
                raise InputError(
                    f"Term {name!r}: scale {term.scale}; a solver looks at every term at each of its own scales."
                )
            if isinstance(term, Diffusion) and term.of != "displacement":
                raise InputError(f"Term {name!r}: of {term.of}; a solver smooths the displacement.")
            if term.weight > 0:
                parts[kind][name] = term
        similarities = [term for term in parts[Similarity].values() if isinstance(term, Similarity)]
        for kind in (Gaussian, Diffusion, LabelOverlap, Landmarks):
            if len(parts[kind]) > 1:
                raise InputError(f"Terms {' and '.join(parts[kind])} are of one kind; a solver takes one of it.")
        smoothness, diffusion, labels, landmarks = (
            next(iter(parts[kind].values()), None) for kind in (Gaussian, Diffusion, LabelOverlap, Landmarks)
        )
        assert diffusion is None or isinstance(diffusion, Diffusion)
        assert smoothness is None or isinstance(smoothness, Gaussian)
        assert labels is None or isinstance(labels, LabelOverlap)
        assert landmarks is None or isinstance(landmarks, Landmarks)
        return cls(tuple(similarities), smoothness, diffusion, labels, landmarks)

    def check(self, *, similarity: bool, smoothness: str | None) -> None:
        """Refuse to begin without what will be needed, or with another smoothness.

        Args:
            similarity: whether one is needed; smoothness: which term a solver can minimise, if it needs one.

        Raises:
            InputError: it is not there.
        """
        if similarity and not self.similarities:
            raise InputError(
                "A solver needs a similarity of a weight above 0.", hint="For example similarity: {term: auto}."
            )
        present = {"gaussian": self.smoothness, "diffusion": self.diffusion}
        for name, other in (("gaussian", "greedy"), ("diffusion", "energy")):
            if smoothness and name != smoothness and present[name] is not None:
                raise InputError(
                    f"Smoothness {name!r} is not what this solver minimises, which is {smoothness!r}.",
                    hint=f"Set its term, or a registrar of kind {other}.",
                )
        if smoothness and present[smoothness] is None:
            raise InputError("A solver needs a smoothness.", hint=f"For example smoothness: {{term: {smoothness}}}.")

    @property
    def leading(self) -> Similarity:
        """The similarity of the largest weight.

        Raises:
            InputError: there is none.
        """
        self.check(similarity=True, smoothness=None)
        return max(self.similarities, key=lambda term: term.weight)

    @property
    def gaussian(self) -> Gaussian:
        """The smoothness.

        Raises:
            InputError: there is none.
        """
        self.check(similarity=False, smoothness="gaussian")
        assert self.smoothness is not None
        return self.smoothness

    def settled(self, *, alike: bool) -> "SolverTerms":
        """The same for images that show tissue alike, or do not."""
        return replace(self, similarities=tuple(settled(term, alike=alike) for term in self.similarities))
