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
from warpwise.errors import InputError, RunError
from warpwise.levels.checkpoint import load
from warpwise.levels.estimators import ConjugateGradient, DifferencedHessian
from warpwise.levels.history import history
from warpwise.levels.hypergradient import Problem as Inner
from warpwise.levels.hypergradient import hypergradient
from warpwise.levels.solved import Solved, nearer
from warpwise.levels.solver_tuning import TUNED, SolverTuning, level_of, tune
from warpwise.levels.solver_tuning_settings import SolverTuningSettings, read_solver_tuning
from warpwise.levels.trials import pairs_of
from warpwise.methods import Method
from warpwise.objective import Objective
from warpwise.registrars.deformable.energy import Energy, Problem
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


@pytest.mark.parametrize(
    "objective",
    [
        {"similarity": {"term": "mind"}},
        {"similarity": {"term": "lncc", "mapped": True}},
        {"similarity": {"term": "lncc"}, "other": {"term": "mse", "weight": 0.3}},
    ],
)
@pytest.mark.parametrize("finest", [0, 1])
def test_the_sum_of_terms_is_the_energy_that_is_solved(objective: dict[str, Any], finest: int, tmp_path: Path):
    """In 3-D, under a mask of both fields of view, to the finest scale or short of it."""
    toy = toy_dataset(tmp_path / "toy", people=4, shape=(24, 28, 20))
    one = level(toy, tmp_path, objective=objective, newton_steps=0)
    registrar = one.method.registrar
    assert isinstance(registrar, Energy)
    one.method = one.method.replace(registrar=registrar.replace(scales=registrar.scales[: 2 - finest]))
    pair = one.ready(0, 0)
    far = pair.pair.moved(pair.pair.to_moving @ np.array([[1, 0, 0, 4.0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    solved = one.solved(replace(pair, pair=far))
    assert solved.problem.work.weight is not None
    assert solved.problem.work.settings.image == finest
    assert float(solved.problem.value(solved.field)) == pytest.approx(solved.valued(solved.field)[0], rel=1e-5)
    slope = solved.problem.normal_equations()[0] / solved.problem.voxels
    assert np.allclose(slope, solved.valued(solved.field)[1], atol=1e-4 * np.abs(slope).max())
    assert np.isfinite(float(one.gradient(solved)["smoothness"]))


def test_conjugate_gradients_with_a_preconditioner_and_differences_solve_a_quadratic():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(30, 30, generator=generator, dtype=torch.float64)
    matrix = root @ root.T + torch.diag(torch.logspace(0, 4, 30, dtype=torch.float64))
    wanted = torch.randn(30, generator=generator, dtype=torch.float64)

    def loss(_: Any, at: Any) -> torch.Tensor:
        return 0.5 * at["w"] @ matrix @ at["w"]

    problem = Inner.at(loss, {}, {"w": torch.zeros(30, dtype=torch.float64)})
    gaps: dict[str, float] = {}
    for name, precondition in {"none": None, "diagonal": lambda v: [v[0] / matrix.diagonal()]}.items():
        estimator = ConjugateGradient(20, curvature=DifferencedHessian(0.01), precondition=precondition)
        found = estimator.inverse(problem, [matrix @ wanted])[0]
        gaps[name] = float((found - wanted).norm() / wanted.norm())
    assert gaps["diagonal"] < 1e-2 < gaps["none"]
    bent = Inner.at(lambda _, at: -loss(_, at), {}, {"w": torch.zeros(30, dtype=torch.float64)})
    with pytest.raises(RunError, match="at no minimum"):
        ConjugateGradient(5).inverse(bent, [wanted])
    taken = ConjugateGradient(5, truncated=True).inverse(bent, [wanted])[0]
    assert torch.equal(taken, wanted)  # the right way, if not all of it


def test_what_is_judged_is_what_a_registration_delivers(toy: Path, tmp_path: Path):
    one = level(toy, tmp_path, objective={"smoothness": {"weight": 0.0005}}, newton_steps=0)
    solved = one.solved(one.ready(0, 0))
    assert solved.mended is not None
    assert np.abs(solved.mended).max() > 0.01  # so little smoothness folds
    fields = [here.alignment(here.inner()).displacement for here in (solved, replace(solved, mended=None))]
    least = [float(ops.digital_determinants(field).min()) for field in fields]
    assert least[0] > 0 > least[1]


def test_shares_are_divided_by_what_their_terms_come_to(toy: Path, tmp_path: Path):
    objective = {"similarity": {"term": "lncc", "weight": 1.0}, "other": {"term": "mse", "weight": 1.0}}
    one = level(toy, tmp_path, objective=objective, newton_steps=0, tuning={"shares": ["similarity", "other"]})
    before = {name: float(value) for name, value in one.values.items()}
    one.step(0, [one.ready(0, 0)])
    solved = one.solved(one.ready(0, 0))
    assert one.scaled
    scales = {name: float(scale) for name, scale in one.lambdas.scales.items()}
    assert scales["similarity"] > 10 * scales["other"] > 0
    weighed = {name: float(one.values[name]) * scales[name] for name in scales}
    assert sum(weighed.values()) == pytest.approx(2.0, rel=1e-4)
    assert before["smoothness"] != float(one.values["smoothness"])
    assert solved.names == ("similarity", "other")


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
    assert len(states[1]["residuals"]) == 4  # by which it is judged in the end


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "balanced"}, "registrar is 'greedy'"),
        ({"method": "affine"}, "registrar is 'none'"),
        ({"tuning": {"windows": {"similarity": [1, 2]}}}, "are of networks"),
        ({"tuning": {"weights": ["stiffness"]}}, "no 'stiffness'"),
        ({"tuning": {"weights": ["labels"]}}, "no 'labels'"),
        ({"tuning": {"estimator": "unrolled"}}, "implicit"),
        ({"tuning": {"outer": {"kl": {}}}}, "is for networks"),
        ({"tuning": {"warmup": 5}}, "less than or equal to 0"),
        ({"method": {"base": "energy", "objective": {"similarity": {"term": "mi"}}}}, "second-order"),
        ({"method": {"base": "energy", "objective": {"smoothness": {"weight": 0.0}}}}, "needs a"),
    ],
)
def test_what_cannot_be_tuned_is_refused_before_work(toy: Path, changes: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        SolverTuningSettings.parse({"method": "energy", "data": {"dataset": toy}, **changes})


def test_the_command_learns_says_and_leaves_a_method(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "tune.yaml"
    content = settings(toy, tuning={"learning_rate": 0.3, "warmup": 0}, steps=2, newton_steps=0).model_dump(mode="json")
    content["data"]["dataset"] = "toy"
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content["method"]))
    content["method"] = "mine.yaml"  # beside the settings, wherever the command is given
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
    other = str(tmp_path / "usual")  # the method as it comes
    roughly = ["--roughness", "0.4", "--steps", "1", "--tune", "objective.*.weight", "--quiet"]
    assert execute(["tune", "--dataset", str(toy), "-o", other, *roughly]) == 0
    assert "objective.smoothness.weight: 0.1 before" in capsys.readouterr().out
    assert json.loads((run / "history.jsonl").read_text().splitlines()[-1])["step"] == 2
