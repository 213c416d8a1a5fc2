"""How inner variables answer to outer ones: the estimators of `levels/hypergradient.py`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from warpwise.errors import InputError, RunError
from warpwise.levels.hypergradient import Gradients, Loss, Problem, Product, Pull, dot, norm, perhaps, total
from warpwise.tables import Table

ESTIMATORS = Table(
    "hypergradient estimator",
    {
        "one-step": "warpwise.levels.estimators:OneStep",
        "unrolled": "warpwise.levels.estimators:Unrolled",
        "neumann": "warpwise.levels.estimators:Neumann",
        "conjugate-gradient": "warpwise.levels.estimators:ConjugateGradient",
    },
)


CLIP_EPSILON = 1e-6  # that PyTorch adds to a norm before it divides by it

Curvature = Callable[[Problem], Product]
"""What stands for the Hessian of the inner loss, at a problem's variables; `Problem.hessian` is the Hessian itself."""


Transpose = Callable[[list[Tensor]], list[Tensor]]
"""v ↦ (∂ω⁺/∂slope)ᵀ·v, of a step from ω to ω⁺."""


@dataclass(frozen=True)
class Descent:
    """A plain gradient step; the rate is a number, or one tensor a variable."""

    rate: float | Mapping[str, Tensor]

    def __call__(self, problem: Problem, slopes: Sequence[Tensor]) -> tuple[dict[str, Tensor], Transpose]:
        """Inner variables after the step, and how a vector there is pulled back to their slopes."""
        rates = [
            torch.full_like(w, self.rate) if isinstance(self.rate, int | float) else self.rate[k]
            for k, w in problem.inner.items()
        ]
        moved = {k: (w - r * s).detach() for (k, w), r, s in zip(problem.inner.items(), rates, slopes, strict=True)}
        return moved, lambda vector: [-r * v for r, v in zip(rates, vector, strict=True)]


@dataclass(frozen=True, eq=False)
class AdamStep:
    """The step that an Adam optimizer would make next, without making it.

    Attributes:
        optimizer: its parameters are the inner variables, in their order; moments and step count are read from it.
        clip: largest norm of all slopes together, as `torch.nn.utils.clip_grad_norm_` has it; None: they are as they are.
    """

    optimizer: torch.optim.Adam
    clip: float | None = None

    def __call__(self, problem: Problem, slopes: Sequence[Tensor]) -> tuple[dict[str, Tensor], Transpose]:
        """Inner variables after the step, and how a vector there is pulled back to their slopes.

        Raises:
            InputError: the optimizer has other parameters, or decays or amplifies in ways that are not differentiated.
        """
        groups = self.optimizer.param_groups
        owners = [(p, group) for group in groups for p in group["params"]]
        if len(owners) != len(problem.inner):
            raise InputError(f"The optimizer has {len(owners)} parameters, the problem {len(problem.inner)} variables.")
        if any(group["weight_decay"] or group["amsgrad"] for group in groups):
            raise InputError("AdamStep knows neither weight_decay nor amsgrad.")
        length = norm(slopes)
        scale = 1.0 if self.clip is None else min(1.0, self.clip / (length + CLIP_EPSILON))
        clipped = [scale * slope for slope in slopes]
        moved: dict[str, Tensor] = {}
        rates: list[Tensor] = []
        for (name, w), slope, (owner, group) in zip(problem.inner.items(), clipped, owners, strict=True):
            state: Any = self.optimizer.state.get(owner, {})
            zero = torch.zeros_like(w)
            count = int(state.get("step", 0)) + 1
            b1, b2 = group["betas"]
            first = b1 * state.get("exp_avg", zero) + (1 - b1) * slope
            second = b2 * state.get("exp_avg_sq", zero) + (1 - b2) * slope**2
            one, two = 1 - b1**count, 1 - b2**count
            root = (second / two).sqrt()
            size = root + group["eps"]
            moved[name] = (w - group["lr"] * first / one / size).detach()
            bend = torch.where(root > 0, (1 - b2) * slope / two / root.clamp(min=1e-30), zero)
            rate = group["lr"] / one * ((1 - b1) / size - first * bend / size**2)
            rates.append(torch.where(root > 0, rate, zero).detach())  # in a fresh state without a slope it has none either

        def transpose(vector: list[Tensor]) -> list[Tensor]:
            adam = [-r * v for r, v in zip(rates, vector, strict=True)]
            if scale == 1.0:
                return adam
            # Of s(g)·g with s = c/(‖g‖ + ε), whose slope is along g: s·(v − g·(gᵀv)/(‖g‖·(‖g‖ + ε))).
            along = dot(slopes, adam) / (length * (length + CLIP_EPSILON))
            return [scale * (v - along * slope.detach()) for v, slope in zip(adam, slopes, strict=True)]

        return moved, transpose


