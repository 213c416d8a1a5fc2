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


def test_the_readmes_python_runs(tmp_path, monkeypatch):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert blocks
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_the_version_is_one():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{warpwise.__version__}"' in text
    assert f"## {warpwise.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
