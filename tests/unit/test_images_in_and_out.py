"""Reading and writing NIfTI; whatever a caller has as an image."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from strategies import affines

from warpwise.errors import InputError
from warpwise.grid import Grid
from warpwise.image import Image
from warpwise.io.adapt import as_image, as_transform
from warpwise.io.images import read_geometry, read_image, write_image
from warpwise.io.nifti import write_displacement
from warpwise.transforms.affine import Affine

rng = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_voxels_come_back_as_they_were(tmp_path, dtype: str, suffix: str):
    data = (rng.random((5, 6, 7)) * 200).astype(dtype)
    path = tmp_path / f"ünïcode image{suffix}"
    nib.Nifti1Image(data, np.diag([1, 2, 3, 1.0])).to_filename(path)
    image = read_image(path)
    assert image.data.dtype == np.dtype(dtype)
    assert np.array_equal(image.data[0], data)
    assert read_geometry(path).grid.same_as(image.grid)


def test_scale_and_intercept_are_applied(tmp_path):
    image = nib.Nifti1Image((rng.random((5, 5, 5)) * 100).astype(np.int16), np.eye(4))
    raw = np.asarray(image.dataobj).copy()
    image.header.set_slope_inter(0.5, -3)
    path = tmp_path / "scaled.nii"
    image.to_filename(path)
    stored = nib.load(path)
    assert np.allclose(read_image(path).data[0], np.asarray(stored.dataobj), atol=1e-4)
    assert raw.shape == stored.shape


@given(affines(), st.sampled_from([".nii", ".nii.gz"]))
def test_written_images_lie_where_they_were_for_nibabel_and_itk(tmp_path_factory, affine: np.ndarray, suffix: str):
    path = tmp_path_factory.mktemp("out") / f"image{suffix}"
    data = rng.random((1, 4, 5, 6)).astype(np.float32)
    write_image(path, Image(data, Grid((4, 5, 6), affine)))
    theirs = nib.load(path)
    assert np.array_equal(np.asarray(theirs.dataobj), data[0])
    assert np.allclose(theirs.affine, affine, atol=1e-3)
    itk = sitk.ReadImage(str(path))
    corner = np.array(itk.TransformIndexToPhysicalPoint((3, 4, 5))) * [-1, -1, 1]
    assert np.allclose(corner, (affine @ [3, 4, 5, 1])[:3], atol=1e-2)


def test_a_large_file_of_many_gzip_members_is_one_image(tmp_path):
    data = rng.random((1, 90, 90, 90)).astype(np.float32)
    write_image(tmp_path / "big.nii.gz", Image(data, Grid((90, 90, 90), np.eye(4))))
    assert np.array_equal(np.asarray(nib.load(tmp_path / "big.nii.gz").dataobj), data[0])
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "big.nii.gz"))).T, data[0])


def test_the_same_image_is_the_same_file(tmp_path):
    image = Image(rng.random((1, 9, 9, 9)).astype(np.float32), Grid((9, 9, 9), np.eye(4)))
    for name in ("a.nii.gz", "b.nii.gz"):
        write_image(tmp_path / name, image)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_itk_reads_our_displacement_as_lps_vectors(tmp_path):
    vectors = rng.normal(0, 3, (3, 5, 6, 7)).astype(np.float32)
    write_displacement(tmp_path / "field.nii.gz", vectors, Grid((5, 6, 7), np.eye(4)))
    found = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "field.nii.gz")))
    assert found.shape == (7, 6, 5, 3)
    expected = np.moveaxis(vectors * np.array([-1, -1, 1])[:, None, None, None], 0, -1).transpose(2, 1, 0, 3)
    assert np.abs(found - expected).max() <= 0.5 / 1024 + 1e-6


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_plane_file_comes_back_as_it_came(tmp_path, suffix: str):
    path = tmp_path / f"plane{suffix}"
    oblique = np.eye(4)
    oblique[:2, :2] = [[0, -2], [1.5, 0]]
    nib.Nifti1Image(rng.random((8, 9)).astype(np.float32), oblique).to_filename(path)
    image = read_image(path)
    assert image.grid.shape == (8, 9)
    write_image(tmp_path / f"again{suffix}", image, like=read_geometry(path))
    again = nib.load(tmp_path / f"again{suffix}")
    assert again.shape == nib.load(path).shape
    assert np.array_equal(again.affine, nib.load(path).affine)


def test_one_volume_of_a_series_is_chosen(tmp_path):
    data = rng.random((4, 5, 6, 3)).astype(np.float32)
    nib.Nifti1Image(data, np.eye(4)).to_filename(tmp_path / "series.nii")
    with pytest.raises(InputError, match="3 volumes"):
        read_image(tmp_path / "series.nii")
    with pytest.raises(InputError, match="no volume 3"):
        read_image(tmp_path / "series.nii", volume=3)
    assert np.array_equal(read_image(tmp_path / "series.nii", volume=2).data[0], data[..., 2])


def test_every_kind_of_image_is_the_same_image(tmp_path):
    data = rng.random((5, 6, 7)).astype(np.float32)
    affine = np.array([[0, 0, 2.0, 5], [-1.0, 0, 0, 6], [0, 1.5, 0, -7], [0, 0, 0, 1]])
    nifti = nib.Nifti1Image(data, affine)
    nifti.to_filename(tmp_path / "image.nii")
    itk = sitk.ReadImage(str(tmp_path / "image.nii"))
    forms = [tmp_path / "image.nii", str(tmp_path / "image.nii"), nifti, itk, (data, affine), as_image((data, affine))]
    for form in forms:
        image = as_image(form)
        assert np.array_equal(image.data[0], data)
        assert np.allclose(image.grid.affine, affine, atol=1e-4)


def test_channels_of_a_vector_image_are_channels():
    itk = sitk.GetImageFromArray(rng.random((7, 6, 5, 2)), isVector=True)
    assert as_image(itk).data.shape == (2, 5, 6, 7)


def test_other_things_are_not_images_or_transforms():
    with pytest.raises(InputError, match="not an image"):
        as_image(5)
    with pytest.raises(InputError, match="not a transform"):
        as_transform(5)
    assert isinstance(as_transform(np.eye(4)), Affine)
    assert as_transform(sitk.TranslationTransform(3, [1.0, 2.0, 3.0])).points(np.zeros((1, 3))).tolist() == [[-1, -2, 3]]
