"""Who trains, selects and is tested in the benchmarks: nobody twice, and as written down."""

from pathlib import Path

import pytest
from learned import pairs_of, settings_of
from learned_tables import content_of
from out_of_fold import folds_of
from protocol import DATASETS, FOLDS, people

from warpwise.data.people import person
from warpwise.io.datasets import read_dataset

PROTOCOL = Path(__file__).parents[2] / "benchmarks" / "protocol.md"
SIZES = {"hippocampus": (52, 12, 12, 24, 12), "heart": (28, 7, 7, 12, 10), "brains": (7, 0, 0, 4, 4)}


@pytest.mark.parametrize("task", list(DATASETS))
def test_nobody_is_in_two_parts_and_everybody_is_written_down(task: str, data: Path):
    dataset, tested = read_dataset(data / DATASETS[task]), []
    for fold in range(FOLDS if task == "brains2d" else 1):
        parts = people(task, dataset, fold=fold)
        everybody = [name for part in parts.values() for name in part]
        assert len(everybody) == len(set(everybody))
        tested += parts["test"]
        for part, who in parts.items():
            assert f"| {part} | {len(who)} | {' '.join(who)} |" in PROTOCOL.read_text(encoding="utf-8")
        if task in SIZES:
            wanted = zip(("train", "architecture", "objective", "select", "test"), SIZES[task], strict=True)
            assert all(len(parts.get(part, ())) == count for part, count in wanted)
    assert len(tested) == len(set(tested))
    assert task != "brains2d" or len(tested) == 15


@pytest.mark.parametrize("task", ["hippocampus", "heart", "brains", "bilevel"])
def test_networks_learn_from_people_whom_no_figure_is_of(task: str, data: Path):
    whose = content_of(task).get("people", task)
    dataset = read_dataset(data / DATASETS[whose])
    parts = people(whose, dataset)
    for on in ("select", "test"):
        pairs = pairs_of(task, dataset, on)
        assert pairs
        assert {person(scan) for pair in pairs for scan in pair} == set(parts[on])
    for row in content_of(task)["rows"]:
        named = settings_of(task, row, 0, data).data.people
        assert set(named["train"]) == set(parts["train"])
        assert set(named["select"]) == set(parts["select"])


@pytest.mark.parametrize("task", ["hippocampus", "brains"])
def test_folds_are_of_those_who_train(task: str, data: Path):
    dataset = read_dataset(data / DATASETS[task])
    folds = folds_of(task, dataset)
    everybody = [name for fold in folds for name in fold]
    assert sorted(everybody) == sorted(people(task, dataset)["train"])
    assert max(map(len, folds)) - min(map(len, folds)) <= 1
