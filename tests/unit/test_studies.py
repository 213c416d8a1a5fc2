"""Studies: what may be changed, what is proposed, what becomes of it, and what is believed in the end."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import toy_study
from optuna.trial import TrialState
from toy_study import Formula, settings

from warpwise.errors import InputError, RunError
from warpwise.levels.findings import findings
from warpwise.levels.search import as_json, search
from warpwise.levels.space import SearchSpace, at
from warpwise.levels.study import JOURNAL, Study, mend
from warpwise.levels.trials import Outcome, rungs, spread
from warpwise.methods import Method


def space(**parameters) -> SearchSpace:
    return SearchSpace.parse({"parameters": {path.replace("__", "."): of for path, of in parameters.items()}})


def test_the_settings_say_what_is_a_whole_number():
    base = Method.named("balanced")
    kinds = space(registrar__cap={"low": 0.1, "high": 1}, registrar__scales__0__radius={"low": 1, "high": 4}).check(base)
    assert kinds == {"registrar.cap": float, "registrar.scales.0.radius": int}
    with pytest.raises(InputError, match="is a whole number"):
        space(registrar__scales__0__radius={"low": 1, "high": 4, "step": 0.5}).check(base)
    with pytest.raises(InputError, match=r"registrar\.scales\.0\.radius"):
        space(registrar__scales__0__radius={"low": 1.5, "high": 4}).check(base)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"registrar__cup": {"low": 0, "high": 1}}, "cup"),
        ({"registrar__cap": {"low": 1, "high": 0}}, "not below"),
        ({"registrar__cap": {"low": 0, "high": 1, "log": True}}, "low above 0"),
        ({"registrar__cap": {"low": -1, "high": 1}}, "greater than 0"),
        ({"registrar__cap": {"choices": [0.1, 0.1]}}, "twice"),
        ({"registrar__cap": {"low": 0.1, "high": 1, "choices": [0.1]}}, "either low and high"),
        ({"registrar__cap": {"low": 0.1, "high": 1, "when": {"registrar.kind": "svf"}}}, "stands before"),
        (
            {
                "registrar__kind": {"choices": ["greedy"]},
                "registrar__cap": {"low": 0.1, "high": 1, "when": {"registrar.kind": "svf"}},
            },
            "none of its choices",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_any_work(parameters, message):
    with pytest.raises(InputError, match=message):
        space(**parameters).check(Method.named("balanced"))


def test_a_star_is_one_parameter_of_all():
    base = Method.named("balanced")
    made = space(**{"registrar__scales__*__radius": {"low": 1, "high": 4}}).applied(base, {"registrar.scales.*.radius": 3})
    assert [scale.radius for scale in made.registrar.scales] == [3, 3, 3, 3]
    assert at(base, "registrar.scales.3.radius") == 4


def test_a_condition_decides_what_takes_part():
    momentum = {"low": 0, "high": 0.9, "when": {"registrar.kind": "greedy"}}
    conditional = space(registrar__kind={"choices": ["greedy", "svf"]}, registrar__momentum=momentum)
    assert conditional.active({"registrar.kind": "svf"}) == ["registrar.kind"]
    assert conditional.active({"registrar.kind": "greedy"}) == ["registrar.kind", "registrar.momentum"]
    made = conditional.applied(Method.named("balanced"), {"registrar.kind": "greedy", "registrar.momentum": 0.1})
    assert made.registrar.momentum == 0.1


CONDITIONAL = {
    "registrar.kind": {"choices": ["greedy", "svf"]},
    "registrar.cap": {"low": 0.05, "high": 0.8},
    "registrar.momentum": {"low": 0.0, "high": 0.9, "when": {"registrar.kind": "greedy"}},
    "objective.smoothness.update_sigma": {"low": 0.3, "high": 4.0, "log": True},
}


@pytest.mark.parametrize("sampler", ["gp", "tpe"])
def test_models_find_more_than_chance_in_a_conditional_space(tmp_path: Path, sampler: str):
    ends = {}
    for name in (sampler, "random"):
        values = []
        for seed in range(3):
            study = settings(space=CONDITIONAL, sampler=name, trials=24, startup=5, seed=seed)
            found = findings(study, *search(study, tmp_path / f"{name}-{seed}", Formula()))
            assert found.counts["study"] == {"complete": 24}
            values.append(1 - found.best.figures["dice"])
        ends[name] = float(np.median(values))
    # Distance from the optimum: measured 1e-5 (gp), 1e-2 (tpe), 4e-2 (random).
    assert ends[sampler] < (0.1 if sampler == "gp" else 0.7) * ends["random"]


def test_each_branch_has_a_process_that_learns_from_its_own_trials(tmp_path: Path):
    study = settings(space=CONDITIONAL, sampler="gp", trials=24, startup=4)
    proposals, _ = search(study, tmp_path, Formula())
    late = [p for p in proposals["study"] if p.number >= 16]
    assert all(("registrar.momentum" in p.values) == (p.values["registrar.kind"] == "greedy") for p in proposals["study"])
    assert np.mean([abs(p.values["registrar.cap"] - 0.3) for p in late]) < 0.15


def test_a_search_that_goes_on_proposes_what_it_would_have_proposed(tmp_path: Path):
    study = settings(sampler="gp", trials=10)
    whole, _ = search(study, tmp_path / "whole", Formula())

    class Stops(Formula):
        def __call__(self, method, number, report):
            if number == 6 and not (tmp_path / "stopped").exists():
                (tmp_path / "stopped").touch()
                raise KeyboardInterrupt
            return super().__call__(method, number, report)

    with pytest.raises(KeyboardInterrupt):
        search(study, tmp_path / "parts", Stops())
    parts, _ = search(study, tmp_path / "parts", Stops())
    assert [(p.number, p.values, p.figures) for p in parts["study"]] == [
        (p.number, p.values, p.figures) for p in whole["study"]
    ]


def test_what_was_running_is_queued_again_once(tmp_path: Path):
    first = Study(settings(trials=3), Method.named("balanced"), tmp_path)
    asked = first.ask()
    assert asked is not None
    again = Study(settings(trials=3), Method.named("balanced"), tmp_path)
    assert again.requeue() == [0]
    assert again.requeue() == []
    assert again.ask() == asked
    again.tell(0, Outcome({"dice": 0.5}))
    assert again.requeue() == []
    assert [(p.number, p.state) for p in again.proposals()] == [(0, "complete")]
    states = [trial.state for trial in again.optuna.get_trials()]
    assert states == [TrialState.FAIL, TrialState.COMPLETE]


def test_a_journal_that_was_cut_in_a_line_is_mended(tmp_path: Path):
    search(settings(trials=2), tmp_path, Formula())
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(b'{"op_code": 4, "work')
    (tmp_path / f"{JOURNAL}.lock").touch()
    mend(tmp_path)
    proposals, _ = search(settings(trials=4), tmp_path, Formula())
    assert [p.number for p in proposals["study"]] == [0, 1, 2, 3]


def test_a_study_that_is_killed_again_and_again_accounts_for_every_proposal(tmp_path: Path):
    """Twenty kills: benchmarks/studies.py."""
    rng, journal = random.Random(1), tmp_path / JOURNAL
    program = [sys.executable, str(Path(toy_study.__file__)), str(tmp_path), "0.15", "12"]
    for _ in range(3):
        process = subprocess.Popen(program)
        before, end = journal.stat().st_size if journal.exists() else 0, time.monotonic() + 60
        while (not journal.exists() or journal.stat().st_size == before) and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(rng.uniform(0.0, 0.5))  # it is at work
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(program, check=True)
    proposals = Study(settings(), Method.named("balanced"), tmp_path).proposals()
    assert [(p.number, p.state) for p in proposals] == [(n, "complete") for n in range(12)]
    unkilled, _ = search(settings(), tmp_path / "unkilled", Formula())
    assert [p.values for p in proposals] == [p.values for p in unkilled["study"]]


def test_bad_trials_end_early_and_good_ones_do_not(tmp_path: Path):
    study = settings(pruning=True, trials=18)
    found, _ = search(study, tmp_path, Formula())
    states = [p.state for p in found["study"]]
    assert "pruned" in states
    assert all(bool(p.rows) == (p.state == "complete") for p in found["study"])  # none after all of its work
    best = max(p.figures["dice"] for p in found["study"])
    assert best == max(p.figures["dice"] for p in found["study"] if p.state == "complete")


def test_what_does_not_work_is_told_and_does_not_end_the_study(tmp_path: Path):
    class Fails(Formula):
        def __call__(self, method, number, report):
            if number % 2:
                raise RunError("too wild")
            return super().__call__(method, number, report)

    study = settings(trials=4)
    proposals, base = search(study, tmp_path, Fails())
    assert [(p.state, p.why) for p in proposals["study"]] == [("complete", ""), ("failed", "too wild")] * 2
    assert findings(study, proposals, base).counts == {"study": {"complete": 2, "failed": 2}}

    class Never(Formula):
        def __call__(self, method, number, report):
            raise RunError("too wild")

    with pytest.raises(RunError, match="None of 4") as caught:
        search(study, tmp_path / "never", Never())
    assert caught.value.hint == "too wild"


def test_the_best_keeps_to_the_constraints(tmp_path: Path):
    study = settings(sampler="gp", trials=20, constraints={"sd_log_jacobian": {"at_most": 1.2, "of_base": False}})
    found = findings(study, *search(study, tmp_path, Formula()))
    assert found.best.figures["sd_log_jacobian"] <= 1.2  # the optimum has 2
    unbound = findings(settings(trials=20), *search(settings(trials=20), tmp_path / "unbound", Formula()))
    assert unbound.best.figures["sd_log_jacobian"] > 1.2
    relative = settings(trials=20, constraints={"sd_log_jacobian": {"at_most": 1.0, "of_base": True}})
    found = findings(relative, *search(relative, tmp_path / "relative", Formula()))
    assert found.best.figures["sd_log_jacobian"] <= found.base["sd_log_jacobian"]


def test_of_two_objectives_a_front_is_found(tmp_path: Path):
    study = settings(objectives={"dice": "maximize", "sd_log_jacobian": "minimize"}, trials=16)
    proposals, base = search(study, tmp_path, Formula())
    found = findings(study, proposals, base)
    figures = [p.figures for p in proposals["study"]]
    for number in found.front:
        mine = figures[number]
        assert not any(f["dice"] > mine["dice"] and f["sd_log_jacobian"] < mine["sd_log_jacobian"] for f in figures)
    assert found.best.number in found.front


def test_people_who_did_not_choose_the_best_are_told_apart(tmp_path: Path):
    """Of proposals that differ by chance alone, the best looks better than it is."""

    class Chance(Formula):
        def __call__(self, method, number, report):
            rng = np.random.default_rng(number + 1)
            pairs = [(a, b) for a in toy_study.PEOPLE for b in toy_study.PEOPLE if a != b]
            lucky = dict(zip(toy_study.PEOPLE, rng.normal(size=6), strict=True))
            rows = tuple({"fixed": a, "moving": b, "dice": 0.7 + 0.05 * (lucky[a] + lucky[b])} for a, b in pairs)
            return Outcome({"dice": float(np.mean([row["dice"] for row in rows]))}, rows)

    study = settings(trials=40, folds=3)
    found = findings(study, *search(study, tmp_path, Chance()))
    assert found.best.figures["dice"] > 0.75
    assert found.guarded is not None
    assert found.guarded.optimism > 0.04
    assert found.guarded.low < 0.7 + 0.05 < found.best.figures["dice"] + 0.05
    real = settings(trials=12, folds=3)
    better = findings(real, *search(real, tmp_path / "real", Formula()))
    assert better.guarded is not None
    assert better.guarded.gain_low > 0
    assert better.guarded.mean == pytest.approx(better.best.figures["dice"], abs=1e-3)


def test_importance_tells_what_matters(tmp_path: Path):
    idle = {**toy_study.SPACE, "registrar.momentum": {"low": 0.0, "high": 0.9}}
    study = settings(trials=60, space=idle)
    found = findings(study, *search(study, tmp_path, Formula()))
    assert found.importance["registrar.momentum"] < 0.2 < found.importance["objective.smoothness.update_sigma"]


def test_trials_are_written_one_a_line(tmp_path: Path):
    proposals, _ = search(settings(trials=2, baseline=True), tmp_path, Formula())
    lines = as_json(proposals).splitlines()
    assert len(lines) == 4
    assert lines[0].startswith('{"search": "study", "number": 0')


def test_pairs_come_from_everywhere_from_the_first():
    assert rungs(24, 3) == {3: 1, 8: 3, 24: 9}
    assert rungs(2, 3) == {1: 3, 2: 9}
    pairs = [(n, n) for n in range(9)]
    assert spread(pairs, 9)[:3] == [(0, 0), (3, 3), (6, 6)]  # type: ignore[arg-type]
    assert sorted(spread(pairs, 0)) == pairs  # type: ignore[arg-type]
