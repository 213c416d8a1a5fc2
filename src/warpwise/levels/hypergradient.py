"""Hypergradients: how an outer loss changes with outer variables when inner ones answer by minimising an inner loss.

    dU/dλ = ∂U/∂λ + (dω/dλ)ᵀ·∂U/∂ω        exactly: dω/dλ = −[∂²L/∂ω²]⁻¹·∂²L/∂ω∂λ

Every level above 0 needs it: ω may be a network's weights, or a displacement that a solver found. An estimator says how
the inner variables answer, and pulls ∂U/∂ω back through that answer:

- `OneStep`: they make one more step. Cheap; what the published systems use.
- `Unrolled`: they make K steps, all of which are stored.
- `Neumann`, `ConjugateGradient`: they stand at a stationary point, however they came there; nothing is stored of the way.

These stand in `levels/estimators.py`. Losses are functions of (outer, inner). Liu et al. (IJCAI 2020) call the registration
their upper level and the features the lower one; here a registration is the inner of the two.

Second derivatives need care: those of a linear warp mean nothing (kinks at voxel centres). Give an inner loss that samples
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
"""(outer variables, inner variables) → 0-dim."""
Gradients = list[Tensor | None]
"""Gradients by the outer variables, in their order; None where nothing depends on one."""
Pull = Callable[[list[Tensor]], Gradients]
"""∂U/∂ω, in the order of the inner variables → what it adds to dU/dλ."""
Product = Callable[[list[Tensor]], list[Tensor]]
"""v ↦ H·v."""


@dataclass(frozen=True, eq=False)
class Problem:
    """An inner loss where it stands; both kinds of variables are leaves that want gradients.

    Attributes:
        lenient: whether an inner variable on which the loss does not depend has a slope of 0, or is an error.
    """

    loss: Loss
    outer: dict[str, Tensor]
    inner: dict[str, Tensor]
    lenient: bool = False

    @classmethod
    def at(cls, loss: Loss, outer: Variables, inner: Variables, *, lenient: bool = False) -> "Problem":
        """At copies of these variables."""
        return cls(loss, leaves(outer), leaves(inner), lenient)

    def slope(self, inner: Variables | None = None, *, create_graph: bool = False) -> list[Tensor]:
        """∂L/∂ω.

        Raises:
            InputError: the inner loss does not depend on one of the inner variables.
        """
        at = self.inner if inner is None else inner
        value = self.loss(self.outer, at)
        return needed(value, at, "inner loss", create_graph=create_graph, lenient=self.lenient)

    def mixed(self, vector: Sequence[Tensor]) -> Gradients:
        """(∂²L/∂ω∂λ)ᵀ·vector, by differentiating twice."""
        return perhaps(total(self.slope(create_graph=True), vector), self.outer)

    def differenced(self, vector: Sequence[Tensor], epsilon: float) -> Gradients:
        """The same, by a central difference of ∂L/∂λ over a step of length `epsilon` along the vector."""
        length = norm(vector)
        if length == 0:
            return [torch.zeros_like(t) for t in self.outer.values()]
        step = epsilon / length
        ends: list[Gradients] = []
        for sign in (1, -1):
            at = {k: (w + sign * step * v).detach() for (k, w), v in zip(self.inner.items(), vector, strict=True)}
            ends.append(perhaps(self.loss(self.outer, at), self.outer))
        return [None if a is None or b is None else (a - b) / (2 * step) for a, b in zip(*ends, strict=True)]

    def hessian(self) -> Product:
        """v ↦ ∂²L/∂ω²·v, by differentiating twice."""
        slopes = self.slope(create_graph=True)

        def product(vector: list[Tensor]) -> list[Tensor]:
            products = perhaps(total(slopes, vector), self.inner, retain=True)
            return [torch.zeros_like(v) if h is None else h for h, v in zip(products, vector, strict=True)]

        return product


class Estimator(Protocol):
    """How inner variables answer to outer ones."""

    def respond(self, problem: Problem) -> tuple[dict[str, Tensor], Pull]:
        """The inner variables that the outer loss is to look at, and how a gradient is pulled back through them."""
        ...


def hypergradient(
    outer_loss: Loss,
    inner_loss: Loss,
    outer_variables: Variables,
    inner_variables: Variables,
    *,
    estimator: Estimator,
    lenient: bool = False,
) -> dict[str, Tensor]:
    """dU/dλ of every outer variable λ, the direct term ∂U/∂λ included.

    Args:
        outer_loss, inner_loss: functions of (outer variables, inner variables), 0-dim. The outer one need not depend on
            the outer variables, nor the inner one on all of them.
        inner_variables: where they stand: before the step for `OneStep` and `Unrolled`, at a minimum of the inner loss for
            the others.
        lenient: whether losses may leave inner variables out, as a loss without noise leaves out what makes noise.

    Example:
        >>> from warpwise.levels.estimators import ConjugateGradient
        >>> inner = lambda l, w: 0.5 * ((w["w"] - 1) ** 2).sum() + 0.5 * l["l"] * (w["w"] ** 2).sum()
        >>> outer = lambda l, w: (w["w"] ** 2).sum()
        >>> at = {"l": torch.tensor(1.0)}, {"w": torch.tensor([0.5])}  # w* = 1/(1 + l), dU/dl = −2/(1 + l)³
        >>> hypergradient(outer, inner, *at, estimator=ConjugateGradient(3))
        {'l': tensor(-0.2500)}

    Raises:
        InputError: a loss does not depend on an inner variable, or neither does on an outer one.

    Sources: Lorraine et al., AISTATS 2020; Liu et al. (DARTS), ICLR 2019, for the one-step form.
    """
    problem = Problem.at(inner_loss, outer_variables, inner_variables, lenient=lenient)
    answer, pull = estimator.respond(problem)
    outer, inner = problem.outer, leaves(answer)
    value = outer_loss(outer, inner)
    slopes = needed(value, inner, "outer loss", retain=True, lenient=lenient)
    direct = perhaps(value, outer)
    out: dict[str, Tensor] = {}
    for name, one, other in zip(outer, direct, pull(slopes), strict=True):
        if one is None and other is None:
            raise InputError(f"Neither loss depends on the outer variable {name}.")
        out[name] = sum((part.detach() for part in (one, other) if part is not None), torch.zeros_like(outer[name]))
    return out


def stationary(
    solve: Callable[[Variables], Variables], inner_loss: Loss, outer_variables: Variables, *, estimator: Estimator
) -> dict[str, Tensor]:
    """What a solver answers to outer variables, as a function that autograd can differentiate.

    So a registration can stand in the middle of a graph: features or weights of an objective → the displacement that a
    solver finds → any loss. Nothing of the solver's way is stored; it may be any program.

    Args:
        solve: outer variables (without gradients) → inner variables, at a stationary point of the inner loss.
        estimator: how the inner variables answer; `Neumann` or `ConjugateGradient`.

    Example:
        >>> from warpwise.levels.estimators import ConjugateGradient
        >>> l = torch.tensor(1.0, requires_grad=True)
        >>> inner = lambda u, w: 0.5 * ((w["w"] - 1) ** 2).sum() + 0.5 * u["l"] * (w["w"] ** 2).sum()
        >>> w = stationary(lambda u: {"w": 1 / (1 + u["l"])}, inner, {"l": l}, estimator=ConjugateGradient(3))["w"]
        >>> float(torch.autograd.grad(w**2, l)[0])
        -0.25

    Source: Bai et al., NeurIPS 2019; for registration Jena et al., Medical Image Analysis 2025.
    """
    with torch.no_grad():
        solution = solve({k: v.detach() for k, v in outer_variables.items()})
    answer = _Stationary.apply(inner_loss, estimator, solution, [*outer_variables], *outer_variables.values())
    return dict(zip(solution, answer, strict=True))


class _Stationary(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: Loss, estimator: Estimator, solution: Variables, names: list[str], *outer: Tensor) -> Any:
        ctx.loss, ctx.estimator, ctx.names, ctx.inner_names = loss, estimator, names, [*solution]
        ctx.save_for_backward(*solution.values(), *outer)
        return tuple(v.clone() for v in solution.values())

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        count = len(ctx.inner_names)
        inner = dict(zip(ctx.inner_names, ctx.saved_tensors[:count], strict=True))
        outer = dict(zip(ctx.names, ctx.saved_tensors[count:], strict=True))
        with torch.enable_grad():
            _, pull = ctx.estimator.respond(Problem.at(ctx.loss, outer, inner))
            pulled = pull([*gradients])
        return (None, None, None, None, *pulled)


def leaves(variables: Variables) -> dict[str, Tensor]:
    """Copies that want gradients and remember nothing."""
    return {k: v.detach().clone().requires_grad_() for k, v in variables.items()}


def needed(
    value: Tensor,
    variables: Variables,
    what: str,
    *,
    create_graph: bool = False,
    retain: bool = False,
    lenient: bool = False,
) -> list[Tensor]:
    """Gradients that must be there, or are 0.

    Raises:
        InputError: the value does not depend on a variable, or, where it need not on each, on any.
    """
    # unused: looked at right below, to say which variable it is
    slopes: list[Tensor | None] = [None] * len(variables)
    if value.requires_grad:
        wanted = [*variables.values()]
        keep = retain or create_graph
        slopes = [*torch.autograd.grad(value, wanted, create_graph=create_graph, retain_graph=keep, allow_unused=True)]
    missing = [name for name, gradient in zip(variables, slopes, strict=True) if gradient is None]
    if lenient and len(missing) < len(variables):
        return [torch.zeros_like(v) if g is None else g for v, g in zip(variables.values(), slopes, strict=True)]
    if missing:
        raise InputError(f"The {what} does not depend on {', '.join(missing)}.")
    return [g for g in slopes if g is not None]


def perhaps(value: Tensor, variables: Variables, *, retain: bool = False) -> Gradients:
    """Gradients; None where the value does not depend on a variable: an outer loss need not look at outer variables."""
    if not value.requires_grad:
        return [None] * len(variables)
    # unused: whoever asks looks for None
    return [*torch.autograd.grad(value, [*variables.values()], retain_graph=retain, allow_unused=True)]


def total(slopes: Sequence[Tensor], vector: Sequence[Tensor]) -> Tensor:
    """Their inner product over all variables, with its graph."""
    return torch.stack([(s * v).sum() for s, v in zip(slopes, vector, strict=True)]).sum()


def dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """Inner product over all variables."""
    return sum(float((x.detach() * y.detach()).sum()) for x, y in zip(a, b, strict=True))


def norm(vector: Sequence[Tensor]) -> float:
    """Length over all variables."""
    return dot(vector, vector) ** 0.5
