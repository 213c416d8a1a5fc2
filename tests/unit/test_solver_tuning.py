"""The energy solver's objective tuned by implicit gradients: against tensors, against differences, and whole runs."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from toys import toy_dataset

from warpwise import ops
from warpwise.alignment import Alignment
from warpwise.cli import execute
from warpwise.errors import InputError
from warpwise.levels.checkpoint import load
from warpwise.levels.history import history
from warpwise.levels.hypergradient import hypergradient
from warpwise.levels.solved import Solved, nearer
from warpwise.levels.solver_tuning import TUNED, SolverTuning, level_of, tune
from warpwise.levels.solver_tuning_settings import SolverTuningSettings, read_solver_tuning
from warpwise.levels.trials import pairs_of
from warpwise.methods import Method
from warpwise.objective import Objective
from warpwise.registrars.deformable.energy import Problem
from warpwise.terms.term import parse_terms

SCALES = [{"image": 1, "iterations": 10}, {"image": 0, "iterations": 10, "radius": 2}]
OBJECTIVE = {
    "labels": {"weight": 0.0},
    "landmarks": {"weight": 0.0},
    "similarity": {"term": "mse"},
    "smoothness": {"weight": 0.05},
}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_dataset(tmp_path_factory.mktemp("data") / "toy", people=6)


def settings(toy: Path, objective: dict[str, Any] | None = None, **changes: Any) -> SolverTuningSettings:
    method = {
        "base": "energy", "linear": None, "objective": {**OBJECTIVE, **(objective or {})}, "registrar": {"scales": SCALES},
    }  # fmt: skip
    return SolverTuningSettings.parse({"method": method, "data": {"dataset": toy}, **changes})


def level(toy: Path, folder: Path, **changes: Any) -> SolverTuning:
    wanted = settings(toy, **changes)
    return level_of(wanted, pairs_of(wanted.data), folder)


@pytest.mark.parametrize("term", ["lncc", "mse"])
def test_terms_and_slopes_are_those_of_tensors(toy: Path, tmp_path: Path, term: str):
    one = level(toy, tmp_path, objective={"similarity": {"term": term, "weight": 0.7}}, newton_steps=0)
    solved = one.solved(one.ready(0, 0))
    at = solved.inner()
    at["u"].requires_grad_()
    values = solved.values(at)
    assert values["smoothness"].item() > 0
    work = solved.problem.work
    fixed, moving = (torch.from_numpy(x).double()[None, :, :, 0] for x in (work.fixed, work.moving))
    u = at["u"].detach().double()[None][:, [0, 2], :, 0].requires_grad_()
    weight = None if work.weight is None else torch.from_numpy(work.weight).double()[None, :, :, 0]
    objective = Objective.of(parse_terms({"similarity": {"term": term}, "smoothness": {"term": "diffusion"}}))
    expected = objective.values(Alignment(fixed, ops.warp(moving, u, interpolation="cubic"), u, weight))
    for name in ("similarity", "smoothness"):
        assert values[name].item() == pytest.approx(expected[name].item(), rel=2e-4)
        (slope,) = torch.autograd.grad(values[name], at["u"], retain_graph=True)
        (reference,) = torch.autograd.grad(expected[name], u, retain_graph=True)
        gap = (slope[[0, 2], :, 0] - reference[0]).norm() / reference.norm()
        assert float(gap) < 2e-3
        assert not slope[1].any()


def minimum(solved: Solved, weight: float) -> Solved:
    problem = Problem(solved.problem.work, weight, cubic=True)
    return nearer(replace(solved, problem=problem), steps=30, enough=1e-6)


def logarithms(at: Any) -> dict[str, torch.Tensor]:
    return {name: value.exp() for name, value in at.items()}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_overlap_changes_with_a_weight_as_registrations_by_other_weights_say(tmp_path: Path, seed: int):
    weight, step = 0.05, 0.05
    one = level(toy_dataset(tmp_path / "toy", people=4, seed=seed), tmp_path, newton_steps=0)
    solved = minimum(one.solved(one.ready(0, 0)), weight)
    assert solved.residual() < 1e-4

    def outer(_: Any, inner: Any) -> torch.Tensor:
        found = solved.alignment(inner)  # by cubic splines, whose slope goes with the overlap at every step
        moved = ops.warp(found.moving_labels, found.displacement, interpolation="cubic")
        return one.outer(replace(found, warped_labels=moved))

    def inner(at: Any, u: Any) -> torch.Tensor:
        return solved.loss(logarithms(at), u)

    free = {"similarity": torch.tensor(0.0), "smoothness": torch.tensor(np.log(weight))}
    estimator = solved.estimator(logarithms, iterations=100, tolerance=1e-4)
    found = hypergradient(outer, inner, free, solved.inner(), estimator=estimator)
    ends = [outer(None, minimum(solved, weight * float(np.exp(s * step))).inner()).item() for s in (1, -1)]
    expected = (ends[0] - ends[1]) / (2 * step)
    assert float(found["smoothness"]) == pytest.approx(expected, rel=0.05)
    # Only ratios matter: at a minimum the weights' logarithms undo each other.
    both = float(found["smoothness"] + found["similarity"])
    assert abs(both) < 1e-3 * abs(float(found["smoothness"]))


def test_a_weight_that_is_too_large_falls_and_a_budget_makes_it_rise(toy: Path, tmp_path: Path):
    ends: dict[str, float] = {}
    for name, outer in {
        "free": {"dice": {}},
        "bounded": {"dice": {}, "budget": {"at_most": 0.06, "weight": 10.0}},
    }.items():
        tuning = {"learning_rate": 0.5, "warmup": 0, "outer": outer}
        stiff = {"smoothness": {"weight": 0.5}}
        wanted = settings(toy, stiff, tuning=tuning, steps=6, newton_steps=3)
        before, after = tune(wanted, tmp_path / name)
        assert before.objective["smoothness"].weight == 0.5
        ends[name] = after.objective["smoothness"].weight
        assert Method.named(tmp_path / name / TUNED) == after
        lines = [r for r in history(tmp_path / name) if r["kind"] == "train"]
        assert lines[-1]["residual"] < 0.02
    assert ends["free"] < 0.2
    assert ends["bounded"] > 0.6


def test_a_run_that_was_stopped_ends_as_one_that_was_not(toy: Path, tmp_path: Path):
    wanted = settings(toy, tuning={"learning_rate": 0.2, "warmup": 0}, steps=4, newton_steps=2)
    tune(wanted, tmp_path / "whole")

    def stop(event: Any) -> None:
        if event.stage == "train" and event.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(wanted.replace(steps=4), tmp_path / "stopped", on_event=stop)
    tune(None, tmp_path / "stopped")
    states = [load(tmp_path / name / "last")[0]["tuning"] for name in ("whole", "stopped")]
    free = [{k: v for k, v in state.items() if isinstance(v, torch.Tensor)} for state in states]
    assert free[0].keys() == free[1].keys()
    assert all(torch.equal(value, free[1][name]) for name, value in free[0].items())
    assert (tmp_path / "whole" / TUNED).read_text() == (tmp_path / "stopped" / TUNED).read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "balanced"}, "registrar is 'greedy'"),
        ({"method": "affine"}, "registrar is 'none'"),
        ({"tuning": {"windows": {"similarity": [1, 2]}}}, "are of networks"),
        ({"tuning": {"weights": ["stiffness"]}}, "no 'stiffness'"),
        ({"tuning": {"estimator": "unrolled"}}, "implicit"),
    ],
)
def test_what_cannot_be_tuned_is_refused_before_work(toy: Path, changes: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        SolverTuningSettings.parse({"method": "energy", "data": {"dataset": toy}, **changes})


def test_the_command_learns_says_and_leaves_a_method(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "tune.yaml"
    content = settings(toy, tuning={"learning_rate": 0.3, "warmup": 0}, steps=2, newton_steps=0).model_dump(mode="json")
    content["data"]["dataset"] = "toy"
    file.write_text(yaml.safe_dump(content))
    (tmp_path / "toy").symlink_to(toy)
    assert read_solver_tuning(file).data.dataset == (tmp_path / "toy").resolve()
    run = tmp_path / "run"
    assert execute(["tune", str(file), "-o", str(run), "--tune", "objective.smooth*.weight", "--quiet"]) == 0
    assert "objective.smoothness.weight: 0.05 before" in capsys.readouterr().out
    images = [str(toy / "images" / f"{n}.nii.gz") for n in (0, 1)]
    out = str(tmp_path / "reg")
    assert execute(["register", *images, "-o", out, "--method", str(run / TUNED), "--quiet"]) == 0
    assert execute(["tune", "-o", str(run), "--resume", "--quiet"]) == 0  # it is done already
    assert execute(["tune", str(file), "-o", str(run), "--resume"]) == 2
    assert execute(["tune", "-o", str(tmp_path / "other")]) == 2
    assert json.loads((run / "history.jsonl").read_text().splitlines()[-1])["step"] == 2
