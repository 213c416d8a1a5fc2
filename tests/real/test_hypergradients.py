"""Hypergradients of a real registration in two dimensions, against finite differences."""

from pathlib import Path

import hypergradients as problem
import pytest

from warpwise.levels.estimators import ConjugateGradient
from warpwise.levels.hypergradient import hypergradient


def test_hypergradients_of_a_real_registration_agree_with_finite_differences(data: Path):
    plane = problem.real_plane(data, thin=8)
    upper = plane.start()
    solution = plane.solve(upper)
    expected = problem.truth(plane, solution, directions=1)
    estimator = ConjugateGradient(300, tolerance=1e-6)
    found = problem.errors(hypergradient(plane.upper, plane.lower, solution, upper, estimator=estimator), expected)
    assert found["stiffness"] == pytest.approx(0, abs=1e-3)
    assert found["filter"] == pytest.approx(0, abs=1e-3)
