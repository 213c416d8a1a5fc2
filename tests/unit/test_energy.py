"""The energy solver: it minimises what the objective says, on tensors and in kernels alike."""

import numpy as np
import pytest
import torch

import warpwise as ww
from warpwise import ops
from warpwise.alignment import Alignment
from warpwise.errors import InputError
from warpwise.grid import Grid
from warpwise.methods import Method
from warpwise.objective import Objective, SolverTerms
from warpwise.ops import kernels
from warpwise.pair import Pair
from warpwise.registrars.crop import Box
from warpwise.registrars.deformable.energy import Energy, EnergyDescent, EnergyScale, Problem
from warpwise.registrars.deformable.work import ScaleSettings, ScaleWork
from warpwise.synthetic.phantoms import KnownPair, brain_pair
from warpwise.terms.term import parse_terms
from warpwise.volume import Volume

SHAPE = (20, 22, 18)


@pytest.fixture(scope="module")
def pair() -> KnownPair:
    return brain_pair((64, 76, 60), seed=2)


def smooth(seed: int, channels: int = 1) -> np.ndarray:
    noise = torch.rand(1, channels, *SHAPE, generator=torch.Generator().manual_seed(seed))
    return np.ascontiguousarray(ops.gaussian(noise, sigma_voxels=1.5)[0].numpy())


def problem_of(terms: dict) -> Problem:
    grid = Grid(SHAPE, np.eye(4))
    whole = Pair(Volume(smooth(1), grid), Volume(smooth(2), grid), np.eye(4))
    solver = SolverTerms.of(parse_terms(terms))
    box = Box((0, 0, 0), SHAPE, (False,) * 3, (False,) * 3)
    work = ScaleWork.build(whole, ScaleSettings(image=0, field=0, iterations=1), solver, box, resampled=True)
    assert solver.diffusion is not None
    return Problem(work, solver.diffusion.weight)


TERMS = {"smooth": {"term": "diffusion", "weight": 0.7}}


@pytest.mark.parametrize("similarity", ["lncc", "mse", "ncc", "mind"])
def test_its_energy_is_the_objective_on_tensors(similarity: str):
    terms = {"images": {"term": similarity}, **TERMS}
    problem = problem_of(terms)
    field = 2 * smooth(3, 3) - 1
    images = [torch.from_numpy(x)[None] for x in (smooth(1), smooth(2), field)]
    if similarity == "mind":  # solvers describe before they warp
        a, b = (ops.mind_ssc(x) for x in images[:2])
        expected = float(ops.mse(a, ops.warp(b, images[2])).mean()) + 0.7 * float(ops.diffusion(images[2]))
    else:
        warped = ops.warp(images[1], images[2])
        expected = float(Objective.of(parse_terms(terms))(Alignment(images[0], warped, images[2])))
    assert problem.value(field) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_the_laplacian_is_the_derivative_of_the_diffusion():
    field = torch.from_numpy(smooth(3, 3))[None].requires_grad_()
    energy = ops.diffusion(field).sum() * np.prod(SHAPE)
    (gradient,) = torch.autograd.grad(energy, field)
    out = np.empty((3, *SHAPE), np.float32)
    inner = kernels.laplacian(field.detach()[0].numpy(), out=out)
    assert inner == pytest.approx(float(energy.detach()), rel=1e-5)
    assert 2 * out == pytest.approx(gradient[0].numpy(), abs=1e-5)


@pytest.mark.parametrize("similarity", ["lncc", "mse", "mind"])
def test_every_step_lowers_it_and_the_slope_goes_towards_zero(similarity: str):
    problem = problem_of({"images": {"term": similarity}, "smooth": {"term": "diffusion", "weight": 0.05}})
    field = np.zeros((3, *SHAPE), np.float32)
    energies, norms = [problem.value(field)], []
    for _ in range(12):
        gradient, matrix = problem.normal_equations()
        norms.append(float(np.linalg.norm(gradient)))
        step = kernels.normal_solve(matrix, -gradient, 2 * problem.weight, iterations=30)
        found = EnergyDescent._searched(problem, field, step, energies[-1])
        if found is None:
            break
        field, energy = found
        energies.append(energy)
    assert np.all(np.diff(energies) < 0)
    assert norms[-1] < 0.4 * norms[0]  # linear interpolation has kinks: the slope jumps round its zero


