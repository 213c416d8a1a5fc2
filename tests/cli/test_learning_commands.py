"""train, models, register --model and evaluate --dataset, as people and faults meet them."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from safetensors.torch import load_file
from toys import SMALL_NETWORK, toy_dataset

from warpwise.cli import execute
from warpwise.io.images import read_image


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_dataset(tmp_path_factory.mktemp("data") / "toy")


def config(folder: Path, **changes: object) -> Path:
    content = {
        "network": {"kind": "pyramid", **SMALL_NETWORK},
        "synthetic": {"shape": [32, 32]},
        "objective": {"endpoint": {}, "diffusion": {"weight": 0.05}},
        "steps": 4,
        "validate_every": 2,
        **changes,
    }
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}))
    return file


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, toy: Path) -> Path:
    folder = tmp_path_factory.mktemp("run")
    real = {"dataset": str(toy), "alignment": "none"}
    file = config(folder, synthetic=None, data=real, objective={"lncc": {}, "diffusion": {"weight": 0.1}}, licence="CC0",
                  network={"kind": "pyramid", **SMALL_NETWORK, "uncertainty": True})  # fmt: skip
    assert execute(["train", str(file), "-o", str(folder / "out"), "--quiet"]) == 0
    return folder / "out"


def test_features_of_an_image_are_written_octave_by_octave(toy: Path, run: Path, tmp_path: Path, capsys):
    file = config(tmp_path, synthetic=None, data={"dataset": str(toy), "alignment": "none"}, steps=1,
                  network={"kind": "features", "widths": [4, 6], "features": 3, "finest": 0, "stages": [1, 1]},
                  objective={"lncc": {}, "diffusion": {"weight": 0.1}})  # fmt: skip
    assert execute(["train", str(file), "-o", str(tmp_path / "run"), "--quiet"]) == 0
    image = toy / "images" / "4.nii.gz"
    command = ["features", str(image), "--model", str(tmp_path / "run"), "-o", str(tmp_path / "out")]
    assert execute(command) == 0
    told = json.loads((tmp_path / "out" / "features.json").read_text())
    assert [f["channels"] for f in told["files"].values()] == [6, 6]
    assert [f["means"] for f in told["files"].values()] == [3, 3]
    found = nib.load(tmp_path / "out" / "features_1.nii.gz")
    assert found.shape == (40, 36, 1, 6)
    assert np.isfinite(found.get_fdata()).all()
    assert np.allclose(nib.load(tmp_path / "out" / "features_2.nii.gz").header.get_zooms()[:2], 2)
    assert execute(command) == 2
    assert "exists already" in capsys.readouterr().err
    assert execute([*command, "--overwrite"]) == 0
    both = [str(toy / "images" / f"{n}.nii.gz") for n in (4, 5)]
    model = ["--model", str(tmp_path / "run"), "--figures"]
    assert execute(["register", *both, "-o", str(tmp_path / "registered"), *model]) == 0
    for name in ("uncertainty.nii.gz", "feature_uncertainty.nii.gz", "figures/uncertainty.png"):
        assert (tmp_path / "registered" / name).exists()
    assert execute(["report", str(tmp_path / "registered"), "-o", str(tmp_path / "again.html")]) == 0
    assert "Uncertainty" in (tmp_path / "again.html").read_text()
    assert execute(["features", str(image), "--model", str(run), "-o", str(tmp_path / "other")]) == 2
    assert "learns no features" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_settings_written_for_a_dataset_are_commented_and_train(toy: Path, tmp_path: Path, capsys):
    file = tmp_path / "start.yaml"
    assert execute(["train", "--init", str(file), "--dataset", str(toy)]) == 0
    text = file.read_text()
    assert text.count("#") > 8
    settings = yaml.safe_load(text)
    assert settings["data"]["spacing_mm"] == [1.0, 1.0]
    assert settings["data"]["pairs"] == "listed"
    assert settings["objective"]["dice"]["weight"] == 1.0
    assert execute(["train", str(file), "-o", str(tmp_path / "run"), "--steps", "2", "--quiet"]) == 0
    assert (tmp_path / "run" / "best" / "weights.safetensors").exists()
    assert execute(["train", "--init", str(file), "--dataset", str(toy)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_synthetic_training_needs_no_data_and_tells_how_far_it_is(tmp_path: Path, capsys):
    assert execute(["train", str(config(tmp_path)), "-o", str(tmp_path / "run")]) == 0
    told = capsys.readouterr().err
    assert "step 4 of 4" in told
    assert "endpoint" in told
    assert "--method" in told


def test_a_network_registers_images_and_says_how_sure_it_is(run: Path, toy: Path, tmp_path: Path, capsys):
    images = [str(toy / "images" / f"{n}.nii.gz") for n in (4, 5)]
    assert execute(["register", *images, "-o", str(tmp_path / "a"), "--model", str(run)]) == 0
    told = json.loads((tmp_path / "a" / "result.json").read_text())
    assert told["method"]["registrar"]["model"] == str(run)
    assert told["stop_reasons"]["predicted"] == ["one pass"]
    assert told["certificate"]["percent_ndv"] == 0
    spread = read_image(tmp_path / "a" / "uncertainty.nii.gz")
    assert spread.data.shape == (1, 40, 36)
    assert np.isfinite(spread.data).all()
    assert spread.data.max() > 0
    assert execute(["register", *images, "-o", str(tmp_path / "b"), "--model", str(run), "--refine"]) == 0
    # It was trained on images as they lie, so they are left there.
    assert "affine" not in told["stop_reasons"]
    assert np.array(told["affine"]) == pytest.approx(np.eye(3), abs=1e-6)
    refined = json.loads((tmp_path / "b" / "result.json").read_text())
    assert refined["stop_reasons"].keys() == {"greedy"}
    for kind in ("svf", "symmetric"):
        options = ["--model", str(run), "--refine", "--transform", kind]
        assert execute(["register", *images, "-o", str(tmp_path / kind), *options]) == 0


def test_images_unlike_those_of_training_are_warned_of_with_numbers(run: Path, toy: Path, tmp_path: Path, capsys):
    image = read_image(toy / "images" / "4.nii.gz")
    from warpwise.grid import Grid
    from warpwise.image import Image
    from warpwise.io.images import write_image

    bright = Image((image.data.max() - image.data) * (image.data > 100), Grid((40, 36), np.diag([3.0, 3.0, 1.0])))
    write_image(tmp_path / "odd.nii.gz", bright)
    command = ["register", str(tmp_path / "odd.nii.gz"), str(toy / "images" / "5.nii.gz"), "-o", str(tmp_path / "o")]
    assert execute([*command, "--model", str(run)]) == 0
    told = capsys.readouterr().err
    assert "has voxels of 3×3 mm; the model was trained at 1×1 mm" in told
    assert "object measures" in told
    assert "contrast is not the model's (shapes): its decile" in told


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model", "nobody"], "neither a method (fast, balanced, accurate, affine, rigid, energy, synthetic)"),
        (["--refine"], "nothing to refine without a model"),
        (["--model", "RUN", "--transform", "rigid"], "A model predicts a deformation"),
    ],
)
def test_models_that_cannot_be_used_are_refused(run: Path, toy: Path, tmp_path: Path, capsys, options: list, words: str):
    options = [str(run) if o == "RUN" else o for o in options]
    images = [str(toy / "images" / f"{n}.nii.gz") for n in (4, 5)]
    assert execute(["register", *images, "-o", str(tmp_path / "a"), *options]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_a_model_for_other_axes_is_refused(run: Path, tmp_path: Path, capsys):
    images = []
    for n, folder in enumerate(toy_dataset(tmp_path / "solid", people=2, shape=(20, 18, 16)).glob("images/*")):
        images.append(str(folder))
        assert n < 2
    assert execute(["register", *images, "-o", str(tmp_path / "a"), "--model", str(run)]) == 2
    assert "is for 2-D images; these are 3-D" in capsys.readouterr().err


def test_models_lists_what_is_installed_and_shows_a_run(run: Path, capsys):
    assert execute(["models"]) == 0
    assert "synthetic: pyramid, 3-D" in capsys.readouterr().out
    assert execute(["models", str(run)]) == 0
    told = capsys.readouterr().out
    assert "parameters" in told
    assert "GFLOP" in told
    assert "licence: CC0" in told
    assert execute(["models", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["network"]["kind"] == "pyramid"


def test_methods_are_compared_on_a_dataset_as_a_table_and_box_plots(run: Path, toy: Path, tmp_path: Path, capsys):
    command = [
        "evaluate",
        "--dataset",
        str(toy),
        "--model",
        str(run),
        "--refine",
        "--preset",
        "fast",
        "-o",
        str(tmp_path / "e"),
    ]
    assert execute(command) == 0
    told = capsys.readouterr().out
    assert "| method | pairs | Dice |" in told
    content = json.loads((tmp_path / "e" / "evaluation.json").read_text())
    assert set(content["summary"]) == {"affine", "fast", "out", "out, refined"}
    assert content["summary"]["fast"]["dice"] > content["summary"]["affine"]["dice"] + 0.02
    assert (tmp_path / "e" / "dice.png").stat().st_size > 5000
    assert execute(command) == 2
    assert execute(["evaluate", "--dataset", str(tmp_path)]) == 2


def test_pairs_to_test_on_are_measured_where_they_are_asked_for(tmp_path: Path, capsys):
    toy = toy_dataset(tmp_path / "toy", people=6)
    command = ["evaluate", "--dataset", str(toy), "--method", "fast", "--on", "test"]
    assert execute(command) == 2
    assert "registration_test is empty" in capsys.readouterr().err
    content = json.loads((toy / "dataset.json").read_text())
    content["registration_test"] = content.pop("registration_train")
    content["training"] = content["training"][2:]
    (toy / "dataset.json").write_text(json.dumps(content))
    assert execute(command) == 0
    told = capsys.readouterr()
    assert "0 ← 1" in told.err
    assert "4 ←" not in told.err
    assert execute(["evaluate", "--on", "test", "--dataset", str(toy), "--pairs", "1"]) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train"], "Where should the run go"),
        (["train", "-o", "x"], "nothing to train on"),
        (["train", "--init", "x.yaml"], "--init looks at a dataset"),
        (["train", "--init", "x.yaml", "--network", "features"], "--network: does nothing with --init"),
        (["evaluate", "--on", "test"], "--on: does nothing without --dataset"),
        (["train", "missing.yaml", "-o", "x"], "cannot be read"),
        (["train", "--synthetic", "-o", "x", "--device", "cuda"], "No CUDA device"),
        (["train", "-o", "x", "--resume"], "cannot be read"),
    ],
)
def test_what_is_missing_is_said(tmp_path: Path, monkeypatch, capsys, arguments: list, words: str):
    monkeypatch.chdir(tmp_path)
    assert execute(arguments) == 2
    assert words in capsys.readouterr().err


def test_a_training_that_is_killed_again_and_again_ends_with_the_weights_of_one_that_was_not(tmp_path: Path):
    settings = config(tmp_path, steps=60, validate_every=15, save_every_s=0.05, synthetic={"shape": [40, 40]}, batch=2)
    program = [sys.executable, "-c", "from warpwise.cli import main; main()", "train"]
    subprocess.run([*program, str(settings), "-o", str(tmp_path / "whole"), "--quiet"], check=True)  # as many threads
    folder = tmp_path / "parts"
    draw = random.Random(5)
    kills = 0
    for turn in range(12):
        resumable = (folder / "last" / "state.safetensors").exists()
        begin = ["-o", str(folder), "--resume"] if resumable else [str(settings), "-o", str(folder), "--overwrite"]
        process = subprocess.Popen([*program, *begin, "--quiet"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        if kills < 3 and turn < 11:
            wait_for_step(folder, process)
            time.sleep(draw.uniform(0, 0.4))
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
                kills += 1
        _, error = process.communicate(timeout=120)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, error.decode()
    assert kills >= 1
    assert process.returncode == 0
    one, other = (load_file(tmp_path / name / "last" / "weights.safetensors") for name in ("whole", "parts"))
    assert all((one[k] == other[k]).all() for k in one)
    shutil.rmtree(folder)


def test_ctrl_c_ends_a_training_within_seconds_and_says_how_to_go_on(tmp_path: Path):
    settings = config(tmp_path, steps=100_000, save_every_s=0.2, synthetic={"shape": [40, 40]})
    folder = tmp_path / "run"
    program = [sys.executable, "-c", "from warpwise.cli import main; main()", "train", str(settings), "-o", str(folder)]
    process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_for_step(folder, process)
    while not (folder / "last" / "state.safetensors").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "go on with: warpwise train" in error.decode()
    assert "Traceback" not in error.decode()
    assert not list(folder.glob(".warpwise*"))


def wait_for_step(folder: Path, process: subprocess.Popen) -> None:
    """Until the run has written a line of history since it began, or is over."""
    history = folder / "history.jsonl"
    since = history.stat().st_mtime_ns if history.exists() else 0
    while process.poll() is None and not (history.exists() and history.stat().st_mtime_ns > since):
        time.sleep(0.02)


def test_a_network_is_shown_what_its_card_says(run: Path, toy: Path, tmp_path: Path, capsys):
    images = [str(toy / "images" / f"{n}.nii.gz") for n in (4, 5)]
    command = ["register", *images, "-o", str(tmp_path / "a"), "--method", str(run), "--percentiles", "2", "98"]
    assert execute(command) == 2
    assert "the model was trained with (0.5, 99.5)" in capsys.readouterr().err