@dataclass(frozen=True)
class OneStep:
    """The inner variables make one more step.

    Attributes:
        update: that step: `Descent(rate)`, or `AdamStep(optimizer)` where weights are trained with Adam. The published
            systems differentiate a plain step although they make Adam's.
        mixed: difference: from two first derivatives, so it may stand on linear warps; or exact.
        epsilon: length of the difference.
    """

    update: Descent | AdamStep
    mixed: Literal["difference", "exact"] = "difference"
    epsilon: float = 0.01

    def respond(self, problem: Problem) -> tuple[dict[str, Tensor], Pull]:
        slopes = problem.slope()
        moved, transpose = self.update(problem, slopes)

        def pull(gradient: list[Tensor]) -> Gradients:
            vector = transpose(gradient)
            return problem.mixed(vector) if self.mixed == "exact" else problem.differenced(vector, self.epsilon)

        return moved, pull


@dataclass(frozen=True)
class Unrolled:
    """The inner variables make K plain steps from where they stand; all are kept in memory.

    Exact for what so many steps reach; it nears the gradient of the minimiser as K grows.
    """

    steps: int
    rate: float

    def respond(self, problem: Problem) -> tuple[dict[str, Tensor], Pull]:
        inner: dict[str, Tensor] = dict(problem.inner)
        for _ in range(self.steps):
            slopes = problem.slope(inner, create_graph=True)
            inner = {k: w - self.rate * s for (k, w), s in zip(inner.items(), slopes, strict=True)}
        last = [*inner.values()]

        def pull(gradient: list[Tensor]) -> Gradients:
            return perhaps(total(last, gradient), problem.outer)

        return inner, pull


@dataclass(frozen=True)
class Neumann:
    """At a stationary point: H⁻¹ ≈ rate·Σ_{k<terms} (I − rate·H)^k.

    Converges where rate is below 2 over the largest eigenvalue of H.
    """

    terms: int
    rate: float
    curvature: Curvature = Problem.hessian

    def respond(self, problem: Problem) -> tuple[dict[str, Tensor], Pull]:
        return problem.inner, lambda gradient: problem.mixed([-v for v in self.inverse(problem, gradient)])

    def inverse(self, problem: Problem, vector: list[Tensor]) -> list[Tensor]:
        """H⁻¹·vector, nearly."""
        product = self.curvature(problem)
        summed = term = vector
        for _ in range(self.terms - 1):
            term = [t - self.rate * h for t, h in zip(term, product(term), strict=True)]
            summed = [a + t for a, t in zip(summed, term, strict=True)]
        return [self.rate * t for t in summed]


