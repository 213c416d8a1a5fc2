"""Fold repair and the certificate."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import smooth_fields

from warpwise.ops import kernels
from warpwise.registrars.deformable import fold
from warpwise.registration.certificate import certify


def lowest(field: np.ndarray, factors: tuple[int, int, int], shape: tuple[int, int, int]) -> float:
    return float(kernels.digital(kernels.upsample(field, shape, factors))[0].min())


@given(st.integers(0, 2**31), st.sampled_from([(1, 1, 1), (2, 2, 2), (2, 1, 2)]), st.floats(0.2, 4))
def test_any_field_is_repaired(seed: int, factors: tuple[int, int, int], size: float):
    rng = np.random.default_rng(seed)
    shape = (15, 13, 17)
    field = rng.normal(0, size, (3, *kernels.coarse_shape(shape, factors))).astype(np.float32)
    repaired, count = fold.repair(field, factors, shape)
    assert lowest(repaired, factors, shape) >= fold.FLOOR
    assert (count == 0) == (lowest(field, factors, shape) >= fold.FLOOR)


@given(smooth_fields(amplitude=0.6))
def test_a_sound_field_is_left_alone(field: np.ndarray):
    repaired, count = fold.repair(field, (1, 1, 1), field.shape[1:])
    if count == 0:
        assert repaired is field


def test_a_repair_is_local():
    field = np.zeros((3, 60, 60, 60), np.float32)
    field[:, 12:14, 12:14, 12:14] = 1.7
    field[0, 40:50] += 0.3
    repaired, count = fold.repair(field, (1, 1, 1), (60, 60, 60))
    assert count > 0
    assert np.array_equal(repaired[:, 36:], field[:, 36:])
    assert lowest(repaired, (1, 1, 1), (60, 60, 60)) >= fold.FLOOR


def test_a_plane_is_repaired():
    rng = np.random.default_rng(0)
    field = rng.normal(0, 1.5, (3, 20, 1, 22)).astype(np.float32)
    field[1] = 0
    repaired, count = fold.repair(field, (1, 1, 1), (20, 1, 22))
    assert count > 0
    assert float(kernels.digital(repaired)[0].min()) >= fold.FLOOR


@given(smooth_fields(amplitude=2.0))
def test_the_certificate_says_how_well_forward_and_inverse_agree(field: np.ndarray):
    sound = certify(field, (1, 1, 1), field.shape[1:])
    found = sound.certificate
    assert (found.percent_folded, found.percent_ndv) == (0, 0)
    assert found.forward_inverse_mean <= 0.01
    assert max(found.forward_inverse_max, found.inverse_forward_max) <= 0.1
    # Measured here in another way: by the linear composition of the two fields where they were cut out.
    box = tuple(slice(s, s + n) for s, n in zip(sound.start, sound.inverse.shape[1:], strict=True))
    forward = np.ascontiguousarray(sound.field[(slice(None), *box)])
    again = np.linalg.norm(kernels.compose(forward, sound.inverse), axis=0)
    assert float(again.max()) == pytest.approx(found.inverse_forward_max, abs=1e-3)


def test_no_motion_has_a_perfect_certificate():
    sound = certify(np.zeros((3, 8, 8, 8), np.float32), (1, 1, 1), (8, 8, 8))
    assert set(sound.certificate.to_dict().values()) == {0}
