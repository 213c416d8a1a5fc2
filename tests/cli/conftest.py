"""A small pair on disk, and the command line in this process."""

from pathlib import Path

import pytest

from warpwise.cli import execute
from warpwise.io.images import write_image
from warpwise.synthetic.phantoms import brain_pair


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> Path:
    """fixed, moving and both label maps of a synthetic pair."""
    folder = tmp_path_factory.mktemp("pair")
    pair = brain_pair((48, 57, 45), seed=2)
    for name, image in (
        ("fixed", pair.fixed),
        ("moving", pair.moving),
        ("fixed_labels", pair.fixed_labels),
        ("moving_labels", pair.moving_labels),
    ):
        write_image(folder / f"{name}.nii.gz", image)
    return folder


@pytest.fixture
def warpwise(capfd):
    """Run one command: (exit code, stdout, stderr)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = execute([str(a) for a in arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return call
