"""Every transform format in both directions, on an oblique, left-handed, anisotropic pair; see docs/interoperability.md."""

from pathlib import Path

import numpy as np
import pytest
from interoperability import Row, case_of, rows

from warpwise.grid import Grid
from warpwise.image import Image
from warpwise.synthetic.phantoms import brain_pair


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> list[Row]:
    pair = brain_pair((40, 46, 38), seed=3)
    turn = np.array([[0.96, -0.28, 0, 0], [0.28, 0.96, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    fixed_affine = turn @ pair.fixed.grid.affine
    # The moving image is stored left-handed, its axes permuted, elsewhere in the world.
    data = np.ascontiguousarray(pair.moving.data[:, ::-1].transpose(0, 2, 3, 1))
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = pair.moving.grid.shape[0] - 1
    moving_affine = (turn @ pair.moving.grid.affine @ flip)[:, [1, 2, 0, 3]]
    moving_affine[:3, 3] += [20, -30, 40]
    fixed = Image(pair.fixed.data, Grid(pair.fixed.grid.shape, fixed_affine))
    moving = Image(data, Grid(data.shape[1:], moving_affine))
    return rows(case_of(fixed, moving, pair.body, Path(tmp_path_factory.mktemp("interoperability"))))


def test_every_program_agrees_with_us_in_both_directions(found: list[Row]):
    assert len(found) >= 30
    assert {row.program for row in found} >= {"SimpleITK", "ANTs", "nitransforms", "fslpy", "surfa", "antsRegistration"}
    far = [row for row in found if not row.value <= row.limit]
    assert not far, far
