"""One differentiable operator out of a reference and its kernels."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from warpwise.shapes import Array

Forward = Callable[..., tuple[Array | tuple[Array, ...], object]]
Backward = Callable[..., Sequence[Array | None]]


def kernels_serve(tensors: Iterable[Tensor | None]) -> bool:
    """Whether kernels compute on these tensors: on float32 on a CPU, unless a program is being exported, which must hold
    operators that others have. The one place where this is decided.
    """
    present = [t for t in tensors if t is not None]
    return not torch.compiler.is_compiling() and all(t.dtype == torch.float32 and t.device.type == "cpu" for t in present)


@dataclass(frozen=True)
class Operation:
    """A function of tensors: kernels where `kernels_serve`, everything else the reference.

    If a graph is being built in backward, the reference is differentiated, so second derivatives are right: a kernel's
    backward is a constant to autograd.

    Attributes:
        reference: (*tensors, **options) → tensor, or a tuple of them, in plain PyTorch.
        forward: (*arrays, **options) → the value, and whatever backward wants to keep; arrays have the tensors' shapes,
            None where a tensor is None.
        backward: (*arrays, gradient, kept, needs, **options) → a gradient for each array, None where it needs none. It is
            of operators with one value, and left to the reference where it is None.
    """

    reference: Callable[..., Any]
    _: KW_ONLY
    forward: Forward
    backward: Backward | None = None

    def __call__(self, *tensors: Tensor | None, **options: Any) -> Any:
        """The operator's value; tensors that are not needed may be None."""
        if not kernels_serve(tensors):
            return self.reference(*tensors, **options)
        return _Function.apply(self, options, *tensors)


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, operation: Operation, options: dict[str, Any], *tensors: Tensor | None) -> Any:
        value, ctx.kept = operation.forward(*_arrays(tensors), **options)
        ctx.operation, ctx.options = operation, options
        ctx.present = [t is not None for t in tensors]
        ctx.save_for_backward(*[t for t in tensors if t is not None])
        return tuple(_tensor(v) for v in value) if isinstance(value, tuple) else _tensor(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        operation: Operation = ctx.operation
        saved = iter(ctx.saved_tensors)
        tensors: list[Tensor | None] = [next(saved) if present else None for present in ctx.present]
        needs: list[bool] = list(ctx.needs_input_grad[2:])
        if torch.is_grad_enabled() or operation.backward is None:
            return (None, None, *_differentiate(operation.reference, tensors, needs, gradients, ctx.options))
        (gradient,) = _arrays(gradients)
        by = operation.backward(*_arrays(tensors), gradient=gradient, kept=ctx.kept, needs=needs, **ctx.options)
        return (None, None, *[None if g is None else _tensor(g) for g in by])


def _arrays(tensors: Iterable[Tensor | None]) -> list[Array | None]:
    return [None if t is None else t.detach().contiguous().numpy() for t in tensors]


def _tensor(array: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def _differentiate(
    reference: Callable[..., Any],
    tensors: Sequence[Tensor | None],
    needs: Sequence[bool],
    gradients: Sequence[Tensor],
    options: dict[str, Any],
) -> list[Tensor | None]:
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        # A view is a tensor of its own: an input that is given twice gets the gradient of each place.
        copies = [t if t is None else (t.view_as(t) if again else t.detach().requires_grad_(need))
                  for t, need in zip(tensors, needs, strict=True)]  # fmt: skip
        out = reference(*copies, **options)
        outputs = out if isinstance(out, tuple) else (out,)
        wanted = [c for c, need in zip(copies, needs, strict=True) if need and c is not None]
        # unused: the field of a nearest-neighbour warp, which has no slope
        by = iter(torch.autograd.grad(outputs, wanted, gradients, create_graph=again, allow_unused=True))
    return [next(by) if need and c is not None else None for c, need in zip(copies, needs, strict=True)]
