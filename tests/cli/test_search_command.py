"""search, as people meet it."""

import json
from pathlib import Path

import pytest
import yaml
from toys import SMALL_NETWORK, toy_dataset

from warpwise.cli import execute


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_dataset(tmp_path_factory.mktemp("data") / "toy")


STUDY = {
    "method": {"base": "fast", "linear": None},
    "space": {
        "objective.smoothness.update_sigma": {"low": 0.5, "high": 2.0, "log": True},
        "registrar.kind": {"choices": ["greedy", "svf"]},
    },
    "trials": 3,
    "startup": 2,
}


def study(folder: Path, **changes: object) -> Path:
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump({**STUDY, **changes}))
    return file


def test_a_study_of_a_method_ends_in_a_method_and_a_page(toy: Path, tmp_path: Path, capsys):
    out = tmp_path / "out"
    file = study(tmp_path, data={"dataset": str(toy)}, constraints={"percent_folded": {"at_most": 1.0}})
    assert execute(["search", str(file), "-o", str(out), "--quiet"]) == 0
    assert "registrar.kind" in capsys.readouterr().out
    page = (out / "report.html").read_text()
    for title in ("Best so far", "Slices", "Four people at least are needed"):
        assert title in page
    trials = [json.loads(line) for line in (out / "trials.jsonl").read_text().splitlines()]
    assert [(t["search"], t["number"]) for t in trials] == [(name, n) for name in ("study", "random") for n in range(3)]
    best = json.loads((out / "findings.json").read_text())["best"]
    method = yaml.safe_load((out / "best.yaml").read_text())
    assert method["registrar"]["kind"] == best["values"]["registrar.kind"]
    images = [str(toy / "images" / f"{n}.nii.gz") for n in (0, 1)]
    assert execute(["register", *images, "-o", str(tmp_path / "reg"), "--method", str(out / "best.yaml"), "--quiet"]) == 0
    assert execute(["search", str(file), "-o", str(out), "--quiet"]) == 2  # it is there already
    before = (out / "trials.jsonl").read_text()
    assert execute(["search", "-o", str(out), "--resume", "--quiet"]) == 0
    assert (out / "trials.jsonl").read_text() == before


def test_two_processes_share_a_study(toy: Path, tmp_path: Path):
    file = study(tmp_path, data={"dataset": str(toy), "pairs": 2}, trials=4, baseline=False, sampler="random")
    assert execute(["search", str(file), "-o", str(tmp_path / "two"), "--processes", "2", "--quiet"]) == 0
    assert execute(["search", str(file), "-o", str(tmp_path / "one"), "--quiet"]) == 0
    found = []
    for name in ("two", "one"):
        lines = (tmp_path / name / "trials.jsonl").read_text().splitlines()
        found.append([(t["number"], t["values"], t["figures"]["dice"]) for t in map(json.loads, lines)])
    assert found[0] == found[1]


def test_a_study_of_a_training_ends_in_settings_to_train_by(toy: Path, tmp_path: Path):
    training = {
        "network": {"kind": "pyramid", **SMALL_NETWORK},
        "data": {"dataset": str(toy), "alignment": "none"},
        "objective": {"lncc": {}, "diffusion": {"weight": 0.1}},
        "steps": 3,
        "validate_every": 1,
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(training))
    space = {"objective.diffusion.weight": {"low": 0.01, "high": 1.0, "log": True}}
    content = {"config": "config.yaml", "space": space, "trials": 2, "sampler": "random", "baseline": False}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(content))
    out = tmp_path / "out"
    assert execute(["search", str(tmp_path / "study.yaml"), "-o", str(out), "--quiet"]) == 0
    best = json.loads((out / "findings.json").read_text())["best"]["values"]["objective.diffusion.weight"]
    assert yaml.safe_load((out / "best.yaml").read_text())["objective"]["diffusion"]["weight"] == best
    assert execute(["train", str(out / "best.yaml"), "-o", str(tmp_path / "again"), "--quiet"]) == 0


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["-o", "OUT"], "nothing to search"),
        (["STUDY"], "Where should the study go"),
        (["STUDY", "-o", "OUT", "--study", "brian"], "brain"),
        (["STUDY", "-o", "OUT", "--resume"], "goes on as it began"),
        (["-o", "OUT", "--resume"], "no study to go on with"),
    ],
)
def test_a_search_that_cannot_begin_says_why(arguments, word, toy: Path, tmp_path: Path, capsys):
    file = study(tmp_path, data={"dataset": str(toy)})
    named = {"STUDY": str(file), "OUT": str(tmp_path / "out")}
    assert execute(["search", *[named.get(a, a) for a in arguments]]) == 2
    assert word in capsys.readouterr().err


def test_a_ready_study_fits_the_method_that_it_changes(toy: Path):
    from warpwise.levels.study_settings import ready_study

    ready = ready_study("brain", toy)
    kinds = ready.search_space.check(ready.base())
    assert kinds["registrar.scales.4.iterations"] is int
    values = ready.search_space.of(ready.base())
    assert values is not None
