"""Hypergradients of a real registration in two dimensions, against finite differences."""

from pathlib import Path

import hypergradients as problem
import pytest

from warpwise.levels.estimators import ConjugateGradient
from warpwise.levels.hypergradient import hypergradient


def test_hypergradients_of_a_real_registration_agree_with_finite_differences(data: Path):
    plane = problem.real_plane(data, thin=8)
    outer = plane.start()
    solution = plane.solve(outer)
    expected = problem.truth(plane, solution, directions=1)
    estimator = ConjugateGradient(300, tolerance=1e-6)
    relative = problem.errors(
        hypergradient(plane.outer_loss, plane.inner_loss, outer, solution, estimator=estimator), expected
    )
    assert relative["diffusion"] == pytest.approx(0, abs=1e-3)
    assert relative["filter"] == pytest.approx(0, abs=1e-3)
