"""A training run on disk: what it needs to go on as if nothing had happened, and its model for others."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from warpwise.errors import InputError
from warpwise.io.run_folder import appearing
from warpwise.networks.model import CARD, ModelCard, adopt, read_tensors, write_model

STATE = "optimizer.safetensors"
FORMAT = 1


@dataclass
class Progress:
    """Where a run is, beside its tensors.

    Attributes:
        step: updates done; best, best_step: the best validation score and when; stale: validations since;
        factor: of the learning rate, for plateaus; seconds: spent in all.
    """

    step: int = 0
    best: float = float("-inf")
    best_step: int = 0
    stale: int = 0
    factor: float = 1.0
    seconds: float = 0.0


def save(folder: Path, network: nn.Module, average: Mapping[str, Tensor], optimizer: Optimizer, progress: Progress) -> None:
    """Write weights, their average, and the optimizer's state as one file, which appears whole or not at all."""
    tensors = {f"weights.{k}": v for k, v in network.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.items()}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for n, parameter in enumerate(parameters):
        tensors |= {f"optimizer.{n}.{k}": v for k, v in optimizer.state.get(parameter, {}).items()}
    told = {"format": FORMAT, **{k: (None if v == float("-inf") else v) for k, v in vars(progress).items()}}
    with appearing(folder) as scratch:
        save_file(
            {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()},
            scratch / STATE,
            metadata={"warpwise": json.dumps(told)},
        )


def load(folder: Path, network: nn.Module, optimizer: Optimizer) -> tuple[dict[str, Tensor], Progress]:
    """Put a network and its optimizer back where they were; the average of weights and the rest.

    Raises:
        InputError: the file is damaged, or of another network or version.
    """
    path = folder / STATE
    tensors = read_tensors(path)
    with safe_open(path, framework="pt") as file:
        try:
            told: dict[str, Any] = json.loads((file.metadata() or {}).get("warpwise", "{}"))
        except ValueError:
            told = {}
    if told.pop("format", None) != FORMAT:
        raise InputError(f"{path}: is not the state of a training run of this version.")
    weights = {k.removeprefix("weights."): v for k, v in tensors.items() if k.startswith("weights.")}
    average = {k.removeprefix("average."): v for k, v in tensors.items() if k.startswith("average.")}
    adopt(network, weights, path)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for n, parameter in enumerate(parameters):
        begin = f"optimizer.{n}."
        state = {k.removeprefix(begin): v for k, v in tensors.items() if k.startswith(begin)}
        for name, value in state.items():
            if value.dim() and value.shape != parameter.shape:
                raise InputError(f"{path}: {begin}{name} has shape {tuple(value.shape)}, not {tuple(parameter.shape)}.")
        if state:
            device = parameter.device
            optimizer.state[parameter] = {k: v.to(device) if v.dim() else v for k, v in state.items()}
    best = told.pop("best", None)
    return average, Progress(**told, best=float("-inf") if best is None else best)


def publish(folder: Path, card: ModelCard, weights: Mapping[str, Tensor]) -> None:
    """Write a model for use; the card appears last."""
    with appearing(folder, last=CARD) as scratch:
        write_model(scratch, card, weights)


def exists(folder: Path) -> bool:
    """Whether a run can be resumed from here."""
    return (folder / STATE).exists()
