"""Every similarity and regularizer: fused equals autograd, twice differentiable, better when aligned, documented."""

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from warpwise import ops
from warpwise.alignment import Alignment
from warpwise.errors import InputError
from warpwise.objective import Objective
from warpwise.prediction import Posterior, Prediction
from warpwise.regularizers.gaussian import Gaussian
from warpwise.similarity.auto import settled
from warpwise.terms import REGULARIZERS, SIMILARITIES, TERMS

similarities = pytest.mark.parametrize("name", list(SIMILARITIES))
shapes = pytest.mark.parametrize("space", [(13, 12), (11, 9, 10)], ids=["2-D", "3-D"])


def images(space: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    noise = torch.rand(1, 2, *space, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    smooth = ops.gaussian(noise, sigma_voxels=1.0)
    # Not to the ends of the range, where the windows of mutual information are clamped.
    return (0.05 + 0.9 * (smooth - smooth.min()) / (smooth.max() - smooth.min())).to(dtype)


def solver_shape(tensor: torch.Tensor) -> np.ndarray:
    """(1, C, *space) as solvers have it: (C, X, Y, Z), a plane as (C, X, 1, Y)."""
    array = tensor[0].detach().numpy()
    return np.ascontiguousarray(array if array.ndim == 4 else array[:, :, None])


def state(fixed: torch.Tensor, warped: torch.Tensor, weight: torch.Tensor | None = None) -> Alignment:
    dim = fixed.dim() - 2
    return Alignment(fixed, warped, torch.zeros(1, dim, *fixed.shape[2:], dtype=fixed.dtype), weight)


@similarities
@shapes
@pytest.mark.parametrize("weighted", [False, True], ids=["everywhere", "weighted"])
def test_the_fused_form_is_the_value_and_gradient_of_the_term(name: str, space: tuple[int, ...], weighted: bool):
    term = SIMILARITIES[name]()
    fixed, warped = images(space, 1), images(space, 2)
    weight = (images(space, 3)[:, :1] > 0.4).float() if weighted else None
    # What solvers compare are channels: for descriptors those of both images, compared by their squared difference.
    f, w = solver_shape(fixed), solver_shape(warped)
    a, b = np.ascontiguousarray(term.channels(f)), np.ascontiguousarray(term.channels(w))
    gradient = np.empty_like(a)
    shares = np.full(2, 0.5, np.float32)
    value = term.fused(a, None if weight is None else solver_shape(weight), shares)(b, gradient)
    assert value == pytest.approx(float(term(state(fixed, warped, weight))), abs=2e-5)
    if name == "mind":
        step = np.random.default_rng(0).normal(0, 1, b.shape).astype(np.float32)
        evaluate = term.fused(a, None if weight is None else solver_shape(weight), shares)
        up, down = (evaluate(b + s * np.float32(1e-2) * step, np.empty_like(a)) for s in (1, -1))
        assert float((gradient * step).sum()) == pytest.approx((up - down) / 2e-2, rel=1e-2)
        return
    leaf = warped.clone().requires_grad_()
    (expected,) = torch.autograd.grad(term(state(fixed, leaf, weight)), leaf)
    expected = solver_shape(expected)
    assert np.abs(gradient - expected).max() < 1e-4 * np.abs(expected).max() + 1e-9


@similarities
@shapes
def test_terms_are_twice_differentiable(name: str, space: tuple[int, ...]):
    term = SIMILARITIES[name]()
    small = tuple(min(n, 7) for n in space)
    fixed = images(small, 1, torch.float64)
    warped = images(small, 2, torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda w: term(state(fixed, w)), warped, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda w: term(state(fixed, w)), warped, fast_mode=True)


@similarities
@shapes
def test_alike_is_better_than_unlike(name: str, space: tuple[int, ...]):
    term = SIMILARITIES[name]()
    fixed, other = images(space, 1), images(space, 2)
    same, unlike = term(state(fixed, fixed)), term(state(fixed, other))
    assert same.dim() == 0
    assert float(same) < float(unlike)


@pytest.mark.parametrize("name", [name for name in REGULARIZERS if REGULARIZERS[name] is not Gaussian])
@pytest.mark.parametrize("dim", [2, 3])
def test_regularizers_are_zero_at_rest_and_twice_differentiable(name: str, dim: int):
    term = REGULARIZERS[name]()
    field = torch.rand(1, dim, *(5, 6, 4)[:dim], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    blank = torch.zeros(1, 1, *field.shape[2:], dtype=torch.float64)

    def cost(u: torch.Tensor) -> torch.Tensor:
        # What a network would say besides: an inverse that is a little off, and a posterior round that displacement.
        prediction = Prediction(u, inverse=-torch.ones_like(u), posterior=Posterior(u, torch.full_like(u, quiet)))
        return term(Alignment(blank, blank, u, prediction=prediction)) - rest

    quiet = -math.log(10 * 2 * dim)  # where the prior's spread costs least
    rest = 0.5 * (1 - quiet) if name == "kl" else 0.0
    assert float(cost(torch.ones_like(field))) == pytest.approx(0, abs=1e-12)
    assert float(cost(field)) > 0
    assert torch.autograd.gradcheck(cost, field.requires_grad_())
    assert torch.autograd.gradgradcheck(cost, field)


@pytest.mark.parametrize("name", list(TERMS))
def test_rows_are_frozen_documented_and_read_back(name: str):
    kind = TERMS[name]
    made = kind(model="synthetic") if name == "features" else kind()
    assert kind.__doc__
    assert made == kind.parse(made.model_dump(mode="json"))
    assert made.row() == name
    for field in kind.model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(made, field, 1)


@similarities
def test_every_similarity_says_what_stands_for_it(name: str):
    term = SIMILARITIES[name](weight=0.5)
    assert set(term.linear) <= {"lncc", "ncc", "mse", "mi"}
    alike, unlike = (settled(term, alike=flag) for flag in (True, False))
    expected = "lncc" if name == "auto" else name
    assert (alike.row(), unlike.row()) == (expected, expected)
    assert (alike.both_contrasts, unlike.both_contrasts) == (False, name == "auto")
    assert alike.weight == unlike.weight == 0.5


def test_an_objective_is_the_weighted_sum_of_its_terms():
    terms = {"lncc": SIMILARITIES["lncc"](), "bending": REGULARIZERS["bending"]()}
    weight = torch.tensor(0.5, requires_grad=True)
    objective = Objective(terms, {"lncc": 1.0, "bending": weight})
    field = torch.rand(1, 3, 6, 6, 6, generator=torch.Generator().manual_seed(0))
    here = Alignment(images((6, 6, 6), 1), images((6, 6, 6), 2), field)
    values = objective.values(here)
    total = objective(here)
    assert total.item() == pytest.approx(float(values["lncc"] + 0.5 * values["bending"]), rel=1e-6)
    assert float(torch.autograd.grad(total, weight)[0]) == pytest.approx(float(values["bending"]), rel=1e-6)
    with pytest.raises(InputError, match="bending stands alone"):
        Objective(terms, {"lncc": 1.0})