def test_cubic_samples_and_their_slopes_are_those_of_tensors():
    image, field = smooth(2, 2), 6 * smooth(3, 3) - 3
    u = torch.from_numpy(field)[None].requires_grad_()
    expected = ops.warp(torch.from_numpy(image)[None], u, interpolation="cubic")
    out, slopes = np.empty_like(image), np.empty((2, 3, *SHAPE), np.float32)
    kernels.warp_cubic(kernels.spline_coefficients(image), field, out=out, slopes=slopes)
    assert out == pytest.approx(expected.detach()[0].numpy(), abs=2e-6)
    for n in range(2):
        (gradient,) = torch.autograd.grad(expected[0, n].sum(), u, retain_graph=True)
        assert slopes[n] == pytest.approx(gradient[0].numpy(), abs=1e-5)


def test_with_cubic_samples_the_slope_is_that_of_tensors_and_goes_to_zero():
    terms = {"images": {"term": "mse"}, "smooth": {"term": "diffusion", "weight": 0.05}}
    grid = Grid(SHAPE, np.eye(4))
    bend = torch.from_numpy(4 * smooth(3, 3) - 2)[None]
    bent = ops.warp(torch.from_numpy(smooth(1))[None], bend, interpolation="cubic")
    pair = Pair(Volume(smooth(1), grid), Volume(bent[0].numpy(), grid), np.eye(4))
    scales = (EnergyScale(image=0, iterations=60),)
    solver = Energy(scales=scales, solves=60, tolerance=0, sampling="cubic").build(SolverTerms.of(parse_terms(terms)))
    objective = Objective.of(parse_terms(terms))
    fixed, moving = torch.from_numpy(smooth(1))[None].double(), bent.double()

    def slope(field: np.ndarray) -> torch.Tensor:
        u = torch.from_numpy(field)[None].double().requires_grad_()
        value = objective(Alignment(fixed, ops.warp(moving, u, interpolation="cubic"), u))
        return torch.autograd.grad(value, u)[0]

    rest = np.zeros((3, *SHAPE), np.float32)
    assert slope(solver.solve(pair).field).norm() < 1e-3 * slope(rest).norm()


def test_a_known_deformation_is_found_and_the_slope_reported(pair: KnownPair):
    result = ww.register(pair.fixed, pair.moving, method="energy")
    truth = pair.truth.displacement(pair.fixed.grid)
    inside = pair.fixed_labels.data[0] > 0
    error = np.sqrt(((result.displacement_mm - truth) ** 2).sum(0))[inside].mean()
    linear = np.sqrt(((ww.register(pair.fixed, pair.moving, method="affine").displacement_mm - truth) ** 2).sum(0))[inside]
    assert error < 0.35 * linear.mean()
    assert result.certificate.percent_ndv == 0
    assert all("gradient" in words for words in result.stops["energy"])


def test_more_weight_is_smoother(pair: KnownPair):
    def roughness(weight: float) -> float:
        method = Method.named("energy").changed({"objective.smoothness.weight": weight})
        field = torch.from_numpy(ww.register(pair.fixed, pair.moving, method=method).displacement_mm)[None]
        return float(ops.diffusion(field))

    assert roughness(1.0) < 0.6 * roughness(0.1)


def test_what_it_cannot_minimise_is_refused_by_name():
    energy = Method.named("energy")
    with pytest.raises(InputError, match="'mi' cannot be minimised by second-order"):
        energy.changed({"objective.similarity.term": "mi"}).build()
    with pytest.raises(InputError, match=r"'gaussian' is not what this solver minimises.*greedy"):
        energy.changed({"objective.smoothness": {"term": "gaussian"}}).build()
    with pytest.raises(InputError, match=r"'diffusion' is not what this solver minimises.*energy"):
        Method.named("fast").changed({"objective.smoothness": {"term": "diffusion"}}).build()


def test_a_plane_is_solved_too():
    pair = brain_pair((96, 8, 90), seed=1)
    images = [
        ww.Image(i.data[:, :, 4], ww.Grid(i.data[:, :, 4].shape[1:], np.diag([2.0, 2.0, 1.0])))
        for i in (pair.fixed, pair.moving)
    ]
    method = Method.named("energy").changed({"registrar": Energy(scales=(EnergyScale(image=1, iterations=5),))})
    result = ww.register(*images, method=method)
    assert result.displacement_mm.shape[0] == 2
    assert result.similarity["energy_after"] < result.similarity["energy_before"]
