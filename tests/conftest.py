"""Shared fixtures. Real data lies outside the repository: in $WARPWISE_TEST_DATA, else in ../shared/data."""

import json
import os
from pathlib import Path

import enforcement
import hypothesis
import pytest

enforcement.install()  # before anything of warpwise is imported

if "PYTEST_XDIST_WORKER" in os.environ:  # beside others of its kind: threads of all would wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from warpwise.ops.runtime import set_threads

    set_threads(1)

ROOT = Path(__file__).resolve().parent.parent

hypothesis.settings.register_profile("ci", derandomize=True, max_examples=25, deadline=None)
hypothesis.settings.register_profile("nightly", max_examples=1000, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder of the real images."""
    folder = Path(os.environ.get("WARPWISE_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "oasis-mals" / "dataset.json").exists():
        pytest.skip(f"no real data in {folder}; set WARPWISE_TEST_DATA to have these tests run")
    return folder


@pytest.fixture(scope="session")
def brains(data: Path) -> tuple[Path, list[int]]:
    """The oasis-mals folder, and the labels to average over."""
    folder = data / "oasis-mals"
    described = json.loads((folder / "dataset.json").read_text())
    return folder, [int(k) for k in described["labelsInEverySubject"]]
