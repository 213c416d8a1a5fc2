"""MHA, NRRD, DICOM and pictures; what a reader refuses; one scan in every storage gives one answer."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

import warpwise as ww
from warpwise.errors import InputError
from warpwise.grid import Grid
from warpwise.image import Image
from warpwise.io.images import read_geometry, read_image, volumes_of, write_array, write_image

rng = np.random.default_rng(1)
OBLIQUE = np.array([[0.8, -0.6, 0, 10], [0.6, 0.8, 0, -20], [0, 0, -3.0, 30], [0, 0, 0, 1.0]])


@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nrrd", ".nhdr", ".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_volumes_come_back_where_and_as_they_were(tmp_path: Path, suffix: str, dtype: str):
    data = (rng.random((5, 6, 7)) * 200).astype(dtype)
    path = tmp_path / f"image{suffix}"
    write_image(path, Image(data[None], Grid(data.shape, OBLIQUE)))
    found = read_image(path)
    assert found.data.dtype == np.dtype(dtype)
    assert np.array_equal(found.data[0], data)
    assert np.allclose(found.grid.affine, OBLIQUE, atol=1e-6)
    assert read_geometry(path).grid.same_as(found.grid)


def test_simpleitk_and_nibabel_see_the_same_place(tmp_path: Path):
    data = rng.random((5, 6, 7)).astype(np.float32)
    for suffix in (".mha", ".nrrd", ".nii.gz"):
        write_image(tmp_path / f"a{suffix}", Image(data[None], Grid(data.shape, OBLIQUE)))
        itk = sitk.ReadImage(str(tmp_path / f"a{suffix}"))
        there = np.array(itk.TransformIndexToPhysicalPoint((4, 1, 3))) * [-1, -1, 1]
        assert np.allclose(there, (OBLIQUE @ [4, 1, 3, 1])[:3], atol=1e-4)


def test_a_sheared_grid_is_refused_by_formats_that_cannot_hold_it(tmp_path: Path):
    sheared = OBLIQUE.copy()
    sheared[0, 1] += 0.5
    image = Image(rng.random((1, 5, 6, 7)).astype(np.float32), Grid((5, 6, 7), sheared))
    with pytest.raises(InputError, match="sheared"):
        write_image(tmp_path / "a.nrrd", image)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_pictures_get_their_spacing_from_the_caller(tmp_path: Path, suffix: str):
    data = rng.integers(0, 255, (9, 12)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(data.T), str(tmp_path / f"a{suffix}"))
    found = read_image(tmp_path / f"a{suffix}", spacing_mm=(0.5, 0.25))
    assert np.array_equal(found.data[0], data)
    assert found.grid.spacing_mm == (0.5, 0.25)
    assert found.notes == ()
    assert "1 mm is assumed" in read_image(tmp_path / f"a{suffix}").notes[0]
    with pytest.raises(InputError, match="positive"):
        read_image(tmp_path / f"a{suffix}", spacing_mm=(-1.0,))


def test_colour_is_refused_or_becomes_luminance(tmp_path: Path):
    data = rng.integers(0, 255, (8, 9, 3)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(data, isVector=True), str(tmp_path / "a.png"))
    with pytest.raises(InputError, match="RGB"):
        read_image(tmp_path / "a.png")
    grey = read_image(tmp_path / "a.png", grey=True).data[0]
    assert np.allclose(grey.T, data @ [0.2126, 0.7152, 0.0722], atol=1e-3)


def test_a_slice_is_a_plane_along_any_axis_and_returns_as_it_came(tmp_path: Path):
    for axis in range(3):
        shape = [6, 7, 8]
        shape[axis] = 1
        data = rng.random(shape).astype(np.float32)
        path = tmp_path / f"plane{axis}.nii.gz"
        nib.Nifti1Image(data, OBLIQUE).to_filename(path)
        image = read_image(path)
        assert image.grid.dim == 2
        assert image.grid.shape == tuple(n for n in shape if n > 1)
        write_image(tmp_path / "again.nii.gz", image, like=read_geometry(path))
        again = nib.load(tmp_path / "again.nii.gz")
        assert again.shape == tuple(shape)
        assert np.allclose(again.affine, OBLIQUE, atol=1e-5)
        assert np.array_equal(np.asarray(again.dataobj), data)


def test_series_are_read_volume_by_volume(tmp_path: Path):
    data = (rng.random((4, 5, 6, 3)) * 100).astype(np.int16)
    nib.Nifti1Image(data, OBLIQUE).to_filename(tmp_path / "four.nii.gz")
    volumes, count = volumes_of(tmp_path / "four.nii.gz")
    assert count == 3
    assert all(np.array_equal(found, data[..., k]) for k, found in enumerate(volumes))
    assert np.array_equal(read_image(tmp_path / "four.nii.gz", volume=2).data[0], data[..., 2])
    write_array(tmp_path / "four.nrrd", data, Grid(data.shape[:3], OBLIQUE))
    volumes, count = volumes_of(tmp_path / "four.nrrd")
    assert count == 3
    assert np.array_equal(next(volumes), data[..., 0])


def dicom(folder: Path, data: np.ndarray, **changes) -> Path:
    """A series (X, Y, Z) as a scanner writes it, with a patient's name."""
    folder.mkdir(exist_ok=True)
    uid = changes.pop("uid", generate_uid())
    skip, turned = changes.pop("skip", ()), changes.pop("turned", ())
    for k in range(data.shape[2]):
        if k in skip:
            continue
        meta = FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        found = FileDataset(str(folder / "x"), {}, file_meta=meta, preamble=b"\0" * 128)
        found.SOPClassUID, found.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        found.SeriesInstanceUID, found.Modality = uid, "CT"
        found.PatientName, found.PatientID, found.PatientBirthDate = "Secret^Person", "PID-4711", "19700101"
        found.Rows, found.Columns, found.PixelSpacing = data.shape[1], data.shape[0], [0.7, 0.5]
        found.ImagePositionPatient = [-10.0, 20.0, 5.0 + 2.5 * k]
        found.ImageOrientationPatient = [1, 0, 0, 0, 0.8, 0.6] if k in turned else [1, 0, 0, 0, 1, 0]
        found.RescaleSlope, found.RescaleIntercept, found.InstanceNumber = 2, -1000, data.shape[2] - k
        found.SamplesPerPixel, found.PhotometricInterpretation = 1, "MONOCHROME2"
        found.BitsAllocated = found.BitsStored = 16
        found.HighBit, found.PixelRepresentation = 15, 0
        found.PixelData = np.ascontiguousarray(data[:, :, k].T).astype("<u2").tobytes()
        # File names and instance numbers run against the slices' order.
        found.save_as(folder / f"{changes.get('prefix', 'im')}{99 - k:03d}.dcm", enforce_file_format=True)
    return folder


