"""Hypergradients: how an upper loss changes with upper variables when lower variables answer by minimising a lower loss.

    dU/dλ = ∂U/∂λ + (dω/dλ)ᵀ·∂U/∂ω        exactly: dω/dλ = −[∂²L/∂ω²]⁻¹·∂²L/∂ω∂λ

Every level above 0 needs it: ω may be a network's weights, or a displacement that a solver found. An estimator says how
the lower variables answer, and pulls ∂U/∂ω back through that answer:

- `OneStep`: they make one more step. Cheap; what the published systems use.
- `Unrolled`: they make K steps, all of which are stored.
- `Neumann`, `ConjugateGradient`: they stand at a stationary point, however they came there; nothing is stored of the way.

These stand in `levels/estimators.py`.

Second derivatives need care: those of a linear warp mean nothing (kinks at voxel centres). Give a lower loss that samples
with cubic B-splines, or give the estimator a `GaussNewton` product; `OneStep(mixed="difference")` needs first derivatives
only.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from warpwise.errors import InputError

Variables = Mapping[str, Tensor]
Loss = Callable[[Variables, Variables], Tensor]
"""(lower variables, upper variables) → 0-dim."""
Found = list[Tensor | None]
"""Gradients by the upper variables, in their order; None where nothing depends on one."""
Pull = Callable[[list[Tensor]], Found]
"""∂U/∂ω, in the order of the lower variables → what it adds to dU/dλ."""
Product = Callable[[list[Tensor]], list[Tensor]]
"""v ↦ H·v."""


@dataclass(frozen=True, eq=False)
class Problem:
    """A lower loss where it stands; both kinds of variables are leaves that want gradients."""

    loss: Loss
    lower: dict[str, Tensor]
    upper: dict[str, Tensor]

    @classmethod
    def at(cls, loss: Loss, lower: Variables, upper: Variables) -> "Problem":
        """At copies of these variables."""
        return cls(loss, leaves(lower), leaves(upper))

    def slope(self, lower: Variables | None = None, *, create_graph: bool = False) -> list[Tensor]:
        """∂L/∂ω.

        Raises:
            InputError: the lower loss does not depend on one of the lower variables.
        """
        at = self.lower if lower is None else lower
        return needed(self.loss(at, self.upper), at, "lower loss", create_graph=create_graph)

    def mixed(self, vector: Sequence[Tensor]) -> Found:
        """(∂²L/∂ω∂λ)ᵀ·vector, by differentiating twice."""
        return perhaps(total(self.slope(create_graph=True), vector), self.upper)

    def differenced(self, vector: Sequence[Tensor], epsilon: float) -> Found:
        """The same, by a central difference of ∂L/∂λ over a step of length `epsilon` along the vector."""
        length = norm(vector)
        if length == 0:
            return [torch.zeros_like(t) for t in self.upper.values()]
        step = epsilon / length
        ends: list[Found] = []
        for sign in (1, -1):
            at = {k: (w + sign * step * v).detach() for (k, w), v in zip(self.lower.items(), vector, strict=True)}
            ends.append(perhaps(self.loss(at, self.upper), self.upper))
        return [None if a is None or b is None else (a - b) / (2 * step) for a, b in zip(*ends, strict=True)]

    def hessian(self) -> Product:
        """v ↦ ∂²L/∂ω²·v, by differentiating twice."""
        slopes = self.slope(create_graph=True)

        def product(vector: list[Tensor]) -> list[Tensor]:
            found = perhaps(total(slopes, vector), self.lower, retain=True)
            return [torch.zeros_like(v) if h is None else h for h, v in zip(found, vector, strict=True)]

        return product


class Estimator(Protocol):
    """How lower variables answer to upper ones."""

    def respond(self, problem: Problem) -> tuple[dict[str, Tensor], Pull]:
        """The lower variables that the upper loss is to look at, and how a gradient is pulled back through them."""
        ...


def hypergradient(
    upper_loss: Loss, lower_loss: Loss, lower_variables: Variables, upper_variables: Variables, *, estimator: Estimator
) -> dict[str, Tensor]:
    """dU/dλ of every upper variable λ, the direct term ∂U/∂λ included.

    Args:
        upper_loss, lower_loss: functions of (lower variables, upper variables), 0-dim. The upper one need not depend on
            the upper variables, nor the lower one on all of them.
        lower_variables: where they stand: before the step for `OneStep` and `Unrolled`, at a minimum of the lower loss for
            the others.

    Example:
        >>> from warpwise.levels.estimators import ConjugateGradient
        >>> lower = lambda w, l: 0.5 * ((w["w"] - 1) ** 2).sum() + 0.5 * l["l"] * (w["w"] ** 2).sum()
        >>> upper = lambda w, l: (w["w"] ** 2).sum()
        >>> at = {"w": torch.tensor([0.5])}, {"l": torch.tensor(1.0)}  # w* = 1/(1 + l), dU/dl = −2/(1 + l)³
        >>> hypergradient(upper, lower, *at, estimator=ConjugateGradient(3))
        {'l': tensor(-0.2500)}

    Raises:
        InputError: a loss does not depend on a lower variable, or neither does on an upper one.

    Sources: Lorraine et al., AISTATS 2020; Liu et al. (DARTS), ICLR 2019, for the one-step form.
    """
    problem = Problem.at(lower_loss, lower_variables, upper_variables)
    answer, pull = estimator.respond(problem)
    lower, upper = leaves(answer), problem.upper
    value = upper_loss(lower, upper)
    slopes = needed(value, lower, "upper loss", retain=True)
    direct = perhaps(value, upper)
    out: dict[str, Tensor] = {}
    for name, one, other in zip(upper, direct, pull(slopes), strict=True):
        if one is None and other is None:
            raise InputError(f"Neither loss depends on the upper variable {name}.")
        out[name] = sum((part.detach() for part in (one, other) if part is not None), torch.zeros_like(upper[name]))
    return out


def stationary(
    solve: Callable[[Variables], Variables], lower_loss: Loss, upper_variables: Variables, *, estimator: Estimator
) -> dict[str, Tensor]:
    """What a solver answers to upper variables, as a function that autograd can differentiate.

    So a registration can stand in the middle of a graph: features or weights of an objective → the displacement that a
    solver finds → any loss. Nothing of the solver's way is stored; it may be any program.

    Args:
        solve: upper variables (without gradients) → lower variables, at a stationary point of the lower loss.
        estimator: how the lower variables answer; `Neumann` or `ConjugateGradient`.

    Example:
        >>> from warpwise.levels.estimators import ConjugateGradient
        >>> l = torch.tensor(1.0, requires_grad=True)
        >>> lower = lambda w, u: 0.5 * ((w["w"] - 1) ** 2).sum() + 0.5 * u["l"] * (w["w"] ** 2).sum()
        >>> w = stationary(lambda u: {"w": 1 / (1 + u["l"])}, lower, {"l": l}, estimator=ConjugateGradient(3))["w"]
        >>> float(torch.autograd.grad(w**2, l)[0])
        -0.25

    Source: Bai et al., NeurIPS 2019; for registration Jena et al., Medical Image Analysis 2025.
    """
    with torch.no_grad():
        found = solve({k: v.detach() for k, v in upper_variables.items()})
    answer = _Stationary.apply(lower_loss, estimator, found, [*upper_variables], *upper_variables.values())
    return dict(zip(found, answer, strict=True))


class _Stationary(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: Loss, estimator: Estimator, found: Variables, names: list[str], *upper: Tensor) -> Any:
        ctx.loss, ctx.estimator, ctx.names, ctx.lower_names = loss, estimator, names, [*found]
        ctx.save_for_backward(*found.values(), *upper)
        return tuple(v.clone() for v in found.values())

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        count = len(ctx.lower_names)
        lower = dict(zip(ctx.lower_names, ctx.saved_tensors[:count], strict=True))
        upper = dict(zip(ctx.names, ctx.saved_tensors[count:], strict=True))
        with torch.enable_grad():
            _, pull = ctx.estimator.respond(Problem.at(ctx.loss, lower, upper))
            found = pull([*gradients])
        return (None, None, None, None, *found)


def leaves(variables: Variables) -> dict[str, Tensor]:
    """Copies that want gradients and remember nothing."""
    return {k: v.detach().clone().requires_grad_() for k, v in variables.items()}


def needed(
    value: Tensor, variables: Variables, what: str, *, create_graph: bool = False, retain: bool = False
) -> list[Tensor]:
    """Gradients that must be there.

    Raises:
        InputError: the value does not depend on a variable.
    """
    # unused: looked at right below, to say which variable it is
    found: list[Tensor | None] = [None] * len(variables)
    if value.requires_grad:
        wanted = [*variables.values()]
        keep = retain or create_graph
        found = [*torch.autograd.grad(value, wanted, create_graph=create_graph, retain_graph=keep, allow_unused=True)]
    missing = [name for name, gradient in zip(variables, found, strict=True) if gradient is None]
    if missing:
        raise InputError(f"The {what} does not depend on {', '.join(missing)}.")
    return [g for g in found if g is not None]


def perhaps(value: Tensor, variables: Variables, *, retain: bool = False) -> Found:
    """Gradients; None where the value does not depend on a variable: an upper loss need not look at upper variables."""
    if not value.requires_grad:
        return [None] * len(variables)
    # unused: whoever asks looks for None
    return [*torch.autograd.grad(value, [*variables.values()], retain_graph=retain, allow_unused=True)]


def total(slopes: Sequence[Tensor], vector: Sequence[Tensor]) -> Tensor:
    """Their inner product over all variables, with its graph."""
    return torch.stack([(s * v).sum() for s, v in zip(slopes, vector, strict=True)]).sum()


def inner(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """Inner product over all variables."""
    return sum(float((x.detach() * y.detach()).sum()) for x, y in zip(a, b, strict=True))


def norm(vector: Sequence[Tensor]) -> float:
    """Length over all variables."""
    return inner(vector, vector) ** 0.5
