"""Linear stages that are kept: the same to the bit, and found anew where anything that decides them is another."""

from pathlib import Path

import numpy as np
import pytest
from toys import toy_dataset

from warpwise.io.datasets import read_dataset
from warpwise.io.scan import Scan, read_both
from warpwise.methods import Method
from warpwise.registration.linear_stages import LinearStages, named
from warpwise.registration.register import register_scans
from warpwise.registration.result import Result

FAST = Method.named("fast").changed({"linear.finest_voxels": 5000, "linear.coarsest_voxels": 300})


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> list[Scan]:
    return list(read_dataset(toy_dataset(tmp_path_factory.mktemp("data") / "toy")).training)


def registered(scans: list[Scan], method: Method, folder: Path) -> Result:
    return register_scans(read_both(*scans[:2]), method, method.build(), linear_stages=LinearStages(folder))


def test_a_kept_stage_gives_the_same_bits(scans, tmp_path: Path):
    plain = register_scans(read_both(*scans[:2]), FAST, FAST.build())
    first, again = (registered(scans, FAST, tmp_path) for _ in range(2))
    for other in (first, again):
        assert np.array_equal(plain.displacement_mm, other.displacement_mm)
        assert other.choices == plain.choices
        assert other.warnings == plain.warnings
    assert again.timings_s["affine"] == first.timings_s["affine"]
    assert len(list(tmp_path.glob("*.json"))) == 1


def test_deformable_settings_share_it_and_linear_ones_do_not(scans, tmp_path: Path):
    registered(scans, FAST, tmp_path)
    registered(scans, FAST.changed({"objective.smoothness.update_sigma": 1.5, "registrar.cap": 0.2}), tmp_path)
    assert len(list(tmp_path.glob("*.json"))) == 1
    for change in (
        {"linear.transform": "rigid"},
        {"images.percentiles": (1.0, 99.0)},
        {"objective.similarity": {"term": "mi"}},
    ):
        before = len(list(tmp_path.glob("*.json")))
        registered(scans, FAST.changed(change), tmp_path)
        assert len(list(tmp_path.glob("*.json"))) == before + 1
    registered([scans[1], scans[0]], FAST, tmp_path)
    assert len(list(tmp_path.glob("*.json"))) == 5


def test_label_maps_that_guide_the_linear_stage_are_part_of_its_name(scans):
    with_labels = read_both(*scans[:2])
    without = tuple(scan.replaced(labels=None) for scan in with_labels)
    assert named(with_labels, FAST, 1) != named((without[0], without[1]), FAST, 1)
    assert named(with_labels, FAST, 1) != named(with_labels, FAST, 2)


def test_of_images_in_memory_nothing_is_kept(scans, tmp_path: Path):
    images = [scan.read().image for scan in scans[:2]]
    register_scans(read_both(*images), FAST, FAST.build(), linear_stages=LinearStages(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_found_anew(scans, tmp_path: Path):
    registered(scans, FAST, tmp_path)
    place = next(tmp_path.glob("*.json"))
    place.write_text("{}")
    registered(scans, FAST, tmp_path)
    assert "to_moving" in place.read_text()
