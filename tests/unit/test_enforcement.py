"""Shapes in signatures are enforced while tests run."""

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


def test_signatures_of_every_room_are_checked():
    # The number is what would be missed were a module imported too early or an alias not replaced.
    rooms = {name.split(".")[1] for name in enforcement.CHECKED}
    assert {
        "alignment",
        "ops",
        "pair",
        "registrars",
        "registration",
        "similarity",
        "spacing",
        "transforms",
        "volume",
    } <= rooms
    assert len(enforcement.CHECKED) > 60, len(enforcement.CHECKED)
