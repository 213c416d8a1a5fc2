"""Operators against closed forms and against SciPy."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from warpwise import ops
from warpwise.errors import InputError
from warpwise.ops import kernels

rng = np.random.default_rng(0)


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.astype(np.float32))[None, None]


@pytest.mark.parametrize(("interpolation", "order", "mode"), [("linear", 1, "nearest"), ("cubic", 3, "mirror")])
def test_warp_is_scipys_map_coordinates(interpolation: str, order: int, mode: str):
    image = rng.random((9, 11, 8))
    field = rng.uniform(-2, 2, (3, 9, 11, 8)).astype(np.float32)
    at = np.clip(np.indices(image.shape) + field, 0, np.array(image.shape)[:, None, None, None] - 1)
    expected = ndimage.map_coordinates(image, at, order=order, mode=mode)
    found = ops.warp(tensor(image), torch.from_numpy(field)[None], interpolation=interpolation)[0, 0].numpy()
    assert np.abs(found - expected).max() < 2e-6


def test_gaussian_is_scipys_away_from_the_border():
    image = rng.random((24, 26, 25))
    expected = ndimage.gaussian_filter(image, 1.5, radius=5)
    found = ops.gaussian(tensor(image), sigma_voxels=1.5)[0, 0].numpy()
    inner = (slice(6, -6),) * 3
    assert np.abs(found - expected)[inner].max() < 1e-6


def test_filters_keep_a_constant_also_at_the_border():
    image = np.full((5, 6, 7), 3.0)
    assert np.allclose(ops.gaussian(tensor(image), sigma_voxels=2.0), 3, rtol=1e-6)
    assert np.allclose(ops.box(tensor(image), radius=3), 3, rtol=1e-6)


def test_box_is_a_mean_over_the_clipped_window():
    image = rng.random((7, 8, 6))
    found = ops.box(tensor(image), radius=2)[0, 0].numpy()
    assert found[0, 4, 5] == pytest.approx(image[0:3, 2:7, 3:6].mean(), rel=1e-6)


def test_lncc_of_a_linear_function_of_an_image_is_one():
    image = tensor(rng.random((10, 9, 11)))
    assert float(ops.lncc(image, 0.4 - 0.3 * image, radius=2, epsilon=1e-9)) == pytest.approx(1, abs=1e-3)
    signed = ops.lncc(image, 0.4 - 0.3 * image, radius=2, epsilon=1e-9, signed=True)
    assert float(signed) == pytest.approx(-1, abs=1e-3)


def test_equal_images_have_lncc_one_also_where_they_are_flat():
    image = rng.random((10, 9, 11)) * 0.01
    image[:5] = 0.3
    image[:, 5:] *= 60
    assert float(ops.lncc(tensor(image), tensor(image), radius=2)) == pytest.approx(1, abs=1e-3)
    other = np.roll(image, 1, 1)
    assert float(ops.lncc(tensor(image), tensor(other), radius=2)) < 0.99


def test_ncc_is_numpys_correlation():
    a, b = rng.random((6, 7, 8)), rng.random((6, 7, 8))
    assert float(ops.ncc(tensor(a), tensor(b))) == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1], abs=1e-6)


def test_mutual_information_of_an_image_with_itself_is_its_entropy_when_bins_are_hit_exactly():
    # Two values on bin centres, half each: Parzen windows overlap only if they are less than 4 bins apart.
    bins, unit = 32, 29 / 1.2
    image = np.zeros((4, 4, 4))
    image[::2] = 20 / unit
    found = float(ops.mutual_information(tensor(image), tensor(image), bins=bins))
    assert found == pytest.approx(np.log(2), abs=1e-5)


def test_mutual_information_of_unrelated_images_is_near_zero():
    a, b = rng.random((24, 24, 24)), rng.random((24, 24, 24))
    assert abs(float(ops.mutual_information(tensor(a), tensor(b), bins=12))) < 0.01


@pytest.mark.parametrize(("dim", "channels"), [(2, 4), (3, 12)])
def test_mind_ignores_a_linear_change_of_contrast(dim: int, channels: int):
    image = torch.rand(1, 1, *[12] * dim, generator=torch.Generator().manual_seed(1))
    a, b = ops.mind_ssc(image), ops.mind_ssc(1 - 0.5 * image)
    assert a.shape[1] == channels
    assert float((a - b).abs().max()) < 1e-3


def test_energies_of_known_fields():
    x = torch.arange(6.0)[:, None].expand(6, 5)
    linear = torch.stack([0.2 * x, torch.zeros(6, 5)])[None]
    assert float(ops.diffusion(linear)) == pytest.approx(0.04 * 25 / 30)
    assert float(ops.bending(linear)) == pytest.approx(0, abs=1e-12)
    square = torch.stack([0.5 * x**2, torch.zeros(6, 5)])[None]
    assert float(ops.bending(square)) == pytest.approx(20 / 30)


def test_determinants_of_a_linear_map_are_its_determinant():
    matrix = np.array([[0.1, 0.2, 0.0], [0.0, -0.1, 0.3], [0.1, 0.0, 0.2]])
    field = np.einsum("de,exyz->dxyz", matrix, np.indices((5, 6, 7))).astype(np.float32)
    exact = np.linalg.det(np.eye(3) + matrix)
    assert np.allclose(kernels.determinant(field), exact, atol=1e-5)
    lowest, count, volume = kernels.digital(field)
    assert np.allclose(lowest, exact, atol=1e-5)
    assert (count, volume) == (0, 0.0)


def test_digital_kernel_finds_what_the_reference_finds():
    field = rng.normal(0, 0.6, (3, 6, 7, 5)).astype(np.float32)
    ten = ops.digital_determinants(torch.from_numpy(field)[None].double())[0].numpy()
    lowest, count, volume = kernels.digital(field)
    assert np.abs(lowest - ten.min(0)).max() < 1e-5
    assert count == (ten.min(0) <= 0).sum() > 0
    assert volume == pytest.approx(-np.minimum(ten, 0).sum() / 12, rel=1e-5)


def test_a_mirrored_field_has_only_folds():
    field = np.zeros((3, 6, 6, 6), np.float32)
    field[0] = -2 * np.arange(6, dtype=np.float32)[:, None, None]
    assert (kernels.determinant(field) < 0).all()
    assert kernels.digital(field)[1] == 125


def test_force_is_the_gradient_of_a_composed_step():
    # E(step) = Σ c · warped∘(id + step) has the derivative c · ∇warped, by central differences.
    warped = rng.random((1, 8, 9, 7)).astype(np.float32)
    derivative = rng.random((1, 8, 9, 7)).astype(np.float32)
    found = kernels.force(derivative, warped, factors=(1, 1, 1), out=np.empty((3, 8, 9, 7), np.float32))
    expected = derivative * np.stack(np.gradient(warped[0].astype(np.float64)))
    inner = (slice(None), *(slice(1, -1),) * 3)
    assert np.abs(found - expected)[inner].max() < 1e-6


def test_force_on_coarse_nodes_is_the_adjoint_of_upsampling():
    warped = rng.random((1, 9, 9, 9)).astype(np.float32)
    derivative = rng.random((1, 9, 9, 9)).astype(np.float32)
    fine = kernels.force(derivative, warped, factors=(1, 1, 1), out=np.empty((3, 9, 9, 9), np.float32))
    nodes = (3, *kernels.coarse_shape((9, 9, 9), (2, 2, 2)))
    coarse = kernels.force(derivative, warped, factors=(2, 2, 2), out=np.empty(nodes, np.float32))
    probe = rng.random(nodes).astype(np.float32)
    assert float((coarse * probe).sum()) == pytest.approx(
        float((fine * kernels.upsample(probe, (9, 9, 9), (2, 2, 2))).sum()), rel=1e-5
    )


def test_typical_length_is_a_quantile_of_length_weighted_vectors():
    field = np.zeros((3, 10, 10, 10), np.float32)
    field[0, :5] = 1.0
    field[0, 0, 0, 0] = 100.0
    # 499 of 599 units of length belong to vectors of length 1.
    assert kernels.typical_length(field, 0.5) == pytest.approx(1, rel=0.07)
    assert kernels.typical_length(field, 0.9) == pytest.approx(100, rel=0.07)
    assert kernels.typical_length(np.zeros_like(field), 0.9) == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda: ops.warp(torch.zeros(1, 1, 4, 4), torch.zeros(1, 3, 4, 4)),
        lambda: ops.warp(torch.zeros(2, 1, 4, 4), torch.zeros(1, 2, 4, 4)),
        lambda: ops.warp(torch.zeros(1, 1, 4, 4), torch.zeros(1, 2, 4, 4).double()),
        lambda: ops.warp(torch.zeros(1, 1, 4, 4), torch.zeros(1, 2, 4, 4), interpolation="lanczos"),
        lambda: ops.lncc(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 5)),
        lambda: ops.lncc(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4), weight=torch.zeros(1, 2, 4, 4)),
        lambda: ops.gaussian(torch.zeros(1, 1, 4, 4), sigma_voxels=-1.0),
        lambda: kernels.compose(np.zeros((3, 4, 4)), np.zeros((3, 4, 4, 4))),
    ],
)
def test_what_does_not_fit_is_refused(call):
    with pytest.raises(InputError):
        call()
