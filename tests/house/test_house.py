"""The rules of the house that a machine keeps."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import warpwise

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT / "src")))
def test_files_are_short_and_silent(path: Path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 400, f"{path} has {len(lines)} lines"
    if "cli" not in path.parts:
        calls = [n for n in ast.walk(ast.parse("\n".join(lines))) if isinstance(n, ast.Call)]
        assert not [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"]
    assert not re.search(r"\b(TO" + "DO|FIX" + r"ME)\b", "\n".join(lines))


def test_layers_point_down():
    program = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_importing_the_package_costs_nothing():
    code = "import sys, warpwise; sys.exit(bool({'numpy', 'torch', 'numba', 'pydantic'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_public_names_resolve_and_are_documented():
    for name in warpwise.__all__:
        assert getattr(warpwise, name).__doc__, name
    with pytest.raises(AttributeError, match="regster"):
        warpwise.regster  # noqa: B018


def test_continuous_integration_runs_the_readmes_test_command():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "./test.sh" in readme
    assert "./test.sh" in script


@pytest.mark.parametrize("page", ["README.md", "docs/learning.md", "docs/methods.md"])
def test_the_python_of_the_documentation_runs(page, tmp_path, monkeypatch):
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert blocks
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        exec(compile(block, page, "exec"), {})


def test_the_version_is_one():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{warpwise.__version__}"' in text
    assert f"## {warpwise.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_guides_commands_run(tmp_path, monkeypatch):
    import numpy as np
    from toys import toy_dataset

    from warpwise.cli import execute
    from warpwise.image import Image
    from warpwise.io.images import write_image
    from warpwise.io.points import Points, write_points
    from warpwise.synthetic.phantoms import brain_pair

    monkeypatch.chdir(tmp_path)
    pair = brain_pair((48, 57, 45), seed=2)
    lesion = Image((pair.moving_labels.data == 2).astype(np.uint8), pair.moving.grid, "mask")
    for name, image in (
        ("fixed", pair.fixed), ("moving", pair.moving), ("fixed_labels", pair.fixed_labels),
        ("moving_labels", pair.moving_labels), ("lesion", lesion),
    ):  # fmt: skip
        write_image(tmp_path / f"{name}.nii.gz", image)
    points = np.array([[0, 0, 0], [15, -10, 5], [-12, 8, 14], [5, 20, -8.0]])
    write_points(tmp_path / "fixed.fcsv", Points(points))
    write_points(tmp_path / "moving.fcsv", Points(pair.truth.points(points)))
    toy_dataset(tmp_path / "toy", people=4)
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "guide.md").read_text(encoding="utf-8"), re.DOTALL)
    commands = [line.split() for block in blocks for line in block.splitlines() if line.startswith("warpwise ")]
    assert len(commands) > 15
    for command in commands:
        assert execute(command[1:]) == 0, command


def test_the_tables_in_robustness_name_tests_that_exist():
    text = (ROOT / "docs" / "robustness.md").read_text(encoding="utf-8")
    named = re.findall(r"`([a-z]+/test_\w+\.py)(?:::(\w+))?", text)
    assert len(named) > 25
    for path, test in named:
        source = (ROOT / "tests" / path).read_text(encoding="utf-8")
        assert not test or f"def {test}" in source, (path, test)
