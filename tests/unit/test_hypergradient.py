"""Hypergradients against closed forms: ridge regression, and a registration in one dimension."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from warpwise import ops
from warpwise.errors import InputError, RunError
from warpwise.levels.estimators import (
    ESTIMATORS,
    AdamStep,
    ConjugateGradient,
    Descent,
    GaussNewton,
    Neumann,
    OneStep,
    Unrolled,
)
from warpwise.levels.hypergradient import Variables, hypergradient, stationary

F64 = torch.float64


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


@dataclass(frozen=True)
class Ridge:
    """L = ½‖Aω − b‖² + ½λ‖ω‖², U = ½‖Cω − d‖² + direct·λ."""

    a: Tensor
    b: Tensor
    c: Tensor
    d: Tensor
    direct: float = 0.0

    def inner(self, outer: Variables, w: Variables) -> Tensor:
        return 0.5 * ((self.a @ w["w"] - self.b) ** 2).sum() + 0.5 * outer["l"] * (w["w"] ** 2).sum()

    def outer(self, outer: Variables, w: Variables) -> Tensor:
        return 0.5 * ((self.c @ w["w"] - self.d) ** 2).sum() + self.direct * outer["l"]

    def matrix(self, weight: Tensor) -> Tensor:
        return self.a.T @ self.a + weight * torch.eye(self.a.shape[1], dtype=F64)

    def best(self, weight: Tensor) -> Tensor:
        return torch.linalg.solve(self.matrix(weight), self.a.T @ self.b)

    def exact(self, weight: Tensor) -> Tensor:
        w = self.best(weight)
        return self.direct - (self.c.T @ (self.c @ w - self.d)) @ torch.linalg.solve(self.matrix(weight), w)


RIDGE = Ridge(random(20, 6), random(20, seed=1), random(15, 6, seed=2), random(15, seed=3), direct=0.3)
L = torch.tensor(0.7, dtype=F64)
RATE = 1 / float(torch.linalg.eigvalsh(RIDGE.matrix(L)).max())


def error(estimator, *, start: Tensor | None = None, ridge: Ridge = RIDGE) -> float:
    w = ridge.best(L) if start is None else start
    gradient = hypergradient(ridge.outer, ridge.inner, {"l": L}, {"w": w}, estimator=estimator)["l"]
    return float((gradient - ridge.exact(L)).abs() / ridge.exact(L).abs())


def test_conjugate_gradients_give_the_closed_form_of_ridge_regression():
    assert error(ConjugateGradient(6)) < 1e-9
    assert error(ConjugateGradient(4)) < error(ConjugateGradient(2))


@pytest.mark.parametrize("make", [lambda k: Neumann(k, RATE), lambda k: Unrolled(k, RATE)], ids=["neumann", "unrolled"])
def test_errors_fall_with_the_number_of_terms_or_steps(make):
    errors = [error(make(k)) for k in (1, 4, 16, 64, 256)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-3 < errors[0]


def test_unrolled_steps_find_the_minimum_from_elsewhere():
    assert error(Unrolled(400, RATE), start=torch.zeros(6, dtype=F64)) < 1e-4


@pytest.mark.parametrize("mixed", ["exact", "difference"])
def test_one_step_is_the_derivative_of_the_step_that_is_made(mixed: str):
    start = random(6, seed=5)

    def after(weight: Tensor) -> Tensor:
        w = start.clone().requires_grad_()
        slope = torch.autograd.grad(RIDGE.inner({"l": weight}, {"w": w}), w)[0]
        return RIDGE.outer({"l": weight}, {"w": w.detach() - 0.01 * slope})

    h = torch.tensor(1e-4, dtype=F64)
    expected = (after(L + h) - after(L - h)) / (2 * h)
    estimator = OneStep(Descent(0.01), mixed=mixed)
    gradient = hypergradient(RIDGE.outer, RIDGE.inner, {"l": L}, {"w": start}, estimator=estimator)["l"]
    assert float((gradient - expected).abs() / expected.abs()) < 1e-6


def test_one_step_differentiates_the_step_that_adam_makes():
    start = random(6, seed=6)

    def trained() -> tuple[Tensor, torch.optim.Adam]:
        w = start.clone().requires_grad_()
        adam = torch.optim.Adam([w], lr=0.03, betas=(0.8, 0.95))
        for _ in range(3):
            adam.zero_grad()
            RIDGE.inner({"l": L}, {"w": w}).backward()
            adam.step()
        return w, adam

    def after(weight: Tensor) -> Tensor:
        w, adam = trained()
        adam.zero_grad()
        RIDGE.inner({"l": weight}, {"w": w}).backward()
        adam.step()
        return RIDGE.outer({"l": weight}, {"w": w.detach()})

    h = torch.tensor(1e-4, dtype=F64)
    expected = (after(L + h) - after(L - h)) / (2 * h)
    w, adam = trained()
    given = {"l": L}, {"w": w}
    gradient = hypergradient(RIDGE.outer, RIDGE.inner, *given, estimator=OneStep(AdamStep(adam), mixed="exact"))["l"]
    assert float((gradient - expected).abs() / expected.abs()) < 1e-5
    plain = hypergradient(RIDGE.outer, RIDGE.inner, *given, estimator=OneStep(Descent(0.03)))["l"]
    assert float((plain - expected).abs() / expected.abs()) > 0.1  # the published form is another number


def test_a_common_factor_of_all_weights_changes_nothing():
    """Σ λ·dU/dλ = 0 at a minimum: it does not move when the whole loss is multiplied (Euler)."""

    def inner(outer: Variables, w: Variables) -> Tensor:
        return 0.5 * outer["a"] * ((RIDGE.a @ w["w"] - RIDGE.b) ** 2).sum() + 0.5 * outer["b"] * (w["w"] ** 2).sum()

    weights = {"a": torch.tensor(1.7, dtype=F64), "b": torch.tensor(0.6, dtype=F64)}
    best = torch.linalg.solve(
        weights["a"] * RIDGE.a.T @ RIDGE.a + weights["b"] * torch.eye(6, dtype=F64), weights["a"] * RIDGE.a.T @ RIDGE.b
    )

    def outer(_: Variables, w: Variables) -> Tensor:
        return 0.5 * ((RIDGE.c @ w["w"] - RIDGE.d) ** 2).sum()

    found = hypergradient(outer, inner, weights, {"w": best}, estimator=ConjugateGradient(12, tolerance=1e-14))
    assert abs(float(sum(weights[name] * found[name] for name in weights))) < 1e-10
    assert float(found["b"].abs()) > 1e-3


def test_the_direct_term_is_part_of_it():
    without = Ridge(RIDGE.a, RIDGE.b, RIDGE.c, RIDGE.d)
    given = {"l": L}, {"w": RIDGE.best(L)}
    one, other = (hypergradient(r.outer, r.inner, *given, estimator=ConjugateGradient(6))["l"] for r in (RIDGE, without))
    assert float(one - other) == pytest.approx(0.3, abs=1e-12)


@dataclass(frozen=True)
class Line:
    """One dimension: s(x) = m·x, t = m·(x + c), E(u) = ½Σ(s(x + u) − t)² + ½λΣ(u_{i+1} − u_i)², U = ½‖u − a‖²."""

    slope: float
    shift: Tensor
    wanted: Tensor

    def residuals(self, outer: Variables, w: Variables) -> Tensor:
        return self.slope * (w["u"] - outer["shift"])

    def smoothness(self, outer: Variables, w: Variables) -> Tensor:
        return 0.5 * outer["stiffness"] * (w["u"].diff() ** 2).sum()

    def inner(self, outer: Variables, w: Variables) -> Tensor:
        return 0.5 * (self.residuals(outer, w) ** 2).sum() + self.smoothness(outer, w)

    def outer(self, _: Variables, w: Variables) -> Tensor:
        return 0.5 * ((w["u"] - self.wanted) ** 2).sum()

    def laplacian(self) -> Tensor:
        step = torch.eye(len(self.shift), dtype=F64).diff(dim=0)
        return step.T @ step

    def matrix(self, stiffness: Tensor) -> Tensor:
        return self.slope**2 * torch.eye(len(self.shift), dtype=F64) + stiffness * self.laplacian()

    def best(self, stiffness: Tensor) -> Tensor:
        return torch.linalg.solve(self.matrix(stiffness), self.slope**2 * self.shift)

    def exact(self, stiffness: Tensor) -> dict[str, Tensor]:
        u = self.best(stiffness)
        adjoint = torch.linalg.solve(self.matrix(stiffness), u - self.wanted)
        return {"stiffness": -adjoint @ self.laplacian() @ u, "shift": self.slope**2 * adjoint}


LINE = Line(1.5, random(30, seed=7), random(30, seed=8))
STIFFNESS = torch.tensor(2.0, dtype=F64)


@pytest.mark.parametrize(
    "estimator",
    [
        ConjugateGradient(30),
        ConjugateGradient(30, curvature=GaussNewton(LINE.residuals, LINE.smoothness)),
        Neumann(400, 0.09),
    ],
    ids=["hessian", "gauss-newton", "neumann"],
)
def test_a_registration_in_one_dimension_has_the_analytic_hypergradient(estimator):
    outer = {"stiffness": STIFFNESS, "shift": LINE.shift}
    gradient = hypergradient(LINE.outer, LINE.inner, outer, {"u": LINE.best(STIFFNESS)}, estimator=estimator)
    for name, value in LINE.exact(STIFFNESS).items():
        assert float((gradient[name] - value).norm() / value.norm()) < 1e-6


def test_a_solver_stands_in_the_middle_of_a_graph():
    stiffness, shift = STIFFNESS.clone().requires_grad_(), LINE.shift.clone().requires_grad_()

    def solve(outer: Variables) -> Variables:
        assert not torch.is_grad_enabled()
        return {"u": torch.linalg.solve(LINE.matrix(outer["stiffness"]), LINE.slope**2 * outer["shift"])}

    variables = {"stiffness": stiffness.exp().log(), "shift": 1.0 * shift}
    u = stationary(solve, LINE.inner, variables, estimator=ConjugateGradient(30))["u"]
    gradient = torch.autograd.grad(0.5 * ((u - LINE.wanted) ** 2).sum(), (stiffness, shift))
    for one, other in zip(gradient, LINE.exact(STIFFNESS).values(), strict=True):
        assert float((one - other).norm() / other.norm()) < 1e-6


@pytest.mark.parametrize("name", [*ESTIMATORS])
def test_estimators_say_what_does_not_depend_on_what(name: str):
    made = {"one-step": OneStep(Descent(0.1)), "unrolled": Unrolled(2, 0.1), "neumann": Neumann(2, 0.1),
            "conjugate-gradient": ConjugateGradient(2)}[name]  # fmt: skip
    given = {"w": RIDGE.best(L)}
    with pytest.raises(InputError, match="outer loss does not depend on w"):
        hypergradient(lambda u, w: u["l"] ** 2, RIDGE.inner, {"l": L}, given, estimator=made)
    with pytest.raises(InputError, match="Neither loss depends on the outer variable idle"):
        hypergradient(RIDGE.outer, RIDGE.inner, {"l": L, "idle": L}, given, estimator=made)


def test_variables_that_are_at_no_minimum_are_refused():
    saddle = lambda u, w: (w["w"][0] ** 2 - u["l"] * w["w"][1] ** 2).sum()  # noqa: E731
    given = {"l": L}, {"w": torch.tensor([0.1, 0.2], dtype=F64)}
    with pytest.raises(RunError, match="at no minimum"):
        hypergradient(lambda _, w: w["w"].sum(), saddle, *given, estimator=ConjugateGradient(3))


def test_the_matching_operator_agrees_with_the_engine():
    """One Gauss-Newton step of ops.match is the minimum of a quadratic; the engine differentiates that quadratic."""
    fixed = ops.gaussian(random(1, 3, 7, 8), sigma_voxels=1.0)
    moving = ops.gaussian(random(1, 3, 7, 8, seed=1), sigma_voxels=1.0)
    wanted = random(1, 2, 7, 8, seed=2)

    def quadratic(outer: Variables, inner: Variables) -> Tensor:
        f, m, u = outer["fixed"], outer["moving"], inner["u"]
        slope = torch.stack([torch.gradient(m, dim=d)[0] for d in (2, 3)], 2)
        moved = m + (slope * u[:, None]).sum(2)
        return ((f - moved) ** 2).sum() + 0.5 * outer["stiffness"] * (ops.diffusion(u) * u[0, 0].numel()).sum()

    outer = {"fixed": fixed, "moving": moving, "stiffness": torch.tensor(0.4, dtype=F64)}
    best = ops.match(*outer.values(), data="means", solves=400)
    loss = lambda _, inner: 0.5 * ((inner["u"] - wanted) ** 2).sum()  # noqa: E731
    expected = hypergradient(loss, quadratic, outer, {"u": best}, estimator=ConjugateGradient(400, tolerance=1e-10))
    leaves = {k: v.clone().requires_grad_() for k, v in outer.items()}
    value = loss(None, {"u": ops.match(*leaves.values(), data="means", solves=400)})
    gradient = dict(zip(leaves, torch.autograd.grad(value, [*leaves.values()]), strict=True))
    for name, one in expected.items():
        assert float((gradient[name] - one).norm() / one.norm()) < 1e-3


def test_weights_of_a_network_answer_to_a_weight_of_its_objective():
    """Level 1 under level 3: dU/dλ through one step of the weights, against that step done twice, with λ ± h."""
    generator = torch.Generator().manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(2, 6, 3, padding=1), torch.nn.LeakyReLU(0.2), torch.nn.Conv2d(6, 2, 3, padding=1)
    ).double()
    for value in network.parameters():
        torch.nn.init.normal_(value, 0, 0.3, generator=generator)
    shapes = torch.rand(2, 1, 24, 20, generator=generator, dtype=F64)
    fixed, moving = ops.gaussian(shapes, sigma_voxels=2.0).chunk(2)
    kept, movable = ops.gaussian((shapes > 0.5).double(), sigma_voxels=1.5).chunk(2)
    weights = {name: value.detach() for name, value in network.named_parameters()}

    def field(w: Variables) -> Tensor:
        return torch.func.functional_call(network, dict(w), (torch.cat([fixed, moving], 1),))

    def inner(outer: Variables, w: Variables) -> Tensor:
        u = field(w)
        return ops.mse(fixed, ops.warp(moving, u)).mean() + outer["log"].exp() * ops.diffusion(u).mean()

    def outer(_: Variables, w: Variables) -> Tensor:
        return ops.mse(kept, ops.warp(movable, field(w))).mean()

    log, rate, h = torch.tensor(-1.0, dtype=F64), 0.02, 1e-3

    def after(value: Tensor) -> Tensor:
        leaves = {k: v.clone().requires_grad_() for k, v in weights.items()}
        slopes = torch.autograd.grad(inner({"log": value}, leaves), [*leaves.values()])
        return outer({}, {k: (v - rate * s).detach() for (k, v), s in zip(leaves.items(), slopes, strict=True)})

    expected = float(after(log + h) - after(log - h)) / (2 * h)
    gradient = hypergradient(outer, inner, {"log": log}, weights, estimator=OneStep(Descent(rate)))["log"]
    assert float(gradient) == pytest.approx(expected, rel=1e-2)