def test_a_dicom_folder_is_one_volume_as_simpleitk_reads_it(tmp_path: Path):
    data = rng.integers(0, 3000, (6, 7, 5)).astype(np.uint16)
    folder = dicom(tmp_path / "series", data)
    found = read_image(folder)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    itk = reader.Execute()
    assert np.array_equal(found.data[0], data.astype(np.int32) * 2 - 1000)
    assert np.array_equal(found.data[0], sitk.GetArrayFromImage(itk).transpose())
    assert found.grid.spacing_mm == (0.5, 0.7, 2.5)
    corner = np.array(itk.TransformIndexToPhysicalPoint((5, 1, 3))) * [-1, -1, 1]
    assert np.allclose((found.grid.affine @ [5, 1, 3, 1])[:3], corner, atol=1e-9)
    assert read_geometry(folder).grid.same_as(found.grid)
    one = read_image(sorted(folder.iterdir())[0])
    assert one.grid.dim == 2
    assert np.array_equal(one.data[0], found.data[0][..., 4])


def test_dicom_folders_that_are_not_one_volume_say_why(tmp_path: Path):
    data = rng.integers(0, 3000, (6, 7, 6)).astype(np.uint16)
    both = dicom(tmp_path / "both", data, uid="1.2.3")
    dicom(both, data + 1, uid="1.2.4", prefix="b")
    with pytest.raises(InputError, match=r"2 DICOM series.*1\.2\.4 \(6 files, CT\); 1\.2\.3.*--series"):
        read_image(both)
    assert read_image(both, series=("1.2.4",)).data.max() == (int(data.max()) + 1) * 2 - 1000
    with pytest.raises(InputError, match=r"no series 9\.9"):
        read_image(both, series=("9.9",))
    with pytest.raises(InputError, match=r"slices are missing: 5\.00 mm .* 2\.50 mm elsewhere \(1 such"):
        read_image(dicom(tmp_path / "gap", data, skip=(3,)))
    with pytest.raises(InputError, match="different orientation"):
        read_image(dicom(tmp_path / "turned", data, turned=(2,)))
    twice = dicom(tmp_path / "twice", data, uid="1.5")
    dicom(twice, data, uid="1.5", prefix="again")
    with pytest.raises(InputError, match="same place"):
        read_image(twice)
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "notes.txt").write_text("x" * 300)
    with pytest.raises(InputError, match="without a DICOM series"):
        read_image(tmp_path / "none")
    cut = dicom(tmp_path / "cut", data[:, :, :1])
    file = next(cut.iterdir())
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"truncated|cannot be read"):
        read_image(file)


