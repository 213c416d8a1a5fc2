"""register, apply, evaluate, demo: what they write and say."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk

import warpwise as ww
from warpwise.methods import Method
from warpwise.ops.runtime import get_threads
from warpwise.registration.result import FILES


def test_register_apply_evaluate_is_one_journey(files: Path, warpwise, tmp_path: Path):
    out = tmp_path / "a new folder" / "out"
    code, _, err = warpwise("register", files / "fixed.nii.gz", files / "moving.nii.gz", "-o", out)
    assert code == 0, err
    assert sorted(p.name for p in out.iterdir()) == sorted(FILES)
    assert "MB of memory" in err
    assert "affine scale" in err
    assert "greedy scale 0" in err
    labels = tmp_path / "labels.nii.gz"
    code, _, err = warpwise(
        "apply", out / "transform.h5", files / "moving_labels.nii.gz", "--like", files / "fixed.nii.gz",
        "-o", labels, "--interpolation", "label",
    )  # fmt: skip
    assert code == 0, err
    report = tmp_path / "report.json"
    code, said, err = warpwise(
        "evaluate", "--fixed-labels", files / "fixed_labels.nii.gz", "--warped-labels", labels,
        "--transform", out / "transform.h5", "--json", report,
    )  # fmt: skip
    assert code == 0, err
    measured = json.loads(report.read_text())
    assert measured["mean_dice"] > 0.9
    assert measured["percent_folded"] == measured["percent_ndv"] == 0
    assert 0 < measured["sd_log_jacobian"] < 1
    assert f"{measured['mean_dice']:.4f}" in said


def test_result_json_holds_what_was_done(files: Path, warpwise, tmp_path: Path):
    before = get_threads()
    code, _, err = warpwise(
        "register",
        files / "fixed.nii.gz",
        files / "moving.nii.gz",
        "-o",
        tmp_path,
        "--preset",
        "fast",
        "--quiet",
        "--threads",
        1,
    )
    assert code == 0
    assert err == ""
    result = json.loads((tmp_path / "result.json").read_text())
    ww.set_threads(before)
    assert Method.named(tmp_path / "result.json") == Method.named("fast")
    assert result["choices"]["threads"] == 1
    assert result["choices"]["similarity"] == "lncc"
    assert set(result["stop_reasons"]) == {"affine", "greedy"}
    assert result["energies"][0]["stage"] == "affine"
    assert {"affine", "deformable", "inverse and certificate", "read files", "write files", "total"} <= set(
        result["timings_s"]
    )
    assert result["memory_mb"]["peak"] > 0 < result["memory_mb"]["predicted"]
    certificate = result["certificate"]
    assert certificate["percent_folded"] == certificate["percent_ndv"] == 0
    assert certificate["forward_inverse_mean"] <= 0.01
    assert certificate["forward_inverse_max"] <= 0.1
    assert result["warnings"] == []
    assert "python" in result["versions"]


def test_itk_applies_our_files_as_we_do(files: Path, warpwise, tmp_path: Path):
    assert warpwise("register", files / "fixed.nii.gz", files / "moving.nii.gz", "-o", tmp_path)[0] == 0
    fixed, moving = (sitk.ReadImage(str(files / f"{n}.nii.gz"), sitk.sitkFloat32) for n in ("fixed", "moving"))
    body = sitk.GetArrayFromImage(sitk.ReadImage(str(files / "fixed_labels.nii.gz"))) > 0
    ours = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "warped.nii.gz")))[body]
    scale = float(ours.max() - ours.min())
    chain = sitk.ReadTransform(str(tmp_path / "transform.h5"))
    theirs = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, chain, sitk.sitkLinear))[body]
    assert np.abs(theirs - ours).mean() < 0.001 * scale
    vectors = sitk.ReadImage(str(tmp_path / "displacement.nii.gz"), sitk.sitkVectorFloat64)
    field = sitk.DisplacementFieldTransform(vectors)
    theirs = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, field, sitk.sitkLinear))[body]
    assert np.abs(theirs - ours).mean() < 0.001 * scale
    back = sitk.ReadTransform(str(tmp_path / "inverse.h5"))
    points = np.argwhere(body.transpose(2, 1, 0))[::501]
    worst = []
    for index in points.tolist():
        point = fixed.TransformIndexToPhysicalPoint(index)
        worst.append(np.linalg.norm(np.subtract(back.TransformPoint(chain.TransformPoint(point)), point)))
    # The gridded inverse is linear between voxels, which costs about a tenth of a voxel of 3.3 mm.
    assert np.mean(worst) < 0.4


def test_apply_goes_both_ways_exactly(files: Path, warpwise, tmp_path: Path):
    assert warpwise("register", files / "fixed.nii.gz", files / "moving.nii.gz", "-o", tmp_path, "--preset", "fast")[0] == 0
    code, _, err = warpwise(
        "apply", tmp_path / "transform.h5", files / "fixed.nii.gz", "--like", files / "moving.nii.gz",
        "-o", tmp_path / "back.nii", "--inverse", "--interpolation", "cubic",
    )  # fmt: skip
    assert code == 0, err
    body = ww.load_image(files / "moving_labels.nii.gz", kind="labels").data[0] > 0
    back, moving = ww.load_image(tmp_path / "back.nii").data[0], ww.load_image(files / "moving.nii.gz").data[0]
    assert np.corrcoef(back[body], moving[body])[0, 1] > 0.85


def test_a_plane_keeps_its_form(warpwise, tmp_path: Path, files: Path):
    data = np.asarray(nib.load(files / "fixed.nii.gz").dataobj)[:, :, 22]
    nib.Nifti1Image(data, np.diag([3.0, 3.0, 1, 1])).to_filename(tmp_path / "a.nii.gz")
    nib.Nifti1Image(np.roll(data, 2, 0), np.diag([3.0, 3.0, 1, 1])).to_filename(tmp_path / "b.nii.gz")
    code, _, err = warpwise("register", tmp_path / "a.nii.gz", tmp_path / "b.nii.gz", "-o", tmp_path / "out")
    assert code == 0, err
    warped = nib.load(tmp_path / "out" / "warped.nii.gz")
    assert warped.shape == data.shape
    assert np.corrcoef(np.asarray(warped.dataobj).ravel(), data.ravel())[0, 1] > 0.99
    chain = sitk.ReadTransform(str(tmp_path / "out" / "transform.h5"))
    assert chain.GetDimension() == 2


def test_rigid_affine_and_svf_write_the_same_files(files: Path, warpwise, tmp_path: Path):
    for kind in ("rigid", "affine", "svf"):
        out = tmp_path / kind
        code, _, err = warpwise(
            "register", files / "fixed.nii.gz", files / "moving.nii.gz", "-o", out, "--transform", kind, "--preset", "fast"
        )
        assert code == 0, err
        assert sorted(p.name for p in out.iterdir()) == sorted(FILES)
        assert ww.load_transform(out / "transform.h5").dim == 3


def test_an_initial_transform_and_masks_are_used(files: Path, warpwise, tmp_path: Path):
    first = tmp_path / "first"
    assert (
        warpwise("register", files / "fixed.nii.gz", files / "moving.nii.gz", "-o", first, "--transform", "affine")[0] == 0
    )
    code, _, err = warpwise(
        "register", files / "fixed.nii.gz", files / "moving.nii.gz", "-o", tmp_path / "second",
        "--initial", first / "transform.h5", "--fixed-mask", files / "fixed_labels.nii.gz",
        "--moving-mask", files / "moving_labels.nii.gz",
    )  # fmt: skip
    assert code == 0, err
    assert json.loads((tmp_path / "second" / "result.json").read_text())["choices"]["start"] == "initial"


def test_the_demo_recovers_its_deformation(warpwise, tmp_path: Path):
    code, said, err = warpwise("demo", "-o", tmp_path / "demo")
    assert code == 0, err
    line = next(row for row in said.splitlines() if "endpoint error" in row)
    before, after = (float(word) for word in line.replace(",", " ").split() if word[0].isdigit())
    assert before > 3
    assert after < 0.5
    assert (tmp_path / "demo" / "fixed_labels.nii.gz").exists()


def test_help_is_quick_to_load_and_lists_the_verbs():
    code = (
        "import sys; from warpwise.cli import execute; execute(['--help']);"
        "heavy = {'torch', 'numpy', 'numba', 'scipy', 'nibabel', 'SimpleITK'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(verb in done.stdout for verb in ("register", "apply", "evaluate", "demo"))


def test_a_registration_never_imports_torch(files: Path, tmp_path: Path):
    arguments = ["register", str(files / "fixed.nii.gz"), str(files / "moving.nii.gz"), "-o", str(tmp_path)]
    code = (
        f"import sys; from warpwise.cli import execute; code = execute({arguments!r});"
        "sys.exit('imported torch' if 'torch' in sys.modules else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_ctrl_c_stops_a_run_and_leaves_nothing(tmp_path: Path, files: Path):
    command = [sys.executable, "-c", "from warpwise.cli import main; main()", "demo", "-o", str(tmp_path / "out")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ})
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"Stopped" in err
    assert b"Traceback" not in err
    left = [p.name for p in (tmp_path / "out").iterdir()] if (tmp_path / "out").exists() else []
    assert not set(left) & set(FILES)
    assert not [name for name in left if name.startswith(".warpwise")]


def test_the_choices_on_the_command_line_are_those_of_the_library():
    from typing import get_args

    from warpwise.cli.apply import Interpolation
    from warpwise.cli.method_options import Device, Measure, Transform
    from warpwise.methods import Method
    from warpwise.registrars.deformable import MOTIONS
    from warpwise.registrars.deformable.motions import Kind
    from warpwise.registrars.linear import TRANSFORMS
    from warpwise.registrars.linear.affine import Freedom
    from warpwise.resampling import INTERPOLATIONS
    from warpwise.terms import SIMILARITIES

    assert [*Transform] == [*TRANSFORMS, *MOTIONS]
    assert set(TRANSFORMS) <= set(get_args(Freedom))
    assert get_args(Kind) == tuple(MOTIONS)
    assert [*Measure] == [*SIMILARITIES]
    assert [*Device] == [*get_args(Method.model_fields["device"].annotation)]
    assert [*Interpolation] == [*INTERPOLATIONS]
