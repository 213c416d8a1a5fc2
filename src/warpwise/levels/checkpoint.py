"""A run on disk: what its levels need to go on as if nothing had happened, as one file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import Optimizer

from warpwise.errors import InputError
from warpwise.io.run_folder import appearing
from warpwise.networks.model import read_tensors

STATE = "state.safetensors"
FORMAT = 2

Plain = float | int | str | bool | None
State = Mapping[str, Tensor | Plain]
"""What a level is made of at a moment: tensors, and numbers that JSON can hold."""


def save(folder: Path, states: Mapping[str, State], progress: Mapping[str, Any]) -> None:
    """Write the state of every level, and how far the run is; the file appears whole or not at all.

    Args:
        states: by the level's name, which holds no dot.
        progress: of the loop, as JSON can hold it.
    """
    tensors = {f"{name}.{k}": v for name, state in states.items() for k, v in state.items() if isinstance(v, Tensor)}
    plain = {name: {k: v for k, v in state.items() if not isinstance(v, Tensor)} for name, state in states.items()}
    content = {"format": FORMAT, "progress": dict(progress), "levels": plain}
    with appearing(folder) as scratch:
        save_file(
            {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()},
            scratch / STATE,
            metadata={"warpwise": json.dumps(content)},
        )


def load(folder: Path) -> tuple[dict[str, State], dict[str, Any]]:
    """The state of every level by its name, and the loop's progress.

    Raises:
        InputError: the file is damaged, or not of this version.
    """
    path = folder / STATE
    tensors = read_tensors(path)
    with safe_open(path, framework="pt") as file:
        try:
            content: Any = json.loads((file.metadata() or {}).get("warpwise", "{}"))
        except ValueError:
            content = {}
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path}: is not the state of a training run of this version.")
    levels, progress = content.get("levels"), content.get("progress")
    if not isinstance(levels, dict) or not isinstance(progress, dict):
        raise InputError(f"{path}: is damaged: it says nothing of levels or progress.")
    states: dict[str, State] = {}
    for name, plain in levels.items():
        states[name] = plain | {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}
    return states, progress


def exists(folder: Path) -> bool:
    """Whether a run can be resumed from here."""
    return (folder / STATE).exists()


def part(state: State, name: str) -> dict[str, Tensor]:
    """The tensors of a state that stand under `name.`, without it."""
    prefix = f"{name}."
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix) and isinstance(v, Tensor)}


def under(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under `name.`."""
    return {f"{name}.{k}": v for k, v in tensors.items()}


def adopt(variables: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Give variables the values that were saved of them, in place.

    Raises:
        InputError: one is missing, too many, of another shape, or not finite.
    """
    problems = [f"{name} is missing" for name in variables if name not in values]
    for name, value in values.items():
        if name not in variables:
            problems.append(f"{name} is not known")
        elif value.shape != variables[name].shape:
            problems.append(f"{name} has shape {tuple(value.shape)}, expected {tuple(variables[name].shape)}")
        elif not torch.isfinite(value).all():
            problems.append(f"{name} holds values that are not finite")
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise InputError(f"{'; '.join(problems[:3])}{more}.")
    with torch.no_grad():
        for name, variable in variables.items():
            variable.copy_(values[name])


def moments(optimizer: Optimizer) -> dict[str, Tensor]:
    """What an optimizer remembers of every parameter, by the parameter's number."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return {f"{n}.{k}": v for n, p in enumerate(parameters) for k, v in optimizer.state.get(p, {}).items()}


def remember(optimizer: Optimizer, values: Mapping[str, Tensor]) -> None:
    """Give an optimizer its memory back.

    Raises:
        InputError: it is of other parameters.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for n, parameter in enumerate(parameters):
        state = part(values, str(n))
        for name, value in state.items():
            if value.dim() and value.shape != parameter.shape:
                raise InputError(f"optimizer.{n}.{name} has shape {tuple(value.shape)}, not {tuple(parameter.shape)}.")
        if state:
            # In the parameter's order of memory, by which sums are rounded.
            optimizer.state[parameter] = {
                k: torch.empty_like(parameter, dtype=v.dtype).copy_(v) if v.shape == parameter.shape and v.dim() else v
                for k, v in state.items()
            }
