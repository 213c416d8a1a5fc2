"""Every operator: gradcheck and gradgradcheck in float64, kernels equal to the reference, also twice differentiated."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from warpwise import ops

SPACE = (6, 5, 4)


@dataclass(frozen=True)
class Case:
    """An operator and what it is given: i an image, w another, u a field of 1.4 voxels, s one of 0.2."""

    call: Callable[..., Tensor]
    inputs: str
    value: float = 2e-6  # largest difference of kernel and reference over the largest value: float32 sums
    hessian: bool = True


def gaussians(image: Tensor) -> Tensor:
    """Means and log-variances made of one image."""
    return torch.cat([image, 0.7 * image * image - 0.4], 1)


def diffusion(image: Tensor) -> Tensor:
    """One that depends on the image, so that its gradient counts."""
    return 0.3 + image.mean()


CASES = {
    "warp": Case(ops.warp, "iu"),
    "warp cubic": Case(lambda i, u: ops.warp(i, u, interpolation="cubic"), "iu"),
    "warp nearest": Case(lambda i, u: ops.warp(i, u, interpolation="nearest"), "iu", hessian=False),
    "warp_with_gradient value": Case(lambda i, u: ops.warp_with_gradient(i, u)[0], "iu"),
    "warp_with_gradient slopes": Case(lambda i, u: ops.warp_with_gradient(i, u)[1], "iu"),
    "compose": Case(ops.compose, "us"),
    # float32 and float64 may take different cells where a squared field meets a voxel's border: looser
    "exponential": Case(lambda s: ops.exponential(s, squarings=3), "s", value=1e-5),
    # the kernel stops at a residual of 1e-5 voxel
    "inverse": Case(ops.inverse, "s", value=2e-4),
    "gaussian": Case(lambda i: ops.gaussian(i, sigma_voxels=1.3), "i", hessian=False),
    "gaussian, stride 2": Case(lambda i: ops.gaussian(i, sigma_voxels=0.7, stride=2), "i", hessian=False),
    "box": Case(lambda i: ops.box(i, radius=2), "i", hessian=False),
    "pyramid": Case(lambda i: ops.pyramid(i, octaves=3)[2], "i", hessian=False),
    "lncc": Case(lambda i, w: ops.lncc(i, w, radius=1), "iw"),
    "lncc, signed": Case(lambda i, w: ops.lncc(i, w, radius=2, signed=True), "iw"),
    "lncc, weighted": Case(lambda i, w, g: ops.lncc(i, w, radius=3, weight=g), "iwg"),
    "ncc": Case(ops.ncc, "iw"),
    "ncc, weighted": Case(lambda i, w, g: ops.ncc(i, w, weight=g), "iwg"),
    "mse": Case(ops.mse, "iw"),
    "mse, weighted": Case(lambda i, w, g: ops.mse(i, w, weight=g), "iwg"),
    "mutual_information": Case(lambda i, w: ops.mutual_information(i, w, bins=12), "iw", value=1e-5),
    "mutual_information, weighted": Case(lambda i, w, g: ops.mutual_information(i, w, bins=9, weight=g), "iwg", value=1e-5),
    "cost_volume": Case(ops.cost_volume, "iw"),
    "cost_volume, radius 2": Case(lambda i, w: ops.cost_volume(i, w, radius=2), "iw"),
    "mind_ssc": Case(lambda i: ops.mind_ssc(i, dilation=1), "i", value=1e-5),
    "symmetric_kl": Case(lambda i, w: ops.symmetric_kl(gaussians(i), gaussians(w)), "iw"),
    "symmetric_kl, weighted": Case(lambda i, w, g: ops.symmetric_kl(gaussians(i), gaussians(w), weight=g), "iwg"),
    "match, kl": Case(
        lambda i, w, g: ops.match(gaussians(i), gaussians(w), diffusion(i), weight=g, solves=300),
        "iwg",
        2e-5,
        hessian=False,
    ),
    "match, means": Case(
        lambda i, w: ops.match(i, w, diffusion(i), data="means", solves=300), "iw", value=2e-5, hessian=False
    ),
    "diffusion": Case(ops.diffusion, "u"),
    "bending": Case(ops.bending, "u"),
    "jacobian_determinant": Case(ops.jacobian_determinant, "u"),
    "digital_determinants": Case(ops.digital_determinants, "u"),
}


def inputs(letters: str, dim: int, dtype: torch.dtype, *, batch: int = 2, channels: int = 2) -> list[Tensor]:
    """Random tensors that want gradients (weights do not), away from kinks with probability one."""
    generator = torch.Generator().manual_seed(7 + dim)
    space = SPACE[:dim]

    def random(*shape: int) -> Tensor:
        return torch.rand(*shape, *space, generator=generator, dtype=torch.float64)

    made = {
        "i": random(batch, channels),
        "w": random(batch, channels),
        "u": 2.8 * (random(batch, dim) - 0.5),
        "s": 0.4 * (random(batch, dim) - 0.5),
        "g": random(batch, 1),
    }
    return [made[k].to(dtype).requires_grad_(k != "g") for k in letters]


both = pytest.mark.parametrize("dim", [2, 3])
every = pytest.mark.parametrize("name", CASES)


@both
@every
def test_first_derivatives_agree_with_finite_differences(name: str, dim: int):
    case = CASES[name]
    given = inputs(case.inputs, dim, torch.float64, batch=1, channels=1)
    assert torch.autograd.gradcheck(case.call, given, fast_mode=True)


@both
@pytest.mark.parametrize("name", [n for n, case in CASES.items() if case.hessian])
def test_second_derivatives_agree_with_finite_differences(name: str, dim: int):
    case = CASES[name]
    given = inputs(case.inputs, dim, torch.float64, batch=1, channels=1)
    assert torch.autograd.gradgradcheck(case.call, given, fast_mode=True)


def derivatives(case: Case, dim: int, dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Value; gradient by the fast path; second derivative (of the squared gradient)."""
    given = inputs(case.inputs, dim, dtype)
    wanted = [t for t in given if t.requires_grad]
    value = case.call(*given)
    seed = torch.linspace(0.1, 1, value.numel(), dtype=dtype).reshape(value.shape)
    first = torch.autograd.grad((value * seed).sum(), wanted, allow_unused=True)
    again = torch.autograd.grad((case.call(*given) * seed).sum(), wanted, create_graph=True, allow_unused=True)
    slopes = [g for g in again if g is not None and g.requires_grad]
    second = torch.autograd.grad(sum((g * g).sum() for g in slopes), wanted, allow_unused=True) if slopes else ()
    return [value.detach()], [g for g in first if g is not None], [g for g in second if g is not None]


