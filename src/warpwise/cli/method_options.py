"""The options by which any verb is told how to register: a method, and names for paths into it."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from warpwise.registrars.deformable import MOTIONS
from warpwise.registrars.linear import TRANSFORMS
from warpwise.terms import SIMILARITIES

if TYPE_CHECKING:
    from warpwise.methods import Method

Paths = Mapping[str, Any]

Transform = StrEnum("Transform", {name: name for name in (*TRANSFORMS, *MOTIONS)})
Measure = StrEnum("Measure", {name: name for name in SIMILARITIES})


class Device(StrEnum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


@dataclass(frozen=True)
class Flag:
    """A name for a path into a method.

    Attributes:
        kind: what typer reads; None stands for "as the method has it".
        paths: value, method → what is changed in it.
        form: how its value is written, where typer does not say it well.
    """

    kind: Any
    help: str
    paths: "Callable[[Any, Method], Paths]"
    form: str | None = None


def to(path: str) -> "Callable[[Any, Method], Paths]":
    """A flag that is nothing but a short name."""
    return lambda value, method: {path: value}  # noqa: ARG005


def transform_paths(kind: str, method: "Method") -> Paths:
    """What may move: a linear stage alone, or the field of a solver.

    Raises:
        InputError: the method is a network, whose motion is its own.
    """
    from warpwise.errors import InputError

    present = "" if method.registrar is None else method.registrar.kind
    learned = present in ("network", "refined")
    if learned and (kind in TRANSFORMS or present == "network"):
        raise InputError(f"A model predicts a deformation; transform is {kind!r}.", hint="Leave one of both out.")
    if method.registrar is None and kind not in TRANSFORMS:
        raise InputError(f"The method deforms nothing, so {kind!r} does not fit it.", hint="Begin with --method balanced.")
    if kind in TRANSFORMS:
        return {
            "registrar": None,
            **({"linear": {"transform": kind}} if method.linear is None else {"linear.transform": kind}),
        }
    return {"registrar.solver.kind" if learned else "registrar.kind": kind}


def similarity_paths(name: str, method: "Method") -> Paths:
    """Another similarity in place of the one that there is.

    Raises:
        InputError: there is none, or more than one.
    """
    from warpwise.errors import InputError

    present = method.similarities()
    if len(present) != 1:
        raise InputError(
            f"The method has {len(present)} similarities ({', '.join(present) or 'none'}).",
            hint="Say which, for example: --set objective.NAME.term=mi",
        )
    return {f"objective.{present[0]}.term": name}


def seed_paths(seed: int, method: "Method") -> Paths:
    """Of the samples of a network; solvers draw nothing."""
    present = "" if method.registrar is None else method.registrar.kind
    return {"network": {"registrar.seed": seed}, "refined": {"registrar.network.seed": seed}}.get(present, {})


FLAGS: dict[str, Flag] = {
    "transform": Flag(Transform, "What may move: registrar.kind, or linear.transform alone.", transform_paths),
    "similarity": Flag(Measure, "How images are compared: objective.similarity.", similarity_paths),
    "label_weight": Flag(float, "objective.labels.weight; 0 only measures the overlap.", to("objective.labels.weight")),
    "landmark_weight": Flag(float, "objective.landmarks.weight; 0 only measures.", to("objective.landmarks.weight")),
    "percentiles": Flag(
        tuple[float, float], "images.percentiles: intensities outside are cut.", to("images.percentiles"), "LOW HIGH"
    ),
    "window": Flag(tuple[float, float], "images.window: intensities that become 0 and 1.", to("images.window"), "LOW HIGH"),
    "bias_field": Flag(bool, "images.bias_field: remove slow shading first (N4).", to("images.bias_field")),
    "fit_memory": Flag(bool, "images.fit_memory: where memory is short, work on fewer voxels.", to("images.fit_memory")),
    "seed": Flag(int, "registrar.seed: of a network's samples; solvers draw nothing.", seed_paths),
    "device": Flag(Device, "Where to compute.", to("device")),
}

METHOD_HELP = (
    "fast, balanced, accurate, energy, affine, rigid, a model, a YAML file, or a result to repeat; see: warpwise methods."
)
SET_HELP = "Change anything in the method, for example registrar.cap=0.3; may be repeated."


@dataclass(frozen=True)
class Asked:
    """What was asked on a command line, not yet read: help must not pay for it."""

    names: tuple[str, ...]
    refine: bool
    sets: tuple[str, ...]
    flags: Mapping[str, Any]

    def method(self, default: str = "balanced") -> "Method":
        """The one method.

        Raises:
            InputError: it is not known, or a value does not fit.
        """
        from warpwise.errors import InputError

        if len(self.names) > 1:
            raise InputError(
                f"One method is needed, not {' and '.join(self.names)}.", hint="--preset and --model name methods."
            )
        return next(iter(self.methods(default).values()))

    def methods(self, default: str = "balanced") -> "dict[str, Method]":
        """All methods that were named; with `refine`, those of networks also followed by a solver.

        Raises:
            InputError: one is not known, or a value does not fit.
        """
        from warpwise.errors import InputError
        from warpwise.methods import Method

        out: dict[str, Method] = {}
        for name in self.names or (default,):
            method = Method.named(name)
            if not self.refine or method.registrar is None or method.registrar.kind != "network":
                out[name] = self._changed(method)
                continue
            if len(self.names) > 1:
                out[name] = self._changed(method)
            out[f"{name}, refined"] = self._changed(method.refined())
        if self.refine and not any(name.endswith(", refined") for name in out):
            raise InputError(
                "There is nothing to refine without a model.", hint="Name one: --method, for example synthetic."
            )
        return out

    def _changed(self, method: "Method") -> "Method":
        import yaml

        from warpwise.errors import InputError

        for name, value in self.flags.items():
            if value is None:
                continue
            plain = value.value if isinstance(value, StrEnum) else list(value) if isinstance(value, tuple) else value
            try:
                method = method.changed(FLAGS[name].paths(plain, method))
            except InputError as error:
                raise InputError(f"--{name.replace('_', '-')}: {error.message}", hint=error.hint) from error
        for word in self.sets:
            path, sign, text = word.partition("=")
            if not sign:
                raise InputError(f"--set {word}: PATH=VALUE is needed.")
            try:
                value = yaml.safe_load(text)
            except (yaml.YAMLError, ValueError) as error:
                raise InputError(f"--set {word}: the value is not YAML.") from error
            try:
                method = method.changed({path: value})
            except InputError as error:
                raise InputError(f"--set {error.message}", hint=error.hint) from error
        return method


def method_options(*, several: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A verb that takes `asked: Asked`, as one with these options instead.

    Args:
        several: whether more than one method can be named; the names for paths are then left out.
    """

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        def option(*names: str, **settings: Any) -> Any:
            return typer.Option(*names, show_default=False, **settings)

        names = option("--method", "--preset", "--model", help=METHOD_HELP)
        added: dict[str, tuple[Any, Any]] = {
            "method": (Annotated[list[str] | None, names], None),
            "set_": (Annotated[list[str] | None, option("--set", metavar="PATH=VALUE", help=SET_HELP)], None),
            "refine": (Annotated[bool, option("--refine", help="Let a solver go on from what a network says.")], False),
        }
        for name, flag in () if several else FLAGS.items():
            switch = f"--{name.replace('_', '-')}"
            added[name] = (Annotated[flag.kind | None, option(switch, help=flag.help, metavar=flag.form)], None)
        parameters = [p for p in inspect.signature(verb).parameters.values() if p.name != "asked"]
        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters = [p.replace(kind=keyword) for p in parameters]
        made = [
            inspect.Parameter(name, keyword, default=default, annotation=kind) for name, (kind, default) in added.items()
        ]
        needed = [p for p in parameters if p.default is inspect.Parameter.empty]
        parameters = [*needed, *made, *(p for p in parameters if p not in needed)]

        def run(**values: Any) -> None:
            own = {name: values.pop(name) for name in added}
            word, sets, refine = own.pop("method"), own.pop("set_"), own.pop("refine")
            named = tuple(word or ())
            flags = {name: value for name, value in own.items() if value is not None and value is not False}
            verb(**values, asked=Asked(named, refine, tuple(sets or ()), flags))

        run.__name__, run.__doc__ = verb.__name__, verb.__doc__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate
