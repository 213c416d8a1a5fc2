"""Final resampling against SimpleITK, and label votes."""

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from strategies import affines

from warpwise.errors import InputError
from warpwise.grid import Grid
from warpwise.image import Image
from warpwise.io.adapt import as_image
from warpwise.resampling import resample
from warpwise.transforms.affine import Affine

FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])


def to_sitk(image: Image) -> sitk.Image:
    out = sitk.GetImageFromArray(image.data[0].T)
    affine = FLIP @ image.grid.affine
    spacing = np.array(image.grid.spacing_mm)
    out.SetSpacing(spacing.tolist())
    out.SetOrigin(affine[:3, 3].tolist())
    out.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    return out


def to_sitk_affine(matrix: np.ndarray) -> sitk.AffineTransform:
    lps = FLIP @ matrix @ FLIP
    out = sitk.AffineTransform(3)
    out.SetMatrix(lps[:3, :3].ravel().tolist())
    out.SetTranslation(lps[:3, 3].tolist())
    return out


@given(affines(), st.integers(0, 99))
@pytest.mark.parametrize(
    ("interpolation", "theirs"),
    [("linear", sitk.sitkLinear), ("nearest", sitk.sitkNearestNeighbor), ("cubic", sitk.sitkBSpline)],
)
def test_resampling_is_that_of_itk(interpolation: str, theirs: int, affine: np.ndarray, seed: int):
    rng = np.random.default_rng(seed)
    moving = Image(rng.random((1, 12, 14, 10)).astype(np.float32), Grid((12, 14, 10), affine))
    grid = Grid((9, 8, 11), affine @ np.diag([1.1, 1.3, 0.8, 1.0]))
    tilt = np.eye(4)
    tilt[:3, :3] += rng.normal(0, 0.05, (3, 3))
    centre = (affine @ [6, 7, 5, 1])[:3]
    tilt[:3, 3] = centre - tilt[:3, :3] @ centre
    found = resample(moving, grid, Affine(tilt), interpolation=interpolation).data[0]
    like = to_sitk(Image(np.zeros((1, 9, 8, 11), np.float32), grid))
    expected = sitk.GetArrayFromImage(sitk.Resample(to_sitk(moving), like, to_sitk_affine(tilt), theirs, 0.0)).T
    # A rounding decides where a sample lies on the edge of the image or half-way between voxels: compare the rest.
    close = np.abs(found - expected) < (1e-4 if interpolation != "cubic" else 2e-3)
    assert close.mean() > 0.98


def test_labels_are_voted_for_and_never_invented():
    labels = np.zeros((8, 8, 8), np.int16)
    labels[:4], labels[4:] = 7, 300
    image = as_image(labels, kind="labels")
    shift = np.eye(4)
    shift[0, 3] = 0.4
    moved = resample(image, image.grid, Affine(shift), interpolation="label")
    assert moved.data.dtype == np.int16
    assert set(np.unique(moved.data)) <= {0, 7, 300}
    assert (moved.data[0, 3] == 7).all()
    assert (moved.data[0, 4] == 300).all()


def test_air_in_ct_stays_air_outside_the_image():
    image = as_image(np.full((6, 6, 6), -1000, np.int16))
    far = np.eye(4)
    far[0, 3] = 100
    assert (resample(image, image.grid, Affine(far)).data == -1000).all()


def test_dimensions_must_agree():
    image = as_image(np.zeros((6, 6)))
    with pytest.raises(InputError, match="2-D"):
        resample(image, Grid((6, 6, 6), np.eye(4)), Affine(np.eye(4)))
    with pytest.raises(InputError, match="interpolation"):
        resample(image, image.grid, Affine(np.eye(3)), interpolation="sinc")
