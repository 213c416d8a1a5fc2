"""apply on chains, series and points; convert, invert, jacobian; BIDS names."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

import warpwise as ww
from warpwise.io.points import Points, read_points, write_points


@pytest.fixture(scope="module")
def run(files: Path, tmp_path_factory) -> Path:
    """A registration of the small pair."""
    from warpwise.cli import execute

    out = tmp_path_factory.mktemp("run")
    assert execute(["register", str(files / "fixed.nii.gz"), str(files / "moving.nii.gz"), "-o", str(out), "--quiet"]) == 0
    return out


def warp(warpwise, *arguments: object) -> np.ndarray:
    code, _, err = warpwise("apply", *arguments)
    assert code == 0, err
    return np.asarray(nib.load(arguments[arguments.index("-o") + 1]).dataobj)


def test_a_chain_of_files_is_the_one_transform(warpwise, run: Path, files: Path, tmp_path: Path):
    fixed, moving = files / "fixed.nii.gz", files / "moving.nii.gz"
    code, _, err = warpwise("convert", run / "transform.h5", "-o", tmp_path / "out_", "--to", "ants", "--fixed", fixed)
    assert code == 0, err
    one, two = tmp_path / "out_1Warp.nii.gz", tmp_path / "out_0GenericAffine.mat"
    ours = warp(warpwise, run / "transform.h5", moving, "--like", fixed, "-o", tmp_path / "a.nii.gz")
    chained = warp(warpwise, one, two, moving, "--like", fixed, "-o", tmp_path / "b.nii.gz")
    scale = ours.max() - ours.min()
    assert np.abs(ours - chained).mean() < 1e-4 * scale
    # There and back again: forward, then each part turned round in the other order.
    body = np.asarray(nib.load(files / "fixed_labels.nii.gz").dataobj) > 0
    still = warp(warpwise, one, two, f"[{two},1]", f"inverse:{one}", fixed, "--like", fixed, "-o", tmp_path / "c.nii.gz")
    assert np.abs(still - np.asarray(nib.load(fixed).dataobj))[body].mean() < 0.01 * scale
    turned = warp(warpwise, f"[{two},1]", f"inverse:{one}", fixed, "--like", moving, "-o", tmp_path / "d.nii.gz")
    inverse = warp(warpwise, run / "transform.h5", fixed, "--like", moving, "-o", tmp_path / "e.nii.gz", "--inverse")
    assert np.abs(turned - inverse).mean() < 1e-3 * scale


def test_series_are_warped_volume_by_volume(warpwise, run: Path, files: Path, tmp_path: Path):
    moving = nib.load(files / "moving.nii.gz")
    data = np.asarray(moving.dataobj)
    nib.Nifti1Image(np.stack([data, data // 2, 255 - data], -1), moving.affine).to_filename(tmp_path / "four.nii.gz")
    fixed = files / "fixed.nii.gz"
    four = warp(warpwise, run / "transform.h5", tmp_path / "four.nii.gz", "--like", fixed, "-o", tmp_path / "out.nii.gz")
    one = warp(warpwise, run / "transform.h5", files / "moving.nii.gz", "--like", fixed, "-o", tmp_path / "one.nii.gz")
    assert four.shape == (*one.shape, 3)
    assert np.allclose(four[..., 0], one, atol=1e-4)
    third = warp(
        warpwise,
        run / "transform.h5",
        tmp_path / "four.nii.gz",
        "--like",
        fixed,
        "-o",
        tmp_path / "t.nii.gz",
        "--volume",
        2,
    )
    assert np.allclose(four[..., 2], third, atol=1e-4)


@pytest.mark.parametrize("suffix", [".csv", ".fcsv", ".mrk.json", ".tck", ".trk"])
def test_points_go_from_fixed_to_moving_and_back(warpwise, run: Path, tmp_path: Path, suffix: str):
    chain = ww.load_transform(run / "transform.h5")
    mm = np.random.default_rng(0).normal(0, 15, (12, 3))
    lines = (5, 7) if suffix in (".tck", ".trk") else ()
    write_points(tmp_path / f"a{suffix}", Points(mm, tuple("abcdefghijkl"), "lps", lengths=lines))
    code, _, err = warpwise("apply", run / "transform.h5", tmp_path / f"a{suffix}", "-o", tmp_path / f"b{suffix}")
    assert code == 0, err
    there = read_points(tmp_path / f"b{suffix}")
    assert np.allclose(there.mm, chain.points(mm), atol=1e-3)
    assert there.lengths == lines
    arguments = ("apply", run / "transform.h5", tmp_path / f"b{suffix}", "-o", tmp_path / f"c{suffix}", "--inverse")
    assert warpwise(*arguments)[0] == 0
    assert np.allclose(read_points(tmp_path / f"c{suffix}").mm, mm, atol=2e-2)
    itk = sitk.ReadTransform(str(run / "transform.h5"))
    theirs = np.array([itk.TransformPoint(p) for p in (mm * [-1, -1, 1]).tolist()]) * [-1, -1, 1]
    assert np.allclose(there.mm, theirs, atol=1e-3)


def test_every_format_holds_the_transform(warpwise, run: Path, files: Path, tmp_path: Path):
    chain = ww.load_transform(run / "transform.h5")
    grid = ww.load_image(files / "fixed.nii.gz").grid
    at = np.argwhere(np.ones(grid.shape))[::997]
    mm = at @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    where = ("--fixed", files / "fixed.nii.gz", "--moving", files / "moving.nii.gz")
    for name, to, back in (
        ("a.h5", (), ()), ("a.x5", (), ()), ("a.nii.gz", (), ()),
        ("b.nii.gz", ("--to", "fnirt"), ()), ("disp_0001_0002.nii.gz", ("--to", "learn2reg"), ("--from", "learn2reg")),
    ):  # fmt: skip
        code, _, err = warpwise("convert", run / "transform.h5", "-o", tmp_path / name, *to, *where)
        assert code == 0, (name, err)
        code, _, err = warpwise("convert", tmp_path / name, "-o", tmp_path / f"back_{name}.h5", *back, *where)
        assert code == 0, (name, err)
        found = ww.load_transform(tmp_path / f"back_{name}.h5")
        assert np.abs(found.points(mm) - chain.points(mm)).max() < 1e-3, name  # mm


def test_a_flirt_matrix_is_applied_between_the_images_at_hand(warpwise, files: Path, tmp_path: Path):
    fixed, moving = files / "fixed.nii.gz", files / "moving.nii.gz"
    assert warpwise("register", fixed, moving, "-o", tmp_path / "a", "--transform", "affine", "--preset", "fast")[0] == 0
    where = ("--fixed", fixed, "--moving", moving)
    assert warpwise("convert", tmp_path / "a" / "transform.h5", "-o", tmp_path / "f.mat", "--to", "flirt", *where)[0] == 0
    ours = warp(warpwise, tmp_path / "a" / "transform.h5", moving, "--like", fixed, "-o", tmp_path / "1.nii.gz")
    theirs = warp(warpwise, tmp_path / "f.mat", moving, "--like", fixed, "-o", tmp_path / "2.nii.gz")
    assert np.allclose(ours, theirs, atol=0.01)
    back = warp(warpwise, tmp_path / "f.mat", fixed, "--like", moving, "-o", tmp_path / "3.nii.gz", "--inverse")
    same = warp(warpwise, tmp_path / "a" / "inverse.h5", fixed, "--like", moving, "-o", tmp_path / "4.nii.gz")
    assert np.allclose(back, same, atol=0.01)


def test_formats_that_need_more_say_what(warpwise, run: Path, files: Path, tmp_path: Path):
    for arguments, words in (
        (("-o", tmp_path / "a.lta"), "--fixed IMAGE and --moving"),
        (("-o", tmp_path / "a.mat", "--to", "flirt"), "--fixed IMAGE and --moving"),
        (("-o", tmp_path / "a.tfm"), "only .h5 holds displacement fields"),
        (("-o", tmp_path / "a.nii.gz"), "--fixed IMAGE"),
        (("-o", tmp_path / "a.foo"), "not a transform file name"),
        (("-o", tmp_path / "a.h5", "--to", "itk5"), "Did you mean 'itk'"),
    ):
        code, _, err = warpwise("convert", run / "transform.h5", *arguments)
        assert (code, words in err) == (2, True), err
    where = ("--fixed", files / "fixed.nii.gz", "--moving", files / "moving.nii.gz")
    code, _, err = warpwise("convert", run / "transform.h5", "-o", tmp_path / "a.lta", *where)
    assert (code, "also deforms" in err) == (2, True)
    assert not list(tmp_path.iterdir())


def test_an_inverse_file_undoes_the_transform(warpwise, run: Path, files: Path, tmp_path: Path):
    chain = ww.load_transform(run / "transform.h5")
    grid = ww.load_image(files / "fixed.nii.gz").grid
    body = ww.load_image(files / "fixed_labels.nii.gz", kind="labels").data[0] > 0
    mm = np.argwhere(body)[::97] @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    for extra in ((), ("--like", files / "moving.nii.gz")):
        out = tmp_path / f"inverse{len(extra)}.h5"
        code, _, err = warpwise("invert", run / "transform.h5", "-o", out, *extra)
        assert code == 0, err
        miss = np.linalg.norm(ww.load_transform(out).points(chain.points(mm)) - mm, axis=1)
        assert miss.mean() < 0.15 * max(grid.spacing_mm)
    code, _, err = warpwise("invert", run / "transform.h5", "-o", tmp_path / "inverse0.h5")
    assert (code, "--overwrite" in err) == (2, True)


def test_the_jacobian_map_is_that_of_known_maps(warpwise, files: Path, tmp_path: Path):
    scale = sitk.AffineTransform(3)
    scale.SetMatrix([1.2, 0, 0, 0, 1.0, 0, 0, 0, 0.9])
    sitk.WriteTransform(scale, str(tmp_path / "scale.tfm"))
    fixed = files / "fixed.nii.gz"
    assert warpwise("jacobian", tmp_path / "scale.tfm", "-o", tmp_path / "j.nii.gz", "--like", fixed)[0] == 0
    assert np.allclose(np.asarray(nib.load(tmp_path / "j.nii.gz").dataobj), 1.08, atol=1e-4)
    assert warpwise("jacobian", tmp_path / "scale.tfm", "-o", tmp_path / "l.nii.gz", "--like", fixed, "--log")[0] == 0
    assert np.allclose(np.asarray(nib.load(tmp_path / "l.nii.gz").dataobj), np.log(1.08), atol=1e-4)


def test_the_jacobian_map_agrees_with_ants(warpwise, run: Path, files: Path, tmp_path: Path):
    import ants

    fixed = files / "fixed.nii.gz"
    assert warpwise("convert", run / "transform.h5", "-o", tmp_path / "w.nii.gz", "--fixed", fixed)[0] == 0
    assert warpwise("jacobian", tmp_path / "w.nii.gz", "-o", tmp_path / "j.nii.gz", "--like", fixed)[0] == 0
    ours = np.asarray(nib.load(tmp_path / "j.nii.gz").dataobj)
    theirs = ants.create_jacobian_determinant_image(ants.image_read(str(fixed)), str(tmp_path / "w.nii.gz")).numpy()
    body = np.asarray(nib.load(files / "fixed_labels.nii.gz").dataobj) > 0
    assert np.corrcoef(ours[body], theirs[body])[0, 1] > 0.99
    assert abs(float((ours - theirs)[body].mean())) < 0.01


def test_landmarks_are_evaluated_point_by_point(warpwise, run: Path, files: Path, tmp_path: Path):
    chain = ww.load_transform(run / "transform.h5")
    mm = np.random.default_rng(0).normal(0, 15, (5, 3))
    names = tuple("abcde")
    write_points(tmp_path / "f.fcsv", Points(mm, names))
    off = np.zeros((5, 3))
    off[2, 1] = 3.0
    write_points(tmp_path / "m.fcsv", Points(chain.points(mm) + off, names))
    code, said, err = warpwise(
        "evaluate", "--fixed-landmarks", tmp_path / "f.fcsv", "--moving-landmarks", tmp_path / "m.fcsv",
        "--transform", run / "transform.h5", "--json", tmp_path / "out.json", "--like", files / "fixed.nii.gz",
    )  # fmt: skip
    assert code == 0, err
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["tre_mm"]["c"] == pytest.approx(3, abs=1e-4)
    assert found["tre_mm"]["a"] == pytest.approx(0, abs=1e-4)
    assert found["percent_folded"] == 0
    assert "largest" in said
    code, _, err = warpwise("evaluate", "--fixed-landmarks", tmp_path / "f.fcsv")
    assert (code, "without the other" in err) == (2, True)
    code, _, err = warpwise("evaluate")
    assert (code, "nothing to evaluate" in err) == (2, True)


def test_landmarks_and_labels_on_the_command_line(warpwise, files: Path, tmp_path: Path):
    labels = ("--fixed-labels", files / "fixed_labels.nii.gz", "--moving-labels", files / "moving_labels.nii.gz")
    scores = []
    for weight in (0, 1):
        out = tmp_path / str(weight)
        code, _, err = warpwise(
            "register", files / "fixed.nii.gz", files / "moving.nii.gz", "-o", out, *labels, "--label-weight", weight,
            "--preset", "fast",
        )  # fmt: skip
        assert code == 0, err
        scores.append(json.loads((out / "result.json").read_text())["scores"]["dice"])
    assert scores[0]["mean_before"] == scores[1]["mean_before"]
    assert scores[0]["mean_before"] + 0.1 < scores[0]["mean_after"] < scores[1]["mean_after"]
    code, _, err = warpwise("register", files / "fixed.nii.gz", files / "moving.nii.gz", "-o", tmp_path / "x", *labels[:2])
    assert (code, "the other image's file is missing" in err) == (2, True)


def test_bids_derivatives_have_their_names(warpwise, files: Path, tmp_path: Path):
    raw = tmp_path / "raw" / "sub-02" / "ses-1" / "anat"
    raw.mkdir(parents=True)
    moving, fixed = raw / "sub-02_ses-1_acq-high_T1w.nii.gz", tmp_path / "tpl-Brain_T1w.nii.gz"
    moving.write_bytes((files / "moving.nii.gz").read_bytes())
    fixed.write_bytes((files / "fixed.nii.gz").read_bytes())
    out = tmp_path / "derivatives"
    code, _, err = warpwise("register", fixed, moving, "-o", out, "--bids", "--preset", "fast", "--transform", "affine")
    assert code == 0, err
    stem = "sub-02_ses-1_acq-high"
    assert {p.name for p in (out / "sub-02" / "ses-1" / "anat").iterdir()} == {
        f"{stem}_space-Brain_desc-warped_T1w.nii.gz",
        f"{stem}_from-T1w_to-Brain_mode-image_xfm.h5",
        f"{stem}_from-Brain_to-T1w_mode-image_xfm.h5",
        f"{stem}_from-T1w_to-Brain_mode-image_desc-displacement_xfm.nii.gz",
        f"{stem}_from-T1w_to-Brain_mode-image_xfm.json",
    }
    about = json.loads((out / "dataset_description.json").read_text())
    assert about["DatasetType"] == "derivative"
    code, _, err = warpwise("register", files / "fixed.nii.gz", moving, "-o", out, "--bids")
    assert (code, "not a BIDS name" in err) == (2, True)
