"""Shapes in signatures are enforced while tests run."""

from importlib import import_module

import enforcement
import jaxtyping
import numpy as np
import pytest
import torch

from warpwise.alignment import Alignment
from warpwise.ops.reference.energies import diffusion
from warpwise.registrars.base import Solution
from warpwise.transforms.velocity import exponential


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: exponential(np.zeros((2, 4, 4, 4), np.float32)),
        lambda: exponential(np.zeros((3, 4, 4, 4), np.float64)),
        lambda: Solution(np.zeros((3, 4, 4, 4), np.float32), velocity=np.zeros((3, 4, 4, 5), np.float32)),
        lambda: diffusion(torch.zeros(4)),
        lambda: Alignment(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4), torch.zeros(1, 2, 4, 5)),
    ],
    ids=["axes of a vector", "type", "fields that differ", "no batch", "a displacement of another grid"],
)
def test_what_does_not_fit_is_found(wrong):
    with pytest.raises(jaxtyping.TypeCheckError):
        wrong()


ROOMS = {
    "alignment": "alignment", "ops": "ops.reference.sampling", "pair": "pair", "spacing": "spacing", "volume": "volume",
    "registrars": "registrars.deformable.motions", "registration": "registration.certificate",
    "similarity": "similarity.local", "transforms": "transforms.velocity",
}  # fmt: skip


@pytest.mark.parametrize("room", ROOMS)
def test_signatures_of_every_room_are_checked(room):
    # None would be, were a module imported too early or an alias not replaced.
    import_module(f"warpwise.{ROOMS[room]}")
    assert any(name.startswith(f"warpwise.{ROOMS[room]}.") for name in enforcement.CHECKED)


def test_tuples_of_shapes_are_checked_too():
    import_module("warpwise.registrars.linear.gauss_newton")
    assert "warpwise.registrars.linear.gauss_newton.Problem.normal_equations" in enforcement.CHECKED
