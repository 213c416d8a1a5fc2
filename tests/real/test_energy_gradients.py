"""A registration by the energy solver as a function that autograd differentiates, against finite differences of it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from asking import prepared
from torch import Tensor

from warpwise import ops
from warpwise.alignment import Alignment
from warpwise.io.datasets import read_dataset
from warpwise.io.images import read_image
from warpwise.levels.estimators import ConjugateGradient
from warpwise.levels.hypergradient import Problem, Variables, stationary
from warpwise.methods import Method
from warpwise.objective import Objective, SolverTerms
from warpwise.pair import Pair
from warpwise.registrars.base import Solution
from warpwise.registrars.deformable.energy import Energy, EnergyScale
from warpwise.registrars.deformable.work import on_fixed_grid
from warpwise.registrars.linear.stage import align
from warpwise.similarity.codes import encoded
from warpwise.terms.term import parse_terms

WEIGHT = 0.5
STEP = 0.1  # of the finite difference, in the logarithm of the weight


def half_as_fine(data: Path, number: int) -> Pair:
    """Two people's hippocampi under their affine, every second voxel, with their labels as channels."""
    people = read_dataset(data / "hippocampus-msd").training
    fixed, moving = people[2 * number : 2 * number + 2]
    pair = prepared(fixed.image, moving.image)
    method = Method.named("energy")
    pair = align(pair, method.linear, method.terms()).applied(pair)
    codes = encoded(*(read_image(scan.labels, kind="labels").data[0] for scan in (fixed, moving)))
    pair = replace(pair, fixed=replace(pair.fixed, codes=codes[0]), moving=replace(pair.moving, codes=codes[1]))
    return on_fixed_grid(pair.at_scale(1))


def written(weight: float) -> dict[str, dict[str, Any]]:
    return {"images": {"term": "mse"}, "smooth": {"term": "diffusion", "weight": weight}}


def solved(pair: Pair, weight: float, begin: np.ndarray | None = None) -> np.ndarray:
    """The displacement that the solver ends at: from rest through two scales, or from one that is near."""
    scales = tuple(EnergyScale(image=k, iterations=80) for k in ((1, 0) if begin is None else (0,)))
    settings = Energy(scales=scales, solves=60, tolerance=0, sampling="cubic")
    images = replace(pair, fixed=replace(pair.fixed, codes=None), moving=replace(pair.moving, codes=None))
    registrar = settings.build(SolverTerms.of(parse_terms(written(weight))))
    return registrar.solve(images, start=None if begin is None else Solution(begin)).field


def tensor(array: np.ndarray | None) -> Tensor:
    assert array is not None
    return torch.from_numpy(array.astype(np.float64))[None]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_overlap_changes_with_the_weight_as_the_solver_stands_at_its_minimum_says(data: Path, number: int):
    pair = half_as_fine(data, number)
    fixed, moving = tensor(pair.fixed.data), tensor(pair.moving.data)
    fixed_labels, moving_labels = tensor(pair.fixed.codes), tensor(pair.moving.codes)
    objective = Objective.of(parse_terms(written(1.0)))
    near = solved(pair, WEIGHT)

    def energy(outer: Variables, inner: Variables) -> Tensor:
        warped = ops.warp(moving, inner["u"], interpolation="cubic")
        values = objective.values(Alignment(fixed, warped, inner["u"]))
        return values["images"] + outer["log_weight"].exp() * values["smooth"]

    def solve(outer: Variables) -> dict[str, Tensor]:
        return {"u": tensor(solved(pair, float(outer["log_weight"].exp()), near))}

    def dice(u: Tensor) -> Tensor:
        moved = ops.warp(moving_labels, u, interpolation="cubic")
        both = (fixed_labels * moved).flatten(2).sum(2)
        either = (fixed_labels**2).flatten(2).sum(2) + (moved**2).flatten(2).sum(2)
        return (2 * both / either).mean()

    weight = torch.tensor(np.log(WEIGHT), dtype=torch.float64, requires_grad=True)
    outer = {"log_weight": weight}
    u = stationary(solve, energy, outer, estimator=ConjugateGradient(200, tolerance=1e-3))["u"]
    slopes = [Problem.at(energy, outer, {"u": at}).slope()[0].norm() for at in (u.detach(), torch.zeros_like(u))]
    assert slopes[0] < 3e-4 * slopes[1]  # the residual: the solver's slope, by tensors in float64, over that at rest
    (implicit,) = torch.autograd.grad(dice(u), weight)
    ends = [dice(solve({"log_weight": weight.detach() + sign * STEP})["u"]) for sign in (1, -1)]
    expected = float(ends[0] - ends[1]) / (2 * STEP)
    assert float(implicit) == pytest.approx(expected, rel=0.05)
