"""dataset.json: what is read, and what is refused."""

import json
from pathlib import Path

import pytest
from toys import toy_dataset

from warpwise.errors import InputError
from warpwise.io.datasets import read_dataset


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return toy_dataset(tmp_path / "toy", people=4)


def changed(folder: Path, **changes: object) -> Path:
    file = folder / "dataset.json"
    content = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
    return folder


def test_scans_pairs_and_labels_are_read(folder: Path):
    found = read_dataset(folder)
    assert (len(found.training), len(found.validation), len(found.validation_pairs)) == (2, 2, 2)
    assert found.training[0].labels == folder / "labels" / "0.nii.gz"
    assert found.averaged == (1, 2, 3)
    assert found.labels[2] == "two"
    assert found.modality == "shapes"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"training": None, "validation": None, "registration_val": None, "registration_train": None},
            "training is missing",
        ),
        ({"training": [{"imgae": "images/0.nii.gz"}]}, "'image' is missing"),
        ({"training": [{"image": "images/99.nii.gz"}]}, "does not exist"),
        ({"training": [{"image": "../../etc/passwd"}]}, "outside the dataset"),
        ({"training": [{"image": 7}]}, "a path is needed"),
        ({"training": "images"}, "a list of objects"),
        ({"labels": {"one": "1"}}, "label values"),
        ({"labelsInEverySubject": ["x"]}, "labelsInEverySubject"),
    ],
)
def test_what_does_not_fit_is_named(folder: Path, changes: dict, words: str):
    with pytest.raises(InputError, match=words):
        read_dataset(changed(folder, **changes))


def test_a_misspelt_key_is_guessed(folder: Path):
    rows = json.loads((folder / "dataset.json").read_text())["training"]
    nothing = {"training": None, "validation": None, "registration_val": None, "registration_train": None}
    with pytest.raises(InputError) as error:
        read_dataset(changed(folder, **nothing, trainig=rows))
    assert "'trainig' may be meant to be 'training'" in str(error.value)


def test_a_file_that_is_missing_or_not_json(tmp_path: Path):
    with pytest.raises(InputError, match="no such file"):
        read_dataset(tmp_path)
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(InputError, match="JSON"):
        read_dataset(tmp_path)
    (tmp_path / "dataset.json").write_text("[]")
    with pytest.raises(InputError, match="not an object"):
        read_dataset(tmp_path)


def test_images_outside_are_taken_where_that_is_allowed(folder: Path, tmp_path: Path):
    outside = tmp_path / "elsewhere.nii.gz"
    outside.write_bytes((folder / "images" / "0.nii.gz").read_bytes())
    changed(folder, training=[{"image": "../elsewhere.nii.gz"}])
    assert read_dataset(folder, allow_outside=True).training[0].image.exists()
