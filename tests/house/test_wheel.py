"""The package as others get it: a wheel, outside the repository, where nothing of the extra `learn` is installed."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from warpwise.extras import EXTRAS
from warpwise.io.images import read_image, write_image
from warpwise.registration.result import FILES
from warpwise.synthetic.phantoms import brain_pair

ROOT = Path(__file__).resolve().parents[2]
HIDDEN = ("torch", "safetensors", "lightning_fabric", "lightning", "pytorch_lightning", "tensorboard")
HIDE = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HIDDEN!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", str(ROOT), "-w", str(folder)]
    done = subprocess.run(
        [*command, "--no-deps", "--no-build-isolation", "--no-index"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("warpwise-*.whl")
    return built


@pytest.fixture(scope="module")
def alone(wheel: Path, tmp_path_factory):
    """Runs Python in a folder that holds the wheel's files, beside the core's dependencies."""
    folder = tmp_path_factory.mktemp("elsewhere")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    (folder / "site" / "sitecustomize.py").write_text(HIDE)
    # The machine code of this checkout goes along, with the times of the files it stands for: compiling takes a minute.
    here, there = (root / "warpwise" / "ops" / "cpu" for root in (ROOT / "src", folder / "site"))
    (there / "__pycache__").mkdir()
    for file in here.glob("*.py"):
        assert (there / file.name).read_bytes() == file.read_bytes()
        shutil.copystat(file, there / file.name)
    for file in here.glob("__pycache__/*.nb[ic]"):
        shutil.copy2(file, there / "__pycache__" / file.name)
    environment = {**os.environ, "PYTHONPATH": str(folder / "site")}

    def run(code: str, *arguments: object) -> subprocess.CompletedProcess:
        command = [sys.executable, "-c", code, *map(str, arguments)]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)

    run.folder = folder
    return run


WARPWISE = "from warpwise.cli import main; main()"


def test_the_wheel_holds_all_that_is_no_python(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        str(path.relative_to(ROOT / "src").as_posix())
        for path in (ROOT / "src" / "warpwise").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"warpwise/py.typed", "warpwise/models/synthetic/weights.safetensors"} <= wanted
    assert any(name.startswith("warpwise/report/templates/") for name in wanted)
    assert {name for name in names if ".dist-info/" not in name} == wanted


def test_the_extras_that_errors_name_bring_what_is_missing():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for package, extra in EXTRAS.items():
        brings = [line.split(">")[0].replace("-", "_") for line in project["optional-dependencies"][extra]]
        assert package in brings, (package, extra)
        assert package not in [line.split(">")[0].replace("-", "_") for line in project["dependencies"]]


def test_the_demo_runs_outside_the_repository_without_torch(alone):
    done = alone("import warpwise; print(warpwise.__file__)")
    assert Path(done.stdout.strip()).is_relative_to(alone.folder), done
    assert alone("import torch").returncode == 1
    done = alone(WARPWISE, "demo", "-o", "demo")
    assert done.returncode == 0, done.stderr
    assert "Mean Dice of five tissues" in done.stdout
    assert set(FILES) <= {path.name for path in (alone.folder / "demo").iterdir()}
    assert json.loads((alone.folder / "demo" / "result.json").read_text())["certificate"]["percent_ndv"] == 0


def test_a_pair_is_registered_without_torch_and_a_network_is_refused(alone):
    pair = brain_pair((48, 57, 45), seed=2)
    for name, image in (("fixed", pair.fixed), ("moving", pair.moving)):
        write_image(alone.folder / f"{name}.nii.gz", image)
    images = ("register", "fixed.nii.gz", "moving.nii.gz")
    done = alone(WARPWISE, *images, "-o", "out", "--report")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (alone.folder / "out").iterdir()} == {*FILES, "report.html"}
    assert read_image(alone.folder / "out" / "warped.nii.gz").grid.same_as(pair.fixed.grid)
    assert (alone.folder / "out" / "report.html").stat().st_size > 100_000
    done = alone(WARPWISE, "apply", "out/transform.h5", "moving.nii.gz", "--like", "fixed.nii.gz", "-o", "moved.nii.gz")
    assert done.returncode == 0, done.stderr
    for command in (
        (*images, "-o", "other", "--model", "synthetic"),
        (*images, "-o", "other", "--method", "synthetic", "--refine", "--threads", 1),
        ("models",),
        ("features", "fixed.nii.gz", "--model", "synthetic", "-o", "other"),
        ("train", "--synthetic", "-o", "other"),
    ):
        done = alone(WARPWISE, *command)
        assert done.returncode == 2, (command, done.stderr)
        assert done.stderr.startswith("Error: ")
        assert done.stderr.count("\n") == 1
        assert "torch" in done.stderr
        assert "pip install 'warpwise[learn]'" in done.stderr
        assert not (alone.folder / "other").exists()


def test_python_users_are_told_as_well(alone):
    for code in ("import warpwise; warpwise.Model", "import warpwise; warpwise.models()", "from warpwise.ops import warp"):
        done = alone(code)
        assert done.returncode == 1
        assert "InputError: This needs torch. pip install 'warpwise[learn]'" in done.stderr
