"""What bad input gets: exit code 2, one clear line, no traceback, nothing written."""

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

data = np.random.default_rng(0).random((20, 22, 18)).astype(np.float32)


def nifti(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    nib.Nifti1Image(array, np.eye(4) if affine is None else affine).to_filename(path)
    return path


def header_with(path: Path, field: str, value: object, *, at: object = ...) -> Path:
    """A file whose header was changed behind nibabel's back."""
    image = nib.Nifti1Image(data, np.eye(4))
    header = image.header
    raw = bytearray(header.binaryblock)
    view = np.frombuffer(raw, header.template_dtype, count=1)[0]
    view = np.array(view, header.template_dtype)
    view[field][at] = value
    path.write_bytes(view.tobytes() + b"\0" * 4 + data.tobytes(order="F"))
    return path


def without_spacing(path: Path) -> Path:
    """No orientation, and voxels of no size along one axis."""
    header = nib.Nifti1Image(data, np.eye(4)).header
    header["sform_code"] = header["qform_code"] = 0
    header["pixdim"][2] = 0
    path.write_bytes(header.binaryblock + b"\0" * 4 + data.tobytes(order="F"))
    return path


def truncated(path: Path) -> Path:
    nifti(path, data)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


def text(path: Path) -> Path:
    path.write_text("this is not an image")
    return path


def packed_text(path: Path) -> Path:
    with gzip.open(path, "wb") as file:
        file.write(b"this is not an image")
    return path


def corrupt(path: Path) -> Path:
    nifti(path, data)
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 0xFF
    path.write_bytes(bytes(whole))
    return path


def with_nan(path: Path) -> Path:
    spoilt = data.copy()
    spoilt[3, 4, 5:7] = np.nan
    spoilt[0, 0, 0] = np.inf
    return nifti(path, spoilt)


def rgb(path: Path) -> Path:
    kind = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.Nifti1Image(np.zeros((5, 5, 5), kind), np.eye(4)).to_filename(path)
    return path


def touched(path: Path) -> Path:
    path.touch()
    return path


def made(path: Path) -> Path:
    path.mkdir()
    return path


BAD: dict[str, tuple[str, Callable[[Path], Path], str]] = {
    "missing": ("absent.nii.gz", lambda p: p, "no such file"),
    "a folder": ("folder.nii.gz", made, "is a folder"),
    "empty": ("empty.nii.gz", touched, "empty"),
    "text named .nii": ("text.nii", text, "not a readable NIfTI"),
    "text named .nii.gz": ("text.nii.gz", text, "not compressed"),
    "packed text": ("text.nii.gz", packed_text, "not a readable NIfTI"),
    "another type": ("image.docx", text, "not an image that can be read"),
    "text named .png": ("image.png", text, "not a readable PNG"),
    "text named .nrrd": ("image.nrrd", text, "not a readable image"),
    "text named .mha": ("image.mha", text, "not a readable MHA"),
    "a folder without DICOM": ("folder", made, "without a DICOM series"),
    "truncated .nii.gz": ("cut.nii.gz", truncated, "truncated after"),
    "truncated .nii": ("cut.nii", truncated, "truncated after"),
    "corrupt": ("corrupt.nii.gz", corrupt, ""),
    "NaN": ("nan.nii.gz", with_nan, "3 of 7920 voxels are NaN or infinite"),
    "constant": ("flat.nii.gz", lambda p: nifti(p, np.full((20, 22, 18), 7, np.int16)), "every voxel is 7"),
    "all zero": ("zero.nii.gz", lambda p: nifti(p, np.zeros((20, 22, 18), np.uint8)), "every voxel is 0"),
    "4-D": ("series.nii.gz", lambda p: nifti(p, np.stack([data] * 3, -1)), "3 volumes"),
    "5-D": ("five.nii.gz", lambda p: nifti(p, np.stack([np.stack([data] * 2, -1)] * 2, -1)), "5 axes"),
    "1-D": ("line.nii.gz", lambda p: nifti(p, np.arange(9.0, dtype=np.float32)), "axis"),
    "complex": ("complex.nii.gz", lambda p: nifti(p, data.astype(np.complex64)), "complex"),
    "RGB": ("rgb.nii.gz", rgb, "RGB"),
    "singular affine": ("singular.nii.gz", lambda p: header_with(p.with_suffix(""), "srow_x", 0), "singular"),
    "NaN affine": ("nan.nii", lambda p: header_with(p, "srow_y", np.nan), "not finite"),
    "zero spacing": ("flat.nii", without_spacing, "voxel spacing"),
    "negative size": ("negative.nii", lambda p: header_with(p, "dim", -5, at=2), ""),
    "enormous size": ("huge.nii", lambda p: header_with(p, "dim", [3, 30000, 30000, 30000], at=slice(0, 4)), ""),
    "tiny": ("tiny.nii", lambda p: nifti(p, data[:3, :3, :3]), "too few"),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("place", ["fixed", "moving"])
def test_a_bad_image_gets_one_clear_line(kind: str, place: str, warpwise, tmp_path: Path):
    name, make, words = BAD[kind]
    bad, good = make(tmp_path / name), nifti(tmp_path / "good.nii.gz", data)
    pair = (bad, good) if place == "fixed" else (good, bad)
    code, said, err = warpwise("register", *pair, "-o", tmp_path / "out")
    assert code == 2, err
    assert said == ""
    lines = [line for line in err.splitlines() if not line.startswith(("good", bad.name.split(".")[0]))]
    assert len([line for line in lines if line.startswith("Error: ")]) == 1
    assert "Traceback" not in err
    assert words in err
    assert bad.name.split(".")[0] in lines[-1]
    assert not (tmp_path / "out").exists()


def test_nan_can_be_accepted(warpwise, tmp_path: Path):
    code, _, err = warpwise(
        "register",
        with_nan(tmp_path / "nan.nii"),
        nifti(tmp_path / "good.nii", data),
        "-o",
        tmp_path / "out",
        "--nan-to-zero",
    )
    assert code == 0, err


def test_existing_results_are_not_replaced_unless_asked(warpwise, files: Path, tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "warped.nii.gz").write_text("precious")
    arguments = ("register", files / "fixed.nii.gz", files / "moving.nii.gz", "-o", out, "--transform", "rigid")
    code, _, err = warpwise(*arguments)
    assert code == 2
    assert "--overwrite" in err
    assert (out / "warped.nii.gz").read_text() == "precious"
    assert [p.name for p in out.iterdir()] == ["warped.nii.gz"]
    assert warpwise(*arguments, "--overwrite")[0] == 0
    assert nib.load(out / "warped.nii.gz").shape == (48, 57, 45)


def test_a_file_where_a_folder_is_needed(warpwise, files: Path, tmp_path: Path):
    (tmp_path / "out").write_text("a file")
    for out in (tmp_path / "out", tmp_path / "out" / "below"):
        code, _, err = warpwise("register", files / "fixed.nii.gz", files / "moving.nii.gz", "-o", out)
        assert code == 2
        assert "file" in err
    assert (tmp_path / "out").read_text() == "a file"


def test_apply_and_evaluate_refuse_too(warpwise, files: Path, tmp_path: Path):
    text(tmp_path / "text.h5")
    moving, fixed = files / "moving.nii.gz", files / "fixed.nii.gz"
    code, _, err = warpwise("apply", tmp_path / "text.h5", moving, "--like", fixed, "-o", tmp_path / "out.nii.gz")
    assert (code, "not a readable transform" in err) == (2, True)
    code, _, err = warpwise("apply", tmp_path / "text.h5", moving, "--like", fixed, "-o", tmp_path / "out.docx")
    assert (code, "not a name for an image file" in err) == (2, True)
    (tmp_path / "there.nii").touch()
    code, _, err = warpwise("apply", tmp_path / "text.h5", moving, "--like", fixed, "-o", tmp_path / "there.nii")
    assert (code, "--overwrite" in err) == (2, True)
    code, _, err = warpwise(
        "evaluate", "--fixed-labels", fixed, "--warped-labels", nifti(tmp_path / "other.nii", data.round())
    )
    assert (code, "another grid" in err) == (2, True)
    code, _, err = warpwise("evaluate", "--fixed-labels", nifti(tmp_path / "f.nii", data), "--warped-labels", fixed)
    assert (code, "whole numbers" in err) == (2, True)
    assert not (tmp_path / "out.nii.gz").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("register",), "Missing"),
        (("register", "a", "b", "-o", "c", "--preset", "slow"), "slow"),
        (("register", "a", "b", "-o", "c", "--device", "cuda"), "CUDA"),
        (("register", "a", "b", "-o", "c", "--threads", "0"), "threads"),
        (("regster",), "regster"),
    ],
)
def test_wrong_usage_is_explained(arguments: tuple[str, ...], words: str, warpwise):
    code, _, err = warpwise(*arguments)
    assert code == 2
    assert words in err
    assert "Traceback" not in err


def test_masks_that_cannot_be_used(warpwise, files: Path, tmp_path: Path):
    empty = nifti(tmp_path / "empty.nii", np.zeros((48, 57, 45), np.uint8), nib.load(files / "fixed.nii.gz").affine)
    code, _, err = warpwise(
        "register", files / "fixed.nii.gz", files / "moving.nii.gz", "-o", tmp_path / "out", "--fixed-mask", empty
    )
    assert code == 2
    assert "mask is empty" in err


def test_a_debug_flag_shows_the_traceback(warpwise, tmp_path: Path):
    code, _, err = warpwise("register", tmp_path / "a.nii", tmp_path / "b.nii", "-o", tmp_path / "out", "--debug")
    assert code == 2
    assert "Traceback" in err
