"""Who trains, who selects, who is tested: people, not images, and nobody in two places."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from warpwise.data.pairs import training_pairs, validation_pairs
from warpwise.data.people import Part, drawn, parts, person
from warpwise.data.settings import DataSettings
from warpwise.errors import InputError
from warpwise.io.datasets import Dataset, Scan, read_dataset


def crowd(folder: Path) -> Dataset:
    """Seven scans of people a, b, b, c, somebody, e, f."""
    for n in range(7):
        (folder / f"{n}.nii").touch()
    rows = [{"image": f"{n}.nii", "subject": s} for n, s in enumerate(["a", "b", "b", "c", "", "e", "f"])]
    content = {
        "training": rows,
        "registration_val": [{"fixed": "1.nii", "moving": "1.nii"}],
        "validation": [rows[1]],
        "test": ["./4.nii", {"image": "elsewhere.nii", "subject": "e"}],
        "registration_train": [{"fixed": "0.nii", "moving": "3.nii"}, {"fixed": "0.nii", "moving": "4.nii"}],
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return read_dataset(folder)


def test_nobody_to_validate_or_test_on_is_trained_on_wherever_the_dataset_lists_them(tmp_path: Path):
    """`training` lists everybody: 1 is validated on, 2 is another scan of 1's, 4 a test image, 5 of a test person."""
    dataset = crowd(tmp_path)
    kept = {scan.title for pair in training_pairs(DataSettings(), dataset) for scan in pair}
    assert kept == {"0", "3", "6"}
    listed = training_pairs(DataSettings(pairs="listed"), dataset)
    assert [[scan.title for scan in pair] for pair in listed] == [["0", "3"]]
    atlas = dataset.training[1]  # everybody's, and not left out
    with_atlas = training_pairs(DataSettings(pairs="atlas", atlas=atlas.image), dataset, atlas)
    assert [moving.title for _, moving in with_atlas] == ["0", "3", "6"]
    only = replace(dataset, training=dataset.training[1:3])
    with pytest.raises(InputError, match="every training pair shows people to validate or test on"):
        training_pairs(DataSettings(), only)
    with pytest.raises(InputError, match="no pairs to train on; training"):
        training_pairs(DataSettings(), replace(dataset, training=dataset.training[:1]))


def test_people_are_known_in_rows_that_do_not_name_them(tmp_path: Path):
    """Pairs name files alone; whose they are stands elsewhere. Another scan of somebody to judge by is left out."""
    for n in range(6):
        (tmp_path / f"{n}.nii").touch()
        (tmp_path / f"{n}l.nii").touch()
    rows = [{"image": f"{n}.nii", "label": f"{n}l.nii", "subject": "abc"[n // 2]} for n in range(6)]
    for key in ("registration_val", "registration_test"):
        pair = [{"fixed": "0.nii", "moving": "1.nii"}]
        (tmp_path / "dataset.json").write_text(json.dumps({"training": rows, key: pair}))
        dataset = read_dataset(tmp_path)
        kept = {scan.title for both in training_pairs(DataSettings(), dataset) for scan in both}
        assert kept == {"2", "3", "4", "5"}
        assert {person(scan) for both in (*dataset.validation_pairs, *dataset.test_pairs) for scan in both} == {"a"}
    assert dataset.test_people == {"a"}
    # named with and without a label map, a file is one scan of one person
    (tmp_path / "dataset.json").write_text(json.dumps({"training": rows, "registration_val": pair}))
    assert [scan.title for scan in parts(read_dataset(tmp_path), {"train": ("a", "b")})["train"].scans] == [
        "0",
        "1",
        "2",
        "3",
    ]


@pytest.mark.parametrize(("count", "most"), [(4, 4), (4, 8), (7, 10)])
def test_pairs_to_select_by_show_everybody_as_often(tmp_path: Path, count: int, most: int):
    scans = tuple(Scan(image=tmp_path / f"{n}.nii") for n in range(count))
    dataset = Dataset("d", tmp_path, scans, (), (), (), {}, (), "", "")
    people = tuple(str(n) for n in range(count))
    found = validation_pairs(dataset, most=most, part=parts(dataset, {"select": people})["select"])
    assert len(found) == len(set(found)) == most
    for role in (0, 1):
        times = [sum(pair[role] is scan for pair in found) for scan in scans]
        assert max(times) - min(times) <= 1
    assert all(a is not b for a, b in found)


def test_people_who_are_named_take_the_places_of_the_datasets(tmp_path: Path):
    dataset = crowd(tmp_path)
    found = parts(dataset, {"train": ("a", "b"), "select": ("c", "f"), "test": ("anybody",)})
    assert [scan.title for scan in found["train"].scans] == ["0", "1", "2"]
    pairs = training_pairs(DataSettings(), dataset, part=found["train"])
    assert {scan.title for pair in pairs for scan in pair} == {"0", "1", "2"}
    chosen = validation_pairs(dataset, part=found["select"])
    assert [[scan.title for scan in pair] for pair in chosen] == [["3", "6"], ["6", "3"]]
    # pairs that are listed between them come first, wherever they are listed
    listed = validation_pairs(dataset, part=parts(dataset, {"select": ("a", "c")})["select"])
    assert [[scan.title for scan in pair] for pair in listed] == [["0", "3"]]
    atlas = dataset.training[3]
    with_atlas = training_pairs(DataSettings(pairs="atlas"), dataset, atlas, part=found["train"])
    assert [(fixed.title, moving.title) for fixed, moving in with_atlas] == [("3", "0"), ("3", "1"), ("3", "2")]


@pytest.mark.parametrize(
    ("people", "words"),
    [({"train": ("a",), "select": ("a",)}, "'a' is in 'train' and in 'select'"), ({"train": ("z",)}, "'z' is nobody of"),
     ({"train": ("e",)}, "keeps 'e' for a last test"), ({"select": ("4",)}, "keeps '4' for a last test")],
)  # fmt: skip
def test_people_on_two_sides_unknown_or_kept_for_the_last_test_are_refused(tmp_path: Path, people: dict, words: str):
    with pytest.raises(InputError, match=words):
        parts(crowd(tmp_path), people)


def test_somebody_must_train_and_somebody_select_where_people_are_named():
    with pytest.raises(InputError, match="nobody is in 'select'"):
        DataSettings.parse({"people": {"train": ["a", "b"]}})


def test_parts_are_drawn_by_name_and_seed_alone():
    people = [f"p{n}" for n in range(20)]
    counts = {"train": 12, "a": 3, "b": 3}
    found = drawn(people, counts, seed=1)
    assert found == drawn(reversed(people), counts, seed=1)
    assert found != drawn(people, counts, seed=2)
    assert {k: len(v) for k, v in found.items()} == counts
    assert len({name for part in found.values() for name in part}) == 18
    with pytest.raises(InputError, match="21 people are asked for, and there are 20"):
        drawn(people, {"train": 21})


def test_pairs_to_select_by_show_one_person_where_pairs_that_train_do(tmp_path: Path):
    scans = tuple(Scan(image=tmp_path / f"{n}.nii", subject="abc"[n // 2]) for n in range(6))
    dataset = Dataset("d", tmp_path, scans, (), (), (), {}, (), "", "")
    part = Part(frozenset("ab"), scans[:4])
    pairs = validation_pairs(dataset, part=part, one_person=True)
    assert [(a.title, b.title) for a, b in pairs] == [("0", "1"), ("1", "0"), ("2", "3"), ("3", "2")]
    assert len(validation_pairs(dataset, part=part)) == 12