def relative(exact: list[Tensor], fast: list[Tensor]) -> float:
    assert len(exact) == len(fast)
    return max(
        [float((a - b).abs().max() / a.abs().max().clamp(min=1e-9)) for a, b in zip(exact, fast, strict=True)] or [0]
    )


@both
@every
def test_kernels_agree_with_the_reference_in_value_gradient_and_second_derivative(name: str, dim: int):
    case = CASES[name]
    exact, fast = derivatives(case, dim, torch.float64), derivatives(case, dim, torch.float32)
    assert relative(exact[0], fast[0]) < case.value
    # 5e-3: one cell of a field that is squared again may be left on the other side of a kink
    tolerance = 5e-3 if name == "exponential" else 5e-5
    assert relative(exact[1], fast[1]) < tolerance
    if case.hessian:
        assert relative(exact[2], fast[2]) < 4 * tolerance


def test_a_tensor_given_twice_gets_both_of_its_gradients():
    u = inputs("s", 3, torch.float32)[0]
    once = torch.autograd.grad((ops.compose(u, u) ** 2).sum(), u)[0]
    a, b = u.detach().clone().requires_grad_(), u.detach().clone().requires_grad_()
    apart = torch.autograd.grad((ops.compose(a, b) ** 2).sum(), (a, b))
    assert torch.allclose(once, apart[0] + apart[1], rtol=1e-4, atol=1e-6)


def test_inverse_undoes_its_field():
    u = inputs("s", 3, torch.float32)[0].detach()
    w = ops.inverse(u)
    # the border is replicated, so every voxel can be asked
    assert float(ops.compose(u, w).abs().max()) < 1e-4


def test_identity_has_determinant_one():
    zero = torch.zeros(1, 3, 5, 6, 7)
    assert torch.equal(ops.jacobian_determinant(zero), torch.ones(1, 5, 6, 7))
    ten = ops.digital_determinants(zero)
    assert ten.shape == (1, 10, 4, 5, 6)
    assert torch.equal(ten[:, :8], torch.ones(1, 8, 4, 5, 6))
    assert torch.equal(ten[:, 8:], torch.full((1, 2, 4, 5, 6), 2.0))


@both
def test_a_field_that_is_not_finite_gives_values_that_are_not_and_no_crash(dim: int):
    image, field = inputs("iu", dim, torch.float32)
    for bad in (float("nan"), float("inf"), -float("inf")):
        broken = field.detach().clone()
        broken[:, :, 2:4] = bad
        value = ops.warp(image, broken.requires_grad_())
        value.sum().backward()
        ops.inverse(broken.detach())
        ops.warp_with_gradient(image.detach(), broken.detach())
        assert not bool(torch.isfinite(value[:, :, 2:4]).any())