@dataclass(frozen=True)
class ConjugateGradient:
    """At a stationary point: H·v = ∂U/∂ω by at most K iterations.

    Attributes:
        damping: added to H's diagonal, for minima that are flat in some direction.
        tolerance: ends when the residual has fallen by so much.
        curvature: in place of the Hessian, which must be positive definite: `GaussNewton` always is, with some damping.
        mixed: v ↦ (∂²L/∂ω∂λ)ᵀ·v of a problem; None: by differentiating twice. Where L = Σ λ_i·ℓ_i it is known by slopes.
        precondition: about H⁻¹·v, positive definite; it may end after a few iterations of its own.
        truncated: where the loss bends downwards, what was found until then is taken, at least the preconditioned vector:
            it goes the right way, if not all of it.

    Raises:
        RunError: the loss bends downwards somewhere, so its variables are at no minimum; not where `truncated`.
    """

    iterations: int
    damping: float = 0.0
    tolerance: float = 1e-8
    curvature: Curvature = Problem.hessian
    mixed: Callable[[Problem, list[Tensor]], Gradients] | None = None
    precondition: Product | None = None
    truncated: bool = False

    def respond(self, problem: Problem) -> tuple[dict[str, Tensor], Pull]:
        def pull(gradient: list[Tensor]) -> Gradients:
            vector = [-v for v in self.inverse(problem, gradient)]
            return problem.mixed(vector) if self.mixed is None else self.mixed(problem, vector)

        return problem.inner, pull

    def inverse(self, problem: Problem, vector: list[Tensor]) -> list[Tensor]:
        """H⁻¹·vector, nearly."""
        product = self.curvature(problem)
        solution = [torch.zeros_like(g) for g in vector]
        residual = vector
        p = z = residual if self.precondition is None else self.precondition(residual)
        first, now = dot(residual, residual), dot(residual, z)
        for k in range(self.iterations):
            if dot(residual, residual) <= self.tolerance**2 * first:
                break
            q = [h + self.damping * v for h, v in zip(product(p), p, strict=True)]
            curve = dot(p, q)
            if not curve > 0 and self.truncated:
                return p if k == 0 else solution
            if not curve > 0:
                raise RunError(
                    f"The inner loss bends by {curve:.3g} along a direction: its variables are at no minimum.",
                    hint="Solve it further, give damping, or a GaussNewton curvature.",
                )
            alpha = now / curve
            solution = [s + alpha * v for s, v in zip(solution, p, strict=True)]
            last, residual = residual, [r - alpha * v for r, v in zip(residual, q, strict=True)]
            z = residual if self.precondition is None else self.precondition(residual)
            before, now = now, dot(residual, z)
            # Where what preconditions is not the same at each step, directions stay apart only so (Polak and Ribière).
            turned = now if self.precondition is None else now - dot(last, z)
            p = [r + turned / before * v for r, v in zip(z, p, strict=True)]
        return solution


@dataclass(frozen=True)
class DifferencedHessian:
    """v ↦ H·v by a central difference of slopes, for losses that can be differentiated once.

    Attributes:
        length: of the difference, in the largest of the inner variables' numbers.
    """

    length: float

    def __call__(self, problem: Problem) -> Product:
        def product(vector: list[Tensor]) -> list[Tensor]:
            most = max(float(v.abs().max()) for v in vector)
            if most == 0:
                return [torch.zeros_like(v) for v in vector]
            step = self.length / most
            ends: list[list[Tensor]] = []
            for sign in (1, -1):
                moved = {k: (w + sign * step * v).detach() for (k, w), v in zip(problem.inner.items(), vector, strict=True)}
                ends.append(problem.slope({k: w.requires_grad_() for k, w in moved.items()}))
            return [(a - b) / (2 * step) for a, b in zip(*ends, strict=True)]

        return product


@dataclass(frozen=True)
class GaussNewton:
    """Curvature of an inner loss ½·‖r‖² + rest: JᵀJ + the rest's Hessian.

    First derivatives of r suffice, so r may warp linearly; and it is never indefinite.

    Attributes:
        residuals: (outer, inner) → r, a tensor of any shape.
        rest: the regularizer, whose Hessian is taken as it is; None where there is none.
    """

    residuals: Loss
    rest: Loss | None = None

    def __call__(self, problem: Problem) -> Product:
        residuals = self.residuals(problem.outer, problem.inner)
        seed = torch.zeros_like(residuals, requires_grad=True)
        # J·v is the derivative, by the seed, of v·(Jᵀ·seed), which is linear in it.
        adjoint = torch.autograd.grad(residuals, [*problem.inner.values()], seed, create_graph=True)
        beside = None if self.rest is None else Problem(self.rest, problem.outer, problem.inner).hessian()

        def product(vector: list[Tensor]) -> list[Tensor]:
            along = torch.autograd.grad(adjoint, seed, vector, retain_graph=True)[0]
            out = torch.autograd.grad(residuals, [*problem.inner.values()], along, retain_graph=True)
            return [*out] if beside is None else [a + b for a, b in zip(out, beside(vector), strict=True)]

        return product
