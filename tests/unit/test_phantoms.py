"""Synthetic pairs: the truth is the truth, and a seed is a seed."""

import numpy as np

from warpwise.resampling import resample
from warpwise.synthetic.deformations import random_affine, random_rotation, random_velocity
from warpwise.synthetic.phantoms import LABELS, brain_pair


def test_the_moving_brain_under_the_truth_is_the_fixed_brain():
    pair = brain_pair((64, 76, 60), seed=1, noise=0.0)
    moved = resample(pair.moving, pair.fixed.grid, pair.truth, interpolation="cubic")
    # Borders between tissues are a third of a voxel wide here, so interpolation cannot follow them.
    assert np.median(np.abs(moved.data - pair.fixed.data)[0][pair.body]) < 15  # of 1000
    before = np.abs(pair.moving.data.astype(float) - pair.fixed.data)[0][pair.body].mean()
    assert np.abs(moved.data - pair.fixed.data)[0][pair.body].mean() < 0.2 * before


def test_a_seed_gives_the_same_pair_and_another_one_another():
    a, b, c = brain_pair((24, 28, 22), seed=1), brain_pair((24, 28, 22), seed=1), brain_pair((24, 28, 22), seed=2)
    assert np.array_equal(a.fixed.data, b.fixed.data)
    assert not np.array_equal(a.fixed.data, c.fixed.data)
    assert set(np.unique(a.moving_labels.data)) <= {0, *LABELS}


def test_velocities_have_the_size_asked_for_and_rest_at_the_border():
    v = random_velocity((20, 24, 1), np.random.default_rng(0), sigma=3, amplitude=1.5)
    assert np.isclose(np.sqrt((v**2).sum(0).mean()), 1.5, rtol=1e-5)
    assert not v[:, 0].any()
    assert not v[:, -1].any()
    assert not v[2].any()


def test_an_affine_keeps_its_centre_but_for_the_shift():
    rng = np.random.default_rng(0)
    centre = np.array([10.0, 20.0, 30.0])
    found = random_affine(rng, centre_mm=centre, rotation=random_rotation(rng), shift_mm=7.0, scaling=0.1)
    assert np.isclose(np.linalg.norm(found.points(centre[None])[0] - centre), 7)
