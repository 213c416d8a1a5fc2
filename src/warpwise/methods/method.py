"""A method: everything about how to register, as one value."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from warpwise.errors import InputError
from warpwise.models import holds_model, installed, written
from warpwise.objective import SolverTerms, solvable
from warpwise.registrars.base import Registrar
from warpwise.registrars.deformable.descent import SVF, Greedy, SymmetricSVF
from warpwise.registrars.deformable.energy import Energy, curved
from warpwise.registrars.deformable.work import ScaleSettings
from warpwise.registrars.learned.settings import Network, Refined
from warpwise.registrars.linear.affine import LinearSettings
from warpwise.regularizers.smoothness import Diffusion
from warpwise.settings import Settings, nearest
from warpwise.similarity.base import Similarity
from warpwise.similarity.learned import LearnedFeatures
from warpwise.tables import Table
from warpwise.terms.term import Terms, parse_terms

FILE, RECORD = "method.yaml", "result.json"
"""What a folder holds whose method has one."""

SCHEMA = 3
"""Of a record, which holds a method; this version reads no other."""

PRESETS = Table(
    "preset",
    {
        "fast": "warpwise.methods.presets:fast",
        "balanced": "warpwise.methods.presets:balanced",
        "accurate": "warpwise.methods.presets:accurate",
        "affine": "warpwise.methods.presets:affine",
        "rigid": "warpwise.methods.presets:rigid",
        "energy": "warpwise.methods.presets:energy",
    },
)
"""Name → function that makes the method."""

REFINING = (
    ScaleSettings(image=1, field=1, iterations=10, step=0.6),
    ScaleSettings(image=0, field=1, iterations=8, radius=4),
    ScaleSettings(image=0, field=0, iterations=10, radius=4),
)
"""What a solver still has to do after a network: down to every voxel, without which it ends below the presets (Dice 0.615
and 0.645 on two pairs of people who select, 0.629 and 0.658 with it; `balanced` 0.632 and 0.654, rougher)."""


class ImageSettings(Settings):
    """How images are made comparable.

    Attributes:
        percentiles: intensities outside are cut: the darkest, and the brightest of what is brighter.
        window: intensities of the file that become darkest and brightest, for example −150 to 250 HU; percentiles then do
            not count.
        bias_field: estimate and divide out slow shading first (N4); the warped image keeps its own intensities.
        channel_weights: importance of the channels, any positive scale; all alike where there are none.
        fit_memory: where memory does not suffice, work on every second or fourth voxel instead of refusing.
    """

    percentiles: tuple[float, float] = (0.5, 99.5)
    window: tuple[float, float] | None = None
    bias_field: bool = False
    channel_weights: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    fit_memory: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> "ImageSettings":
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise InputError(f"percentiles {self.percentiles}: two numbers, 0 ≤ low < high ≤ 100, are needed.")
        if self.window is not None and not self.window[0] < self.window[1]:
            raise InputError(f"window {self.window}: two intensities, low < high, are needed.")
        return self


class Cautious(Settings):
    """What deforms in place of the registrar where images show tissue differently and its field explains too little."""

    registrar: Energy
    smoothness: Diffusion

    def build(self, terms: SolverTerms) -> Registrar:
        """Ready for any pair; similarities without a second derivative, which only stand beside, are left out."""
        kept = tuple(term for term in terms.similarities if curved(term))
        return self.registrar.build(replace(terms, similarities=kept, smoothness=None, diffusion=self.smoothness))


AnyRegistrar = Annotated[Greedy | SVF | SymmetricSVF | Energy | Network | Refined, Field(discriminator="kind")]


def standard_objective(**smoothness: Any) -> Any:
    """Intensities by contrast, labels and landmarks where scans have them; Gaussians, or what is given, for smoothness."""
    smooth = smoothness or {"term": "gaussian"}
    return parse_terms({"similarity": {"term": "auto"}, "labels": {}, "landmarks": {}, "smoothness": smooth})


class Method(Settings):
    """How to register.

    Attributes:
        images: how they are made comparable.
        linear: the rigid or affine stage; none: the images stay as headers (or an initial transform) have them.
        registrar: what deforms; none: nothing does.
        objective: terms by names of one's own; one list, of which each stage reads what it knows. Labels and landmarks
            count where both scans have them; with weight 0 they are only measured.
        cautious: what deforms instead where the evidence is weak (`registrars.deformable.contrast.evidence`).
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
        """A preset, an installed or trained model, a YAML file, or a result (its folder or result.json) to repeat.

        Raises:
            InputError: there is none of this name, or it does not fit.
        """
        if isinstance(name, Method):
            return name
        if not str(name):
            raise InputError("The name of a method is empty.", hint="See: warpwise methods")
        if str(name) in PRESETS:
            return PRESETS[str(name)]()
        path = Path(name)
        known = [*PRESETS, *installed()]
        if str(name) in known or not path.exists():
            if str(name) not in known:
                near = nearest(path.name, known)
                raise InputError(
                    f"{name}: is neither a method ({', '.join(known)}) nor a file or folder that holds one.",
                    hint=near if near.startswith("Did") else "See: warpwise methods",
                )
            return cls.of_model(name)
        if path.is_file() and path.suffix.lower() in (".yaml", ".yml", ".json"):
            return cls.read(path)
        if (path / FILE).is_file():
            return cls.read(path / FILE)
        record = record_of(path)
        if record is not None:
            return cls.read(record)
        if not holds_model(path):
            raise InputError(
                f"{path}: holds no method.", hint="Give a YAML file, or a folder of a result, a model or a training run."
            )
        return cls.of_model(path)

    @classmethod
    def read(cls, path: str | Path) -> "Method":
        """A method from YAML, or from the result.json of a registration, which holds the one it was made by.

        A file that says `base: NAME` holds changes alone. Relative paths in it begin at its folder.

        Raises:
            InputError: it cannot be read, holds none, or is based on itself.
        """
        path = Path(path)
        try:
            rest = anchored(content_of(path), path.absolute().parent)
            base = rest.pop("base", None)
            return cls.parse(rest) if base is None else cls.named(str(base)).merged(rest)
        except RecursionError as error:
            raise InputError(f"{path}: is based on itself.") from error
        except InputError as error:
            raise InputError(f"{path}: {error.message.removeprefix(f'{path}: ')}", hint=error.hint) from error

    @classmethod
    def of_model(cls, model: Any) -> "Method":
        """The method that a trained network is: images are brought to it as its card has it.

        Args:
            model: an installed one's name, a folder, or a `Model`.

        Raises:
            InputError: it cannot be loaded.
        """
        network = Network(model=model)
        card = network.card()
        if card.network.kind == "segmentation":
            raise InputError(
                f"{written(model)}: tells structures apart, and moves nothing.",
                hint=f"Let a solver heed it: --set objective.structures='{{term: features, model: {written(model)}}}'",
            )
        return cls(
            images=ImageSettings(percentiles=card.percentiles),
            linear=None if card.alignment == "none" else LinearSettings(transform=card.alignment),
            registrar=network,
        )

    def refined(self) -> "Method":
        """A network's method, followed by a solver.

        Raises:
            InputError: the method has no network.
        """
        if not isinstance(self.registrar, Network):
            raise InputError(
                "There is nothing to refine without a model.", hint="Name one: --method, for example synthetic."
            )
        solver = Greedy(scales=REFINING)
        cautious = PRESETS["balanced"]().cautious
        return self.replace(registrar=Refined(network=self.registrar, solver=solver), cautious=cautious)

    def similarities(self) -> list[str]:
        """Names of the objective's similarities."""
        return [name for name, term in self.objective.items() if isinstance(term, Similarity)]

    def terms(self) -> SolverTerms:
        """The objective as solvers read it; where none deforms, terms that are for networks alone are left out.

        Raises:
            InputError: a term has no kernel, or there are two of a kind of which solvers take one.
        """
        learned = isinstance(self.registrar, Network)
        return SolverTerms.of({name: term for name, term in self.objective.items() if not learned or solvable(term)})

    def build(self, *, alike: bool = True) -> Registrar | None:
        """The registrar, ready for pairs whose images show tissue alike, or do not; None where nothing deforms.

        Raises:
            InputError: the objective does not fit it, its network cannot be loaded, or there is no such device.
        """
        if self.device == "cuda":
            raise InputError("There are no CUDA kernels in this version.", hint="Use device cpu or auto.")
        terms, registrar = self.terms().settled(alike=alike), self.registrar
        solver = registrar.solver if isinstance(registrar, Refined) else registrar
        smoothness = None if solver is None or isinstance(solver, Network) else solver.smoothness
        terms.check(similarity=smoothness is not None or self.linear is not None, smoothness=smoothness)
        for term in terms.similarities:
            if isinstance(term, LearnedFeatures):
                self._obey(Network(model=term.model))
        if registrar is None:
            return None
        if isinstance(registrar, Network | Refined):
            self._obey(registrar if isinstance(registrar, Network) else registrar.network)
        return registrar.build(terms)

    def _obey(self, network: Network) -> None:
        """Refuse to show a network intensities that were stretched in another way than those it learnt from."""
        card = network.card()
        if self.images.window is not None:
            raise InputError(
                f"images.window {self.images.window}: the model was trained with percentiles {card.percentiles}.",
                hint="Leave the window out.",
            )
        if self.images.percentiles != card.percentiles:
            raise InputError(
                f"images.percentiles {self.images.percentiles}: the model was trained with {card.percentiles}.",
                hint="Leave percentiles out.",
            )

    def __str__(self) -> str:
        return self.yaml()

    def yaml(self) -> str:
        """The method as a text that `named` reads back."""
        import yaml  # noqa: PLC0415 - see `read`

        return yaml.safe_dump(named_first(self.model_dump(mode="json")), sort_keys=False, allow_unicode=True)


