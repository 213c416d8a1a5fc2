"""A trained network with what it needs to be used: a folder of weights.safetensors and model.json."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator, Field, SerializeAsAny
from torch import Tensor, nn

from warpwise.errors import InputError
from warpwise.image import PERCENTILES
from warpwise.models import CARD, PLACES, installed
from warpwise.networks import parse_network
from warpwise.networks.base import NetworkSettings, side_by_side
from warpwise.prediction import Prediction
from warpwise.settings import Settings

WEIGHTS = "weights.safetensors"
FORMAT = 2
READ = (1, 2)


def settings_of(given: Any) -> Any:
    """A network's settings from plain data; settings as they are."""
    return given if isinstance(given, NetworkSettings) else parse_network(given)


AnyNetwork = Annotated[SerializeAsAny[NetworkSettings], BeforeValidator(settings_of)]
"""A field of settings: those of any network, written as a mapping of `kind` and options, or as the name alone."""


class ModelCard(Settings):
    """What is known of a trained network.

    Attributes:
        format: of the folder; this version reads 1 and 2, and writes 2.
        network: what to build, its kind and options; dim, channels: for which images.
        spacing_mm: of the voxels it works on, one number an upright axis.
        alignment: how images are brought together before the network sees them.
        percentiles: between which intensities were stretched to 0 … 1.
        contrast: what it was trained on, in words; any: whether contrasts were random.
        intensities: deciles of the training images' foreground after that, for a comparison with what is given.
        field_mm: extent of the training images.
        licence: of the weights.
        labels: values that a label head predicts, in order.
        training: how it was trained; validation: how well that went.
    """

    format: int = FORMAT
    name: str = ""
    network: AnyNetwork
    dim: int = Field(ge=2, le=3)
    channels: int = Field(default=1, ge=1)
    spacing_mm: tuple[float, ...]
    alignment: Literal["none", "rigid", "affine"] = "affine"
    percentiles: tuple[float, float] = PERCENTILES
    contrast: str = ""
    any_contrast: bool = False
    intensities: tuple[float, ...] = ()
    field_mm: tuple[float, ...] = ()
    licence: str = ""
    labels: tuple[int, ...] = ()
    training: dict[str, Any] = Field(default_factory=dict)
    validation: dict[str, Any] = Field(default_factory=dict)

    def fits(self, channels: int, *, dim: int) -> None:
        """Refuse images that the network cannot take.

        Raises:
            InputError: they differ from it in axes or channels.
        """
        if self.dim != dim:
            raise InputError(f"The model is for {self.dim}-D images; these are {dim}-D.", hint="See: warpwise models")
        if self.channels != channels:
            raise InputError(f"The model takes {self.channels} channels; the images have {channels}.")

    def build(self) -> nn.Module:
        """The network; its weights are not set."""
        return self.network.build(dim=self.dim, channels=self.channels)


@dataclass(frozen=True, eq=False)
class Model:
    """A network ready for use.

    Example:
        >>> import warpwise as ww
        >>> [card.name for card in ww.models()]  # doctest: +SKIP
        ['synthetic']
    """

    card: ModelCard
    network: nn.Module
    path: Path | None = field(default=None)

    @classmethod
    def load(cls, name_or_folder: str | Path, *, device: str = "cpu") -> "Model":
        """An installed model by its name, a model folder, or a training run (its best weights).

        Raises:
            InputError: there is none, or its files are damaged, foreign or of another version.
        """
        folder = find(name_or_folder)
        card = read_card(folder / CARD)
        network = card.build()
        weights = read_tensors(folder / WEIGHTS)
        adopt(network, renamed(weights) if card.network.labels else weights, folder / WEIGHTS)
        network = network.eval().to(device)
        return cls(card, side_by_side(network) if device == "cpu" else network, folder)

    def __call__(self, fixed: Tensor, moving: Tensor, generator: torch.Generator | None = None) -> Prediction:
        """What the network says of images (B, C, *space) at its own spacing."""
        with torch.no_grad():
            return self.network(fixed, moving, generator)


def write_model(folder: Path, card: ModelCard, weights: Mapping[str, Tensor]) -> None:
    """Write both files of a model into a folder that exists."""
    from safetensors.torch import save_file  # noqa: PLC0415 - importing networks must stay cheap

    save_file({k: v.detach().cpu().contiguous() for k, v in weights.items()}, folder / WEIGHTS)
    (folder / WEIGHTS).chmod(0o644)  # safetensors makes it private, the card beside it is not
    (folder / CARD).write_text(json.dumps(card.model_dump(mode="json"), indent=2) + "\n", encoding="utf-8")