def test_patients_do_not_travel(tmp_path: Path):
    """Neither a DICOM header nor a NIfTI description reaches an output, in any format."""
    data = np.asarray(ww.brain_pair((32, 36, 30), seed=1).fixed.data[0] * 1000, np.uint16)
    folder = dicom(tmp_path / "series", data)
    fixed = nib.Nifti1Image(data.astype(np.int16), read_image(folder).grid.affine)
    fixed.header["descrip"], fixed.header["aux_file"], fixed.header["db_name"] = b"Secret Person", b"PID-4711", b"Secret"
    fixed.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Secret Person"))
    fixed.to_filename(tmp_path / "fixed.nii")
    from warpwise.cli import execute

    out = tmp_path / "out"
    code = execute(["register", str(tmp_path / "fixed.nii"), str(folder), "-o", str(out), "--preset", "fast", "--report"])
    assert code == 0
    warped = out / "warped.nii.gz"
    for suffix in (".nrrd", ".mha"):
        assert (
            execute([
                "apply",
                str(out / "transform.h5"),
                str(folder),
                "--like",
                str(tmp_path / "fixed.nii"),
                "-o",
                str(out / f"w{suffix}"),
            ])
            == 0
        )
    for path in out.iterdir():
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
        assert b"Secret" not in raw, path
        assert b"PID-4711" not in raw, path
        assert b"19700101" not in raw, path
    assert warped.exists()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "a.mha",
            b"ObjectType = Image\nNDims = 3\nDimSize = 9 9\nElementType = MET_SHORT\nElementDataFile = LOCAL\n",
            "sizes",
        ),
        ("a.mha", b"ObjectType = Image\nNDims = 99999999999a\nElementDataFile = LOCAL\n", "MHA"),
        ("a.png", b"\x89PNG\r\n\x1a\n\x7f\xff\xff\xffIHDR", "truncated"),
        (
            "a.nrrd",
            b"NRRD0004\ntype: short\ndimension: 3\nsizes: 99999 99999 99999\nencoding: raw\n\n",
            "not a readable image",
        ),
        ("a.dcm", b"\0" * 128 + b"DICM" + b"\xff" * 40, "no size in its header"),
    ],
)
def test_files_that_lie_are_refused_before_their_voxels(tmp_path: Path, name: str, content: bytes, words: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_image(tmp_path / name)


def test_a_gzip_bomb_is_refused_from_its_header(tmp_path: Path):
    header = nib.Nifti1Image(np.zeros((1, 1, 1), np.uint8), np.eye(4)).header.copy()
    header.set_data_shape((900, 900, 900))
    header["vox_offset"] = 352
    (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress(header.binaryblock + b"\0" * 5000))
    with pytest.raises(InputError, match="truncated after 5348 of"):
        read_image(tmp_path / "bomb.nii.gz")


def test_labels_are_whole_and_not_negative(tmp_path: Path):
    for values, words in ((-1, "must not be negative; the lowest is -1"), (0.5, "whole numbers")):
        data = np.zeros((6, 6, 6), np.float32)
        data[2, 3, 4] = values
        nib.Nifti1Image(data, np.eye(4)).to_filename(tmp_path / "labels.nii")
        with pytest.raises(InputError, match=words):
            read_image(tmp_path / "labels.nii", kind="labels")


def test_headers_that_disagree_are_noted(tmp_path: Path):
    image = nib.Nifti1Image(rng.random((6, 6, 6)).astype(np.float32), np.eye(4))
    image.set_sform(np.diag([1, 1, 1, 1.0]), code=1)
    moved = np.eye(4)
    moved[0, 3] = 7
    image.set_qform(moved, code=1)
    image.to_filename(tmp_path / "two.nii")
    found = read_image(tmp_path / "two.nii")
    assert "disagree by up to 7.0 mm; the sform is used" in found.notes[0]
    assert np.allclose(found.grid.affine, np.eye(4))
    image.set_sform(None, code=0)
    image.set_qform(None, code=0)
    image.to_filename(tmp_path / "none.nii")
    assert "no orientation" in read_image(tmp_path / "none.nii").notes[0]
