"""A method: everything about how to register, as one value."""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, model_validator

from warpwise.errors import InputError
from warpwise.objective import SolverTerms
from warpwise.registrars.base import Registrar
from warpwise.registrars.deformable.descent import SVF, Greedy, SymmetricSVF
from warpwise.registrars.deformable.work import DescentSettings
from warpwise.registrars.learned.settings import Network, Refined
from warpwise.registrars.linear.affine import LinearSettings
from warpwise.regularizers.gaussian import Gaussian
from warpwise.settings import Settings
from warpwise.terms.term import Terms, parse_terms


class ImageSettings(Settings):
    """How images are made comparable.

    Attributes:
        percentiles: intensities outside are cut: the darkest, and the brightest of what is brighter.
        bias_field: estimate and divide out slow shading first (N4); the warped image keeps its own intensities.
        channel_weights: importance of the channels, any positive scale; all alike where there are none.
        fit_memory: where memory does not suffice, work on every second or fourth voxel instead of refusing.
    """

    percentiles: tuple[float, float] = (0.5, 99.5)
    bias_field: bool = False
    channel_weights: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    fit_memory: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> "ImageSettings":
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise InputError(f"percentiles {self.percentiles}: two numbers, 0 ≤ low < high ≤ 100, are needed.")
        return self


class Cautious(Settings):
    """What a solver does where the images do not show tissue alike (`linear.contrast`): steps have the same length
    whatever the evidence, so weak evidence gets smooth, short ones."""

    descent: DescentSettings
    smoothness: Gaussian


AnyRegistrar = Annotated[Greedy | SVF | SymmetricSVF | Network | Refined, Field(discriminator="kind")]


def standard_objective() -> Any:
    """Intensities by contrast, labels and landmarks where the scans have them, Gaussians for smoothness."""
    return parse_terms({"similarity": {"term": "auto"}, "labels": {}, "landmarks": {}, "smoothness": {"term": "gaussian"}})


class Method(Settings):
    """How to register.

    Attributes:
        images: how they are made comparable.
        linear: the rigid or affine stage; none: the images stay as headers (or an initial transform) have them.
        registrar: what deforms; none: nothing does.
        objective: terms by names of one's own; one list, of which each stage reads what it knows. Labels and landmarks
            count where both scans have them; with weight 0 they are only measured.
        cautious: what changes for images of different contrast.
        device: auto, cpu or cuda.

    Example:
        >>> Method.named("balanced").changed({"objective.similarity": {"term": "mi"}}).objective["similarity"].bins
        32
    """

    images: ImageSettings = ImageSettings()
    linear: LinearSettings | None = LinearSettings()
    registrar: AnyRegistrar | None = None
    objective: Terms = Field(default_factory=standard_objective)
    cautious: Cautious | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @classmethod
    def named(cls, name: "str | Path | Method") -> "Method":
        """A preset, an installed or trained model, a YAML file, or a folder or result.json that holds one.

        Raises:
            InputError: there is none of this name, or it does not fit.
        """
        from warpwise.methods.named import method_named  # noqa: PLC0415 - presets are made of methods

        return name if isinstance(name, Method) else method_named(name)

    def terms(self) -> SolverTerms:
        """The objective as solvers read it.

        Raises:
            InputError: a term has no kernel, or what a solver needs is not there.
        """
        return SolverTerms.of(self.objective)

    def build(self, *, alike: bool = True) -> Registrar | None:
        """The registrar, ready for pairs whose images show tissue alike, or do not; None where nothing deforms.

        Raises:
            InputError: the objective does not fit it, its network cannot be loaded, or there is no such device.
        """
        if self.device == "cuda":
            raise InputError("There are no CUDA kernels in this version.", hint="Use device cpu or auto.")
        terms, registrar = self.terms().settled(alike=alike), self.registrar
        if registrar is None:
            return None
        if alike or self.cautious is None or isinstance(registrar, Network):
            return registrar.build(terms)
        terms = terms.smoothed(self.cautious.smoothness)
        slow = self.cautious.descent.model_dump()
        if isinstance(registrar, Refined):
            return registrar.replace(solver={"kind": registrar.solver.kind, **slow}).build(terms)
        return type(registrar).parse({"kind": registrar.kind, **slow}).build(terms)

    def yaml(self) -> str:
        """The method as a text that `named` reads back."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
