"""Learned propagation: the published network, its switches, and terms that look at single stages."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from warpwise import ops
from warpwise.alignment import Alignment
from warpwise.errors import InputError
from warpwise.networks import parse_network
from warpwise.networks.base import initialise
from warpwise.objective import Objective, SolverTerms, staged
from warpwise.ops.nodes import on_voxels
from warpwise.terms.term import parse_terms

SMALL = {"kind": "cascade", "widths": [4, 6, 8], "features": 3, "matching": [6, 6], "context": [6, 6]}


def built(dim: int = 2, *, seed: int = 0, loud: float = 1.0, **changes: Any) -> torch.nn.Module:
    net = initialise(parse_network({**SMALL, **changes}).build(dim=dim, channels=1), torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if "velocity.conv" in name or "correction.conv" in name:
                weight *= loud
    return net.eval()


def images(*space: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    smooth = ops.gaussian(torch.rand(2, 1, *space, generator=generator), sigma_voxels=1.5)
    return smooth[:1] * 5 - 2, smooth[1:] * 5 - 2


def alignment(net: torch.nn.Module, *space: int) -> Alignment:
    fixed, moving = images(*space)
    found = net(fixed, moving)
    return Alignment(fixed, ops.warp(moving, found.displacement), found.displacement, prediction=found, moving=moving)


@pytest.fixture(autouse=True)
def without_gradients(request: pytest.FixtureRequest) -> Iterator[None]:
    """Where nothing learns."""
    with torch.set_grad_enabled("learn" in request.node.name):
        yield


@pytest.mark.parametrize(("widths", "weights"), [([16, 32], 526_444), ([8, 16], 418_340)])
def test_the_published_network_has_as_many_weights(widths, weights):
    net = parse_network({"kind": "cascade", "faithful": True, "widths": widths}).build(dim=3, channels=1)
    assert sum(weight.numel() for weight in net.parameters()) == weights


def test_what_differs_from_the_published_network_is_not_called_faithful():
    with pytest.raises(InputError, match="motion is sum as published"):
        parse_network({"kind": "cascade", "faithful": True, "motion": "compose"})
    settings = parse_network({"kind": "cascade", "faithful": True})
    again = parse_network(settings.model_dump(mode="json"))
    assert again == settings


def test_an_untrained_cascade_is_nearly_the_identity():
    for changes in ({}, {"faithful": True, "widths": [4, 6], "matching": [48, 32, 16], "context": [48, 48, 32]}):
        found = built(**changes)(*images(24, 21))
        assert float(found.displacement.abs().max()) < 0.05


def test_fixed_and_moving_are_not_exchangeable():
    net, (fixed, moving) = built(loud=1e4), images(24, 21)
    there, back = net(fixed, moving).displacement, net(moving, fixed).displacement
    assert float((there - back).abs().max()) > 0.05


@pytest.mark.parametrize(
    "changes",
    [
        {"stages": 2}, {"stages": 3, "tied": True}, {"cost": "absolute"}, {"cost": "none"}, {"context": []},
        {"exponential": False}, {"handed": False}, {"motion": "sum"}, {"motion": "velocity", "stages": 2},
        {"encoder": "strided"}, {"encoder": "strided", "uncertainty": True, "sampled": True}, {"encoders": "separate"},
        {"encoder": "strided", "decoded": True, "uncertainty": True}, {"rounds": 2, "encoders": "separate"},
    ],
    ids=str,
)  # fmt: skip
def test_every_module_can_be_switched_and_every_weight_learns(changes):
    net, (fixed, moving) = built(loud=1e3, **changes), images(24, 21)
    found = net(fixed, moving, torch.Generator().manual_seed(2))
    assert found.displacement.shape == (1, 2, 24, 21)
    values = [found.displacement, *(leaf for octave in found.features.octaves for leaf in octave[1:])]
    values += list(found.features.unexplained)
    sum((value**2).mean() for value in values).backward()
    assert [name for name, w in net.named_parameters() if w.grad is None or not bool(w.grad.abs().max() > 0)] == []


def test_tied_stages_have_the_weights_of_one():
    one, several = (sum(w.numel() for w in built(stages=n, tied=True).parameters()) for n in (2, 5))
    assert one == several
    assert sum(w.numel() for w in built(stages=5).parameters()) > several


def test_without_an_exponential_the_velocity_moves():
    found = built(loud=1e3, exponential=False)(*images(24, 21))
    assert torch.equal(found.stages[0].displacement, found.stages[0].velocity)
    found = built(loud=1e3)(*images(24, 21))
    assert torch.equal(found.stages[0].displacement, ops.exponential(found.stages[0].velocity, squarings=7))


def test_stages_are_composed():
    found = built(loud=1e3, stages=2)(*images(24, 21))
    before, after = found.stages[-2:]
    expected = ops.compose(before.displacement, ops.exponential(after.velocity, squarings=7))
    assert torch.allclose(after.displacement, expected, atol=1e-6)
    assert torch.equal(found.displacement, on_voxels(after.displacement, (24, 21), octave=1))


def test_one_velocity_is_the_whole_where_velocities_are_added():
    found = built(loud=1e3, motion="velocity")(*images(24, 21))
    nodes = ops.exponential(found.velocity, squarings=7)
    assert torch.allclose(found.displacement, on_voxels(nodes, (24, 21), octave=1), atol=1e-6)


def test_encoders_of_their_own_see_images_in_their_own_way():
    fixed, _ = images(24, 21)
    shared, separate = (built(loud=1e3, encoders=name)(fixed, fixed).features for name in ("shared", "separate"))
    assert torch.equal(shared.octaves[0].fixed, shared.octaves[0].moving)
    assert not torch.equal(separate.octaves[0].fixed, separate.octaves[0].moving)


def test_a_term_of_a_stage_looks_at_what_was_known_then():
    net = built(loud=1e3)
    whole = alignment(net, 24, 21)
    terms = parse_terms({
        "lncc": {}, "first": {"term": "lncc", "stage": 1}, "last": {"term": "lncc", "stage": 2},
        "half": {"term": "lncc", "stage": 1, "scale": 1},
        "velocity": {"term": "diffusion", "of": "velocity", "stage": 2}, "prior": {"term": "feature-prior", "stage": 1},
    })  # fmt: skip
    values = Objective.of(terms).values(whole)
    assert float(values["last"]) == pytest.approx(float(values["lncc"]), abs=1e-6)
    assert whole.prediction is not None
    first = whole.prediction.stages[0]
    moved = on_voxels(first.displacement, (24, 21), octave=2)
    assert whole.moving is not None
    there = Alignment(whole.fixed, ops.warp(whole.moving, moved), moved)
    expected = Objective.of(parse_terms({"lncc": {}, "half": {"term": "lncc", "scale": 1}})).values(there)
    assert float(values["first"]) == pytest.approx(float(expected["lncc"]), abs=1e-6)
    assert float(values["half"]) == pytest.approx(float(expected["half"]), abs=1e-6)
    assert float(values["first"]) != pytest.approx(float(values["lncc"]), abs=1e-4)
    second = whole.prediction.stages[1].velocity
    assert float(values["velocity"]) == pytest.approx(float(ops.diffusion(second).mean()), rel=1e-6)


def test_the_prior_of_a_stage_is_of_its_features_alone():
    net = built(loud=1e3, uncertainty=True)
    whole = alignment(net, 24, 21)
    terms = {"all": {"term": "feature-prior"}} | {str(n): {"term": "feature-prior", "stage": n} for n in (1, 2)}
    values = Objective.of(parse_terms(terms)).values(whole)
    assert float(values["all"]) == pytest.approx(0.5 * float(values["1"] + values["2"]), rel=1e-5)


def test_a_stage_that_there_is_not_is_refused():
    whole = alignment(built(), 24, 21)
    with pytest.raises(InputError, match="the network has 2"):
        staged(whole, 3)
    with pytest.raises(InputError, match="none"):
        staged(alignment(built(rounds=2), 24, 21), 1)
    with pytest.raises(InputError, match="stages are a network's"):
        SolverTerms.of(parse_terms({"lncc": {}, "diffusion": {"stage": 1}}))
    with pytest.raises(InputError, match="smooths the displacement"):
        SolverTerms.of(parse_terms({"lncc": {}, "diffusion": {"of": "velocity"}}))


OURS = {"widths": [8, 16, 24], "matching": [24, 16], "context": [16]}
PUBLISHED = {"faithful": True, "widths": [8, 16], "matching": [48, 32, 16], "context": [48, 48, 32]}


@pytest.mark.parametrize("changes", [OURS, PUBLISHED], ids=["ours", "published"])
def test_one_pair_is_learned_to_a_third_of_a_voxel(changes):
    generator = torch.Generator().manual_seed(0)
    moving = 8 * ops.gaussian(torch.randn(1, 1, 48, 48, generator=generator), sigma_voxels=2.5)
    truth = 50 * ops.gaussian(torch.randn(1, 2, 48, 48, generator=generator), sigma_voxels=6.0)
    fixed = ops.warp(moving, truth)
    net = built(**changes).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    inner = (..., slice(6, -6), slice(6, -6))

    def error() -> float:
        return float((net(fixed, moving).displacement.detach() - truth)[inner].square().sum(1).sqrt().mean())

    before = error()
    for _ in range(150):
        optimizer.zero_grad()
        found = net(fixed, moving).displacement
        loss = ((fixed - ops.warp(moving, found)) ** 2).mean() + 1e-3 * ops.diffusion(found).mean()
        loss.backward()
        optimizer.step()
    assert before > 1.5
    assert error() < 0.3
