"""Transforms against closed forms, and against SimpleITK."""

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from strategies import affines, grids, smooth_fields

from warpwise.errors import InputError
from warpwise.grid import Grid
from warpwise.image import Image
from warpwise.io.points import Points
from warpwise.io.transforms import read_transform, write_transform
from warpwise.ops import kernels
from warpwise.transforms.affine import Affine
from warpwise.transforms.base import Composite, Transform
from warpwise.transforms.displacement import DisplacementField
from warpwise.transforms.velocity import VelocityField

SHAPE = (16, 18, 14)


def in_mm(field: np.ndarray, grid: Grid) -> DisplacementField:
    return DisplacementField(kernels.map_vectors(field, grid.affine[:3, :3]), grid)


def points_in(grid: Grid, count: int = 200, *, margin: float = 2.0) -> np.ndarray:
    rng = np.random.default_rng(3)
    index = rng.uniform(margin, np.array(grid.shape) - 1 - margin, (count, grid.dim))
    return index @ grid.affine[:-1, :-1].T + grid.affine[:-1, -1]


def voxels(distance_mm: np.ndarray, grid: Grid) -> float:
    return float(np.abs(distance_mm @ grid.inverse_affine[:-1, :-1].T).max())


@given(affines(), affines())
def test_affines_compose_as_matrices_and_invert(a: np.ndarray, b: np.ndarray):
    points = np.random.default_rng(0).uniform(-50, 50, (20, 3))
    chain = Affine(a).then(Affine(b))
    homogeneous = np.c_[points, np.ones(20)]
    assert np.allclose(chain.points(points), (homogeneous @ (b @ a).T)[:, :3])
    assert np.allclose(chain.inverse().points(chain.points(points)), points, atol=1e-6)


@given(affines(), grids())
def test_an_affines_displacement_is_what_it_does_to_voxels(matrix: np.ndarray, grid: Grid):
    found = Affine(matrix).displacement(grid)
    slow = Transform.displacement(Affine(matrix), grid)
    scale = max(1.0, float(np.abs(slow).max()))
    assert np.abs(found - slow).max() < 1e-6 * scale


@given(smooth_fields(), affines())
def test_the_inverse_of_a_field_undoes_it_exactly(field: np.ndarray, affine: np.ndarray):
    grid = Grid(SHAPE, affine)
    forward = in_mm(field, grid)
    points = points_in(grid)
    assert voxels(forward.inverse().points(forward.points(points)) - points, grid) < 1e-3
    assert voxels(forward.points(forward.inverse().points(points)) - points, grid) < 1e-3
    assert forward.inverse().inverse() is forward


@given(smooth_fields())
def test_an_inverse_on_another_grid_is_the_inverse_at_its_voxels(field: np.ndarray):
    grid = Grid(SHAPE, np.diag([1.5, 1.0, 2.0, 1.0]))
    other = Grid((6, 7, 5), np.diag([3.0, 2.0, 4.0, 1.0]))
    backward = in_mm(field, grid).inverse()
    assert np.abs(backward.displacement(other) - Transform.displacement(backward, other)).max() < 2e-3


@given(smooth_fields(), st.sampled_from([(1, 1, 1), (2, 2, 2), (4, 2, 1)]))
def test_a_coarse_field_is_linear_between_its_nodes(field: np.ndarray, factors: tuple[int, int, int]):
    fine = Grid(SHAPE, np.diag([1.0, 2.0, 0.5, 1.0]))
    nodes = fine.nodes(factors)
    coarse = DisplacementField(field[:, : nodes.shape[0], : nodes.shape[1], : nodes.shape[2]], nodes)
    fast, slow = coarse.displacement(fine), Transform.displacement(coarse, fine)
    assert np.abs(fast - slow).max() < 1e-5


def test_a_composite_of_a_field_and_affines_takes_the_short_way_to_the_same_answer():
    grid = Grid(SHAPE, np.diag([1.0, 2.0, 0.5, 1.0]))
    rng = np.random.default_rng(1)
    field = DisplacementField(rng.normal(0, 1, (3, *SHAPE)).astype(np.float32), grid)
    a, b = (Affine(np.eye(4) + np.vstack([rng.normal(0, 0.1, (3, 4)), np.zeros((1, 4))])) for _ in range(2))
    chain = Composite((field, a, b))
    assert np.abs(chain.displacement(grid) - Transform.displacement(chain, grid)).max() < 1e-4


@given(smooth_fields(amplitude=0.5))
def test_a_velocitys_inverse_is_the_exponential_of_its_negative(velocity: np.ndarray):
    grid = Grid(SHAPE, np.eye(4))
    flow = VelocityField(velocity, grid)
    points = points_in(grid)
    # voxels: linear interpolation of fields this smooth
    assert voxels(flow.inverse().points(flow.points(points)) - points, grid) < 0.1


@pytest.mark.parametrize("dim", [2, 3])
def test_exponential_of_a_constant_velocity_is_a_shift(dim: int):
    grid = Grid((9,) * dim, np.diag([2.0] * dim + [1.0]))
    constant = np.zeros((dim, *grid.shape), np.float32)
    constant[0] = 3.0
    assert np.allclose(VelocityField(constant, grid).field.vectors, constant, atol=1e-5)


@given(st.integers(0, 1000))
def test_planes_have_inverses_too(seed: int):
    rng = np.random.default_rng(seed)
    grid = Grid((20, 24), np.array([[0.5, 0.1, 3.0], [-0.2, 1.5, 4.0], [0, 0, 1.0]]))
    x, y = np.meshgrid(np.linspace(0, np.pi, 20), np.linspace(0, np.pi, 24), indexing="ij")
    bump = (np.sin(x) * np.sin(y)).astype(np.float32)
    field = DisplacementField(np.stack([bump * rng.uniform(-1, 1), bump * rng.uniform(-1, 1)]), grid)
    points = points_in(grid)
    assert voxels(field.inverse().points(field.points(points)) - points, grid) < 1e-3
    assert np.abs(field.inverse().displacement(grid) - Transform.displacement(field.inverse(), grid)).max() < 1e-3


