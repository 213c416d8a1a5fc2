"""Objectives that tune themselves: the step that is differentiated, what is free, what never leaks."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lightning_fabric import Fabric
from safetensors.torch import load_file
from torch import Tensor
from toys import SMALL_NETWORK, toy_dataset

from warpwise import ops
from warpwise.alignment import Alignment
from warpwise.data.prepared import own_pairs
from warpwise.errors import InputError
from warpwise.evaluation.metrics import regularity
from warpwise.events import Event, ignore
from warpwise.grid import Grid
from warpwise.image import Image
from warpwise.io.images import read_image, write_image
from warpwise.levels.estimators import AdamStep, OneStep
from warpwise.levels.history import history
from warpwise.levels.hypergradient import hypergradient
from warpwise.levels.lambdas import Lambdas
from warpwise.levels.settings import TrainingSettings
from warpwise.levels.training import TUNED, Run, data_of, store_of, train, tuned_levels
from warpwise.levels.tuning import Tuning
from warpwise.levels.tuning_settings import PART, TuningSettings
from warpwise.levels.weights import Weights
from warpwise.networks import parse_network
from warpwise.networks.base import initialise, predict
from warpwise.objective import Objective
from warpwise.regularizers.budget import Budget
from warpwise.terms.term import parse_terms
from warpwise.transforms.displacement import DisplacementField

PEOPLE = {"train": ["0", "1", "2"], "tune": ["3", "4", "5"], "select": ["6", "7"]}
OBJECTIVE = {"lncc": {"radius": 2}, "smooth": {"term": "diffusion", "weight": 0.1}}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_dataset(tmp_path_factory.mktemp("data") / "toy", people=8)


def settings(dataset: Path, *, tuning: Mapping[str, Any] | None = None, **changes: Any) -> TrainingSettings:
    content = {
        "network": {"kind": "pyramid", **SMALL_NETWORK},
        "data": {"dataset": str(dataset), "alignment": "none", "people": PEOPLE},
        "objective": OBJECTIVE,
        "optimizer": {"warmup": 0, "learning_rate": 3e-3, "averaging": 0},
        "steps": 8,
        "validate_every": 4,
        "validation_pairs": 1,
        "tuning": {"warmup": 2, "learning_rate": 0.1, **(tuning or {})},
        **changes,
    }
    return TrainingSettings.parse(content)


def levels(data: Path, folder: Path, **changes: Any) -> tuple[Weights, Tuning]:
    wanted = settings(data, **changes)
    fabric = Fabric(accelerator="cpu", devices=1)
    run = Run(folder)
    ready = data_of(wanted, run, ignore)
    own = own_pairs(wanted.data, store_of(run), ready, PART, seed=1)
    weights, tuning = tuned_levels(fabric, wanted, ready, folder, own)
    assert isinstance(weights, Weights)
    assert isinstance(tuning, Tuning)
    return weights, tuning


def network64() -> tuple[torch.nn.Module, dict[str, Tensor]]:
    net = initialise(
        parse_network({"kind": "pyramid", **SMALL_NETWORK}).build(dim=2, channels=1), torch.Generator().manual_seed(0)
    )
    net = net.double()
    return net, dict(net.named_parameters())


@pytest.mark.parametrize(("clip", "mixed"), [(None, "exact"), (0.01, "exact"), (0.01, "difference")])
def test_the_step_that_a_network_really_makes_is_differentiated(clip: float | None, mixed: str):
    """Three steps of Adam, then dU/dλ of the fourth, with its clip, against central differences."""
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(4, 1, 20, 18, generator=generator, dtype=torch.float64)
    fixed, moving = (4 * ops.gaussian(noise, sigma_voxels=2.0)).chunk(2)
    objective = Objective.of(parse_terms({"lncc": {"radius": 2}, "mse": {}, "diffusion": {}}))
    start = {"mse": torch.tensor(0.7, dtype=torch.float64), "diffusion": torch.tensor(0.3, dtype=torch.float64)}

    def aligned(net: torch.nn.Module, weights: Mapping[str, Tensor]) -> Alignment:
        found = predict(net, weights, fixed, moving)
        return Alignment(fixed, ops.warp(moving, found.displacement), found.displacement, prediction=found)

    def inner(net: torch.nn.Module) -> Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Tensor]:
        def loss(outer: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> Tensor:
            values = objective.values(aligned(net, weights))
            return values["lncc"] + sum(outer[name] * values[name] for name in outer)

        return loss

    def outer(net: torch.nn.Module) -> Callable[[Any, Mapping[str, Tensor]], Tensor]:
        return lambda _, weights: (aligned(net, weights).displacement - 0.5).square().mean()

    def trained(last: Mapping[str, Tensor], steps: int) -> tuple[torch.nn.Module, torch.optim.Adam]:
        net, weights = network64()
        adam = torch.optim.Adam(weights.values(), lr=1e-2)
        for n in range(steps):
            adam.zero_grad()
            inner(net)(start if n < 3 else last, weights).backward()
            if clip is not None:
                assert float(torch.nn.utils.clip_grad_norm_(weights.values(), clip)) > 2 * clip
            adam.step()
        return net, adam

    def after(name: str, value: Tensor) -> Tensor:
        net, _ = trained({**start, name: value}, 4)
        return outer(net)(None, dict(net.named_parameters())).detach()

    net, adam = trained(start, 3)
    estimator = OneStep(AdamStep(adam, clip), mixed=mixed)  # type: ignore[arg-type]
    found = hypergradient(outer(net), inner(net), start, dict(net.named_parameters()), estimator=estimator)
    for name, value in start.items():
        h = 2e-5
        expected = (after(name, value + h) - after(name, value - h)) / (2 * h)
        assert float((found[name] - expected).abs() / expected.abs()) < (1e-6 if mixed == "exact" else 0.02)


def test_shares_are_of_the_same_whole_and_divided_by_what_terms_come_to():
    lambdas = Lambdas(start={"a": 1.0, "b": 3.0, "c": 0.2}, factors={"c": ("c",)}, mixtures=[("a", "b")])
    weights = lambdas.of(lambdas.free)
    assert {name: round(float(value), 6) for name, value in weights.items()} == {"a": 1.0, "b": 3.0, "c": 0.2}
    lambdas.scales["a"].fill_(0.5)
    lambdas.scales["b"].fill_(0.25)
    moved = {**lambdas.free, "shares-0": lambdas.free["shares-0"] + torch.tensor([1.0, -2.0])}
    weights = lambdas.of(moved)
    assert float(weights["a"] * 0.5 + weights["b"] * 0.25) == pytest.approx(4.0)
    assert all(float(value) > 0 for value in lambdas.of({name: free - 30 for name, free in lambdas.free.items()}).values())


@pytest.mark.parametrize(
    ("tuning", "expected"),
    [
        ({}, {"smooth": ("smooth",), "folds": ("folds",)}),
        ({"weights": ["smooth"]}, {"smooth": ("smooth",)}),
        ({"groups": {"shape": ["smooth", "folds"]}}, {"shape": ("smooth", "folds")}),
        ({"gauge": "smooth"}, {"lncc": ("lncc",), "folds": ("folds",)}),
    ],
)
def test_which_weights_are_free(tuning, expected):
    terms = parse_terms({**OBJECTIVE, "folds": {"term": "folding", "weight": 0.1}})
    assert TuningSettings.parse(tuning).factors(terms) == expected


def test_windows_become_terms_whose_shares_are_free():
    tuning = TuningSettings.parse({"windows": {"lncc": [2, 3, 5]}, "shares": ["lncc", "ncc"]})
    terms = tuning.opened(parse_terms({**OBJECTIVE, "ncc": {}}))
    assert [name for name in terms if name.startswith("lncc")] == ["lncc-2", "lncc-3", "lncc-5"]
    assert tuning.mixtures(terms) == [("ncc", "lncc-2", "lncc-3", "lncc-5")]
    assert tuning.factors(terms) == {"smooth": ("smooth",)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tuning": {"outer": {"lncc": {"radius": 2, "weight": 3.0}}}}, "good for ever"),
        ({"tuning": {"weights": ["smoth"]}}, "no 'smoth'"),
        ({"tuning": {"groups": {"a": ["smooth"], "b": ["smooth"]}}}, "in two"),
        ({"tuning": {"windows": {"smooth": [1, 2]}}}, "no radius"),
        ({"tuning": {"windows": {"lncc": [2]}}}, "two radii"),
        ({"tuning": {"shares": ["smooth", "lncc"]}}, "no similarity"),
        ({"tuning": {"groups": {"all": ["smooth", "lncc"]}}}, "measured by"),
        ({"objective": {"lncc": {}}}, "nothing is tuned"),
        ({"synthetic": {"shape": [32, 32]}}, "on pairs of people"),
    ],
)
def test_what_cannot_be_tuned_is_refused(toy: Path, changes, message):
    with pytest.raises(InputError, match=message):
        settings(toy, **changes)


def test_nobody_to_tune_on_is_refused(toy: Path, tmp_path: Path):
    data = {"dataset": str(toy), "alignment": "none", "people": {k: v for k, v in PEOPLE.items() if k != PART}}
    with pytest.raises(InputError, match="nobody is in 'tune'"):
        settings(toy, data=data)
    alone = {**data, "people": {**PEOPLE, PART: ["3"]}}
    with pytest.raises(InputError, match="no pairs with label maps"):
        train(settings(toy, data=alone), Run(tmp_path / "run"))


@pytest.mark.parametrize(
    "network",
    [
        {"kind": "vm-diff", "encoder": [4, 6, 6, 6], "decoder": [6, 6, 6]},
        {"kind": "cascade", "faithful": True, "widths": [4, 6], "uncertainty": True},
        {"kind": "features", "widths": [4, 6], "features": 3, "finest": 0, "stages": [1, 1]},
        {"kind": "pyramid", **SMALL_NETWORK, "labels": 3, "uncertainty": True},
    ],
    ids=lambda network: network["kind"],
)
def test_every_network_can_be_tuned_by(toy: Path, tmp_path: Path, network):
    """Also where U does not look at all of its weights."""
    weights, level = levels(toy, tmp_path, network=network, tuning={"warmup": 0})
    weights.step(0, weights.draw(0))
    said = level.step(0, level.draw(0))
    assert said["gradient"] > 0
    assert said["weight.smooth"] != pytest.approx(0.1, rel=1e-6)


def test_too_much_smoothness_falls_and_too_little_rises(toy: Path, tmp_path: Path):
    """U: overlap on other people, and a bound on roughness far below what a start without smoothness has."""
    ends = {}
    for name, weight in (("much", 10.0), ("little", 0.001)):
        objective = {"lncc": {"radius": 2}, "smooth": {"term": "diffusion", "weight": weight}}
        outer = {"dice": {}} if name == "much" else {"dice": {}, "budget": {"at_most": 0.02, "weight": 10.0}}
        folder = tmp_path / name
        train(settings(toy, objective=objective, steps=40, tuning={"outer": outer, "warmup": 15}), Run(folder))
        tuned = yaml.safe_load((folder / TUNED).read_text())
        assert tuned["tuning"] is None
        ends[name] = tuned["objective"]["smooth"]["weight"] / weight
        rows = [row for row in history(folder) if row["kind"] == "train"]
        assert {"tuning/weight.smooth", "tuning/outer", "tuning/gradient", "tuning/drift"} <= {*rows[-1]}
        assert rows[-1]["tuning/weight.lncc"] == 1.0
        TrainingSettings.parse(tuned)
    assert ends["much"] < 0.9
    assert ends["little"] > 1.3


def permuted(toy: Path, folder: Path) -> Path:
    """The same data, but labels of those to tune on exchanged: 1 → 2 → 3 → 1, and moved by some voxels."""
    shutil.copytree(toy, folder)
    for person in PEOPLE[PART]:
        file = folder / "labels" / f"{person}.nii.gz"
        image = read_image(file, kind="labels")
        values = image.data.astype(int)
        other = ((values % 3 + 1) * (values > 0)).astype("uint8")[:, ::-1].copy()
        write_image(file, Image(other, image.grid, "labels"))
    return folder


def test_labels_of_those_to_tune_on_reach_weights_through_lambda_alone(toy: Path, tmp_path: Path):
    other = permuted(toy, tmp_path / "permuted")
    ends: dict[tuple[str, bool], dict[str, Tensor]] = {}
    for name, data in (("plain", toy), ("permuted", other)):
        for frozen in (True, False):
            folder = tmp_path / f"{name}-{frozen}"
            train(settings(data, tuning={"warmup": 1, **({"learning_rate": 1e-30} if frozen else {})}), Run(folder))
            ends[name, frozen] = load_file(folder / "last" / "weights.safetensors")
    assert all(torch.equal(a, ends["permuted", True][k]) for k, a in ends["plain", True].items())
    assert not all(torch.equal(a, ends["permuted", False][k]) for k, a in ends["plain", False].items())


def test_a_tuning_that_goes_on_ends_with_the_same_bits(toy: Path, tmp_path: Path):
    class Enough(Exception):  # noqa: N818
        pass

    def stop(event: Event) -> None:
        if event.stage == "train" and event.step == 5:
            raise Enough

    shares = {"windows": {"lncc": [2, 3]}, "warmup": 2}
    train(settings(toy, tuning=shares), Run(tmp_path / "whole"))
    with pytest.raises(Enough):
        train(settings(toy, tuning=shares), Run(tmp_path / "parts", on_event=stop))
    train(settings(toy, tuning=shares), Run(tmp_path / "parts", resume=True))
    one, other = (load_file(tmp_path / name / "last" / "state.safetensors") for name in ("whole", "parts"))
    assert one.keys() == other.keys()
    assert [name for name, value in one.items() if not torch.equal(value, other[name])] == []
    assert (tmp_path / "whole" / TUNED).read_text() == (tmp_path / "parts" / TUNED).read_text()


def test_a_leak_of_lambda_to_the_lower_optimizer_is_told(toy: Path, tmp_path: Path):
    """λ is an ordinary parameter that the lower Adam moves, too, by the slope of its loss, which is the term itself."""
    objective = {**OBJECTIVE, "bend": {"term": "bending", "weight": 0.1}}
    told = {}
    for leaky in (True, False):
        rate = 1e-6 if leaky else 0.1  # U hardly moves it, and the lower optimizer all the more
        tuning = {"warmup": 0, "patience": 25, "learning_rate": rate}
        weights, level = levels(toy, tmp_path / str(leaky), objective=objective, tuning=tuning, steps=60)
        free = level.lambdas.free
        lower = torch.optim.Adam(free.values(), lr=1e-2)
        for step in range(26):
            said = weights.step(step, weights.draw(step))
            if leaky:
                leaked = {name: value.clone().requires_grad_() for name, value in free.items()}
                sum(weight * said[name] for name, weight in level.lambdas.of(leaked).items()).backward()
                for name, value in free.items():
                    value.grad = leaked[name].grad
                lower.step()
            level.step(step, level.draw(step))
        told[leaky] = level.warnings()
    assert any("a drift" in word for word in told[True])
    assert told[False] == []


def test_a_hypergradient_is_compared_with_conjugate_gradients(toy: Path, tmp_path: Path):
    weights, level = levels(toy, tmp_path, tuning={"warmup": 0, "check_every": 2, "iterations": 3, "damping": 1.0})
    for step in range(2):
        weights.step(step, weights.draw(step))
        said = level.step(step, level.draw(step))
    assert -1 <= said["cosine"] <= 1
    level.cosines = [0.1, 0.2]
    assert any("tuning failed" in word for word in level.warnings())


def test_tuning_ends_when_nothing_moves(toy: Path, tmp_path: Path):
    _, level = levels(toy, tmp_path, tuning={"warmup": 0, "patience": 10, "learning_rate": 1e-6})
    for step in range(12):
        level.step(step, level.draw(step))
    assert level.frozen
    assert level.step(12, level.draw(12)) == {}


def test_a_budget_is_what_evaluations_report():
    generator = torch.Generator().manual_seed(0)
    field = 8 * ops.gaussian(torch.randn(1, 2, 40, 36, generator=generator), sigma_voxels=3.0)
    image = torch.zeros(1, 1, 40, 36)
    mask = torch.zeros(1, 1, 40, 36)
    mask[..., 5:30, 6:30] = 1
    grid = Grid((40, 36), np.eye(3))
    expected = regularity(DisplacementField(field[0].numpy(), grid), grid, mask[0, 0].numpy() > 0).sd_log_jacobian
    alignment = Alignment(image, image, field, mask)
    measured = float(Budget().measured(alignment))
    assert measured == pytest.approx(expected, rel=1e-3)
    assert float(Budget(at_most=2 * measured)(alignment)) == 0
    assert float(Budget(at_most=measured / 2)(alignment)) == pytest.approx(1.0, rel=1e-4)
    labels = torch.zeros(1, 2, 40, 36)
    labels[:, 0, 8:15, 9:20], labels[:, 1, 15:22, 9:20] = 1, 1
    told = replace(alignment, fixed_labels=labels)
    within = regularity(DisplacementField(field[0].numpy(), grid), grid, labels[0].sum(0).numpy() > 0).sd_log_jacobian
    assert float(Budget().measured(told)) == pytest.approx(within, rel=1e-3)
    assert abs(within - expected) > 0.01 * expected
    none = replace(alignment, fixed_labels=torch.zeros_like(labels))  # a window without any of them
    assert float(Budget().measured(none)) == pytest.approx(measured)
    assert json.loads(Budget().model_dump_json())["measure"] == "sd_log_jacobian"