def named_first(value: Any) -> Any:
    """Plain data with what a mapping is, its kind or term, before what it has."""
    if isinstance(value, Mapping):
        rows: Mapping[str, Any] = value
        first = [key for key in ("kind", "term") if key in rows]
        return {key: named_first(rows[key]) for key in [*first, *(key for key in rows if key not in first)]}
    return [named_first(one) for one in value] if isinstance(value, list) else value


def content_of(path: Path) -> dict[str, Any]:
    """What a file says of a method, unchecked.

    Raises:
        InputError: it cannot be read, is of another version, or holds none.
    """
    import yaml  # noqa: PLC0415 - presets must not pay for importing it

    try:
        text = path.read_text(encoding="utf-8")
        content: Any = json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({str(error).splitlines()[0]}).") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: is not YAML: {str(error).splitlines()[0]}.") from error
    if isinstance(content, Mapping) and "schema_version" in content:
        if content["schema_version"] != SCHEMA:
            raise InputError(f"{path}: is of version {content['schema_version']}, this program reads {SCHEMA}.")
        content = content.get("method")
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds no method.", hint="Write one with: warpwise methods balanced > FILE")
    return {str(key): value for key, value in content.items()}


def anchored(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The same, where `base` and any `model` that is no known name leads to the same place from everywhere."""
    out: dict[str, Any] = {}
    known = [*PRESETS, *installed()]
    for key, value in content.items():
        if isinstance(value, dict):
            out[key] = anchored(value, folder)
        elif key in ("base", "model") and isinstance(value, str) and value not in known:
            out[key] = str(folder / value)
        else:
            out[key] = value
    return out


def record_of(folder: Path) -> Path | None:
    """The record in a folder that `warpwise register` wrote, under either of its names; None where there is no one."""
    plain = folder / RECORD
    records = [plain] if plain.is_file() else sorted(folder.glob("*_xfm.json"))
    return records[0] if len(records) == 1 else None
