"""A few hundred of the mutated files of benchmarks/fuzz.py: none escapes the readers as anything but an InputError."""

from pathlib import Path

import fuzz
import numpy as np
import pytest

from warpwise.errors import InputError

QUICK = 25  # cases a format; benchmarks/fuzz.py runs a thousand


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in fuzz.seeds(tmp_path_factory.mktemp("seeds")).items()}


def test_there_is_a_seed_of_every_format(originals):
    suffixes = {name.split(".", 1)[1] for name in originals}
    assert suffixes >= {"nii", "nii.gz", "mha", "nrrd", "dcm", "png", "tif", "h5", "tfm", "mat", "lta", "x5", "csv", "fcsv"}


def test_mutated_files_are_read_or_refused(originals, tmp_path: Path):
    said: list[str] = []
    for name, original in originals.items():
        if name.endswith(".x5"):
            continue  # a second each; see the next test
        for number in range(QUICK):
            path = tmp_path / name
            path.write_bytes(fuzz.mutated(original, name, np.random.default_rng(900_000 + number)))
            try:
                fuzz.parse(path, name)
            except InputError as error:
                said.append(str(error))
    assert len(said) > QUICK * 5
    assert max(map(len, said)) < 600


def test_a_broken_x5_file_is_refused_by_its_own_process(originals, tmp_path: Path):
    path = tmp_path / "chain.x5"
    path.write_bytes(originals["chain.x5"][: len(originals["chain.x5"]) // 2])
    with pytest.raises(InputError, match="not a readable X5 file"):
        fuzz.parse(path, "chain.x5")