@pytest.mark.parametrize(
    "make",
    [
        lambda: Affine(np.diag([1.0, 1.0, 0.0, 1.0])),
        lambda: Affine(np.full((4, 4), np.inf)),
        lambda: DisplacementField(np.zeros((3, 4, 4, 4)), Grid((4, 4, 5), np.eye(4))),
        lambda: DisplacementField(np.full((3, 4, 4, 4), np.nan), Grid((4, 4, 4), np.eye(4))),
        lambda: Composite(()),
        lambda: Composite((Affine(np.eye(3)), Affine(np.eye(4)))),
    ],
)
def test_a_transform_that_makes_no_sense_is_refused(make):
    with pytest.raises(InputError):
        make()


@given(smooth_fields(), affines(), affines())
def test_itk_reads_our_file_as_the_same_map(tmp_path_factory, field: np.ndarray, affine: np.ndarray, then: np.ndarray):
    grid = Grid(SHAPE, affine)
    chain = in_mm(field, grid).then(Affine(then))
    path = tmp_path_factory.mktemp("itk") / "transform.h5"
    write_transform(path, chain)
    theirs = sitk.ReadTransform(str(path))
    points = points_in(grid, 50)
    flip = np.array([-1.0, -1.0, 1.0])
    expected = chain.points(points)
    found = np.array([theirs.TransformPoint((p * flip).tolist()) for p in points]) * flip
    assert np.abs(found - expected).max() < 1e-3  # mm: below a micrometre
    again = read_transform(path)
    assert np.abs(again.points(points) - expected).max() < 1e-3


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("suffix", [".tfm", ".txt", ".h5", ".mat"])
def test_rigid_transforms_of_itk_are_read(tmp_path, dim: int, suffix: str):
    if dim == 2:
        theirs = sitk.Euler2DTransform([3.0, 4.0], 0.3, [5.0, -6.0])
    else:
        theirs = sitk.Euler3DTransform([3.0, 4.0, 5.0], 0.3, -0.2, 0.5, [5.0, -6.0, 7.0])
    path = tmp_path / f"rigid{suffix}"
    sitk.WriteTransform(theirs, str(path))
    ours = read_transform(path)
    point = np.arange(1.0, dim + 1)
    flip = np.array([-1.0, -1.0, 1.0][:dim])
    assert np.allclose(ours.points((point * flip)[None])[0] * flip, theirs.TransformPoint(point.tolist()))


def test_files_that_are_no_transforms_are_named(tmp_path):
    (tmp_path / "text.h5").write_text("hello")
    (tmp_path / "text.foo").write_text("hello")
    with pytest.raises(InputError, match="no such file"):
        read_transform(tmp_path / "absent.h5")
    with pytest.raises(InputError, match="not a readable transform"):
        read_transform(tmp_path / "text.h5")
    with pytest.raises(InputError, match="not a transform file name"):
        read_transform(tmp_path / "text.foo")
    bspline = sitk.BSplineTransform(3, 3)
    sitk.WriteTransform(bspline, str(tmp_path / "bspline.tfm"))
    with pytest.raises(InputError, match="BSpline"):
        read_transform(tmp_path / "bspline.tfm")


def test_a_field_is_kept_whole_and_in_single_precision(tmp_path):
    # nitransforms looks voxels of the reference up in the field, which must therefore span all of it.
    grid = Grid((20, 22, 18), np.diag([1.0, 2.0, 1.5, 1.0]))
    vectors = np.zeros((3, 20, 22, 18), np.float32)
    vectors[:, 6:12, 8:11, 5:15] = np.random.default_rng(0).normal(0, 1, (3, 6, 3, 10))
    field = DisplacementField(vectors, grid)
    write_transform(tmp_path / "field.h5", field)
    found = read_transform(tmp_path / "field.h5")
    assert found.grid.same_as(grid)
    assert np.array_equal(found.vectors, vectors)
    assert (tmp_path / "field.h5").stat().st_size < vectors.nbytes + 20_000


@pytest.mark.parametrize("dim", [2, 3])
def test_what_is_printed_fits_on_three_lines(dim: int):
    rng = np.random.default_rng(0)
    affine = np.eye(dim + 1)
    affine[:dim] = rng.uniform(-1e3, 1e3, (dim, dim + 1)) / 7
    grid = Grid((160, 190, 150)[:dim], affine)
    vectors = rng.normal(0, 100, (dim, *grid.shape)).astype(np.float32)
    field = DisplacementField(vectors, grid)
    matrix = Affine(affine)
    name = "/a/very/long/path" * 30
    for shown in (
        grid, Image(vectors, grid, name=name, notes=("odd",) * 9), matrix, field, field.inverse(),
        VelocityField(vectors, grid), Composite((field, *[matrix] * 100)), Points(rng.normal(0, 1, (50, dim)), name=name),
        Points(np.zeros((0, dim))),
    ):  # fmt: skip
        text = repr(shown)
        assert text.startswith(f"{type(shown).__name__}(")
        assert len(text) <= 300, text
        assert text.count("\n") <= 2, text
    assert "voxels of" in repr(grid)
    assert "long/path" in repr(Image(vectors, grid, name=name))
    assert f"up to {np.linalg.norm(vectors, axis=0).max():.3g} mm" in repr(field)
