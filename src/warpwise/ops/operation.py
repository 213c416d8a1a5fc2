"""One differentiable operator out of a reference and its kernels."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

Arrays = list[Any]


@dataclass(frozen=True)
class Kernels:
    """CPU kernels of one operator, on float32 arrays of the tensors' shapes (None where a tensor is None).

    Attributes:
        forward: (arrays, options) → outputs, and whatever backward wants to find again.
        backward: (arrays, kept, gradients of the outputs, which inputs need one, options) → gradients of the inputs
            (None where not needed); None where it is left to the reference.
    """

    forward: Callable[[Arrays, dict[str, Any]], tuple[tuple[Any, ...], Any]]
    backward: Callable[[Arrays, Any, Arrays, list[bool], dict[str, Any]], Arrays] | None = None


@dataclass(frozen=True)
class Operation:
    """A function of tensors: float32 on a CPU runs the kernels, everything else the reference.

    If a graph is being built in backward, the reference is differentiated, so second derivatives are right: a kernel's
    backward is a constant to autograd.
    """

    reference: Callable[..., Any]
    kernels: Kernels | None = None

    def __call__(self, *tensors: Tensor | None, **options: Any) -> Any:
        """The operator's value; tensors that are not needed may be None."""
        present = [t for t in tensors if t is not None]
        fast = all(t.dtype == torch.float32 and t.device.type == "cpu" for t in present)
        fast = fast and not torch.compiler.is_compiling()  # an exported program must hold operators others have
        if self.kernels is None or not fast:
            return self.reference(*tensors, **options)
        return _Function.apply(self, options, *tensors)


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, operation: Operation, options: dict[str, Any], *tensors: Tensor | None) -> Any:
        assert operation.kernels is not None
        outputs, kept = operation.kernels.forward(_arrays(tensors), options)
        ctx.operation, ctx.options, ctx.kept = operation, options, kept
        ctx.present = [t is not None for t in tensors]
        ctx.save_for_backward(*[t for t in tensors if t is not None])
        found = [torch.from_numpy(np.ascontiguousarray(out)) for out in outputs]
        return tuple(found) if len(found) > 1 else found[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        operation, options = ctx.operation, ctx.options
        saved = iter(ctx.saved_tensors)
        tensors = [next(saved) if present else None for present in ctx.present]
        needs: list[bool] = list(ctx.needs_input_grad[2:])
        if torch.is_grad_enabled() or operation.kernels.backward is None:
            return (None, None, *_differentiate(operation.reference, tensors, needs, gradients, options))
        found = operation.kernels.backward(_arrays(tensors), ctx.kept, _arrays(gradients), needs, options)
        return (None, None, *[None if g is None else torch.from_numpy(np.ascontiguousarray(g)) for g in found])


def _arrays(tensors: Any) -> Arrays:
    return [None if t is None else t.detach().contiguous().numpy() for t in tensors]


def _differentiate(
    reference: Callable[..., Any],
    tensors: list[Tensor | None],
    needs: list[bool],
    gradients: tuple[Tensor, ...],
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
        found = iter(torch.autograd.grad(outputs, wanted, gradients, create_graph=again, allow_unused=True))
    return [next(found) if need and c is not None else None for c, need in zip(copies, needs, strict=True)]