def cards() -> list[ModelCard]:
    """What is known of each installed model."""
    return [read_card(folder / CARD).replace(name=name) for name, folder in installed().items()]


def find(name_or_folder: str | Path) -> Path:
    """The folder of a model.

    Raises:
        InputError: there is none.
    """
    known = installed()
    if str(name_or_folder) in known:
        return known[str(name_or_folder)]
    folder = Path(name_or_folder)
    if folder.is_file():
        raise InputError(
            f"{folder}: is a file; a model is a folder with {WEIGHTS} and {CARD}.",
            hint="Pickled weights (.pt, .pth, .ckpt) can run code when they are read, so they are not accepted.",
        )
    for place in PLACES:
        if (folder / place / CARD).is_file():
            return folder / place
    names = ", ".join(known) or "none"
    raise InputError(
        f"{name_or_folder}: is neither an installed model ({names}) nor a folder with {CARD}.",
        hint="List models with: warpwise models",
    )


def read_card(path: Path) -> ModelCard:
    """model.json.

    Raises:
        InputError: it is missing, damaged or of another version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error}).") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no object.")
    if content.get("format") not in READ:
        raise InputError(f"{path}: is of format {content.get('format')}, this version reads 1 and 2.")
    try:
        card = ModelCard.parse(converted(content) if content["format"] == 1 else content)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if len(card.spacing_mm) != card.dim:
        raise InputError(f"{path}: spacing_mm {card.spacing_mm} for {card.dim} axes.")
    return card


def converted(content: Mapping[str, Any]) -> dict[str, Any]:
    """A card of format 1, where a network's name and options stood side by side, in the present one."""
    options = content.get("options", {})
    if not isinstance(options, dict):
        raise InputError(f"options: {options!r} is no object.")
    # The scalar that was called stiffness is a weight of diffusion.
    network = {"diffusion" if key == "stiffness" else key: value for key, value in options.items()}
    rest = {key: value for key, value in content.items() if key != "options"}
    return {**rest, "format": FORMAT, "network": {"kind": content.get("network"), **network}}


def renamed(weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Weights of a network with a head of labels, which format 1 kept inside the body, by their present names."""
    if any(name.startswith("body.") for name in weights):
        return weights
    head = "labels.logits."
    return {
        f"heads.{name[name.index(head) :]}" if head in name else f"body.{name}": tensor for name, tensor in weights.items()
    }


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file.

    Raises:
        InputError: it is missing, truncated, or not such a file.
    """
    from safetensors import SafetensorError  # noqa: PLC0415 - importing networks must stay cheap
    from safetensors.torch import load  # noqa: PLC0415

    if not path.exists():
        raise InputError(f"{path}: no such file.")
    with path.open("rb") as file:
        head = file.read(9)
    # The length of a header, with which safetensors begins, may be written in these bytes, too; a brace follows it.
    if (head[:2] == b"PK" or head[:1] == b"\x80") and head[8:] != b"{":
        raise InputError(
            f"{path}: is a pickle, not safetensors; pickles can run code when they are read.",
            hint="Write it anew with safetensors.torch.save_file.",
        )
    try:
        # Read, not mapped: a mapped file that somebody shortens later kills the process.
        return load(path.read_bytes())
    except (SafetensorError, OSError, ValueError) as error:
        size = path.stat().st_size
        raise InputError(f"{path}: is damaged or cut short ({size} bytes; {error}).") from error


def adopt(network: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Give a network these weights.

    Raises:
        InputError: a tensor is missing, too many, of another shape, or not finite.
    """
    wanted = network.state_dict()
    problems: list[str] = [f"{name} is missing" for name in wanted if name not in weights]
    problems += [f"{name} is not of this network" for name in weights if name not in wanted]
    for name, tensor in weights.items():
        if name in wanted and tensor.shape != wanted[name].shape:
            problems.append(f"{name} has shape {tuple(tensor.shape)}, expected {tuple(wanted[name].shape)}")
        elif not torch.isfinite(tensor).all():
            problems.append(f"{name} holds values that are not finite")
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise InputError(f"{path}: does not fit its {CARD}: {'; '.join(problems[:3])}{more}.")
    network.load_state_dict(dict(weights))


def size(network: nn.Module) -> tuple[int, float]:
    """Number of parameters, and megabytes of them in float32."""
    count = sum(p.numel() for p in network.parameters())
    return count, count * 4 / 1e6


def flops(network: nn.Module, shape: Sequence[int], *, channels: int = 1) -> int:
    """Floating-point operations of one pass over images of this shape: convolutions, matrices and attention."""
    from torch.utils.flop_counter import FlopCounterMode  # noqa: PLC0415 - slow to import

    images = torch.zeros(1, channels, *shape)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(images, images)
    return counter.get_total_flops()
