"""Figures of the report, whatever the voxels."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

import warpwise as ww
from warpwise.grid import Grid
from warpwise.image import Image
from warpwise.networks import parse_network
from warpwise.networks.base import initialise
from warpwise.networks.model import Model, ModelCard
from warpwise.ops import kernels
from warpwise.pair import Pair
from warpwise.registrars.learned.predicted import Predicted
from warpwise.report import figures
from warpwise.report.material import Material
from warpwise.report.planes import views
from warpwise.transforms.affine import Affine
from warpwise.transforms.displacement import DisplacementField
from warpwise.volume import Volume


@pytest.mark.parametrize("spacing", [0.7, 0.88, 0.9, 0.94, 1.2, 3.0])
def test_grids_are_drawn_on_planes_of_any_size_and_spacing(spacing: float):
    lines: list[np.ndarray] = []
    axis = SimpleNamespace(plot=lambda x, _, **__: lines.append(x), set=lambda **_: None)
    for size in (40, 64, 77, 101, 190, 191, 256):
        grid = Grid((size, 4, size + 1), np.diag([spacing, spacing, spacing, 1.0]))
        still = np.zeros((3, *grid.shape), np.float32)
        for view in views(grid, np.ones(grid.shape, np.float32)):
            lines.clear()
            figures.draw_grid(cast("Any", axis), view, still, cast("Any", SimpleNamespace(grid=grid)))
            assert len(lines) > 4


@pytest.mark.parametrize(("method", "planar"), [("balanced", False), ("energy", False), ("balanced", True)])
def test_the_way_of_a_solver_is_shown_scale_by_scale(method: str, planar: bool):
    pair = ww.brain_pair((40, 44, 36), seed=2)
    images = [pair.fixed, pair.moving]
    if planar:
        images = [Image(image.data[:, :, :, 18], Grid(image.data.shape[1:3], np.eye(3))) for image in images]
    result = ww.register(*images, method=method)
    assert len(result.passed) >= 1
    assert [name for name, *_ in result.passed] == sorted((name for name, *_ in result.passed), reverse=True)
    grid = images[0].grid
    linear = Affine(np.array(result.affine_only)).displacement(grid)
    final = result.displacement_mm - linear
    gaps = [np.abs(way.displacement(grid) - linear - final).mean() for _, way, _ in result.passed]
    assert gaps[-1] < 0.75 * np.abs(final).mean()  # on the way there
    assert all(energy is not None for *_, energy in result.passed)
    material = Material.of_result(result, (images[0], images[1]), result.record())
    last = material.evolution[-1]
    view = views(grid, material.fixed)[0]
    assert np.allclose(last.view.cut(last.warped), view.cut(material.warped), atol=1e-3 * np.abs(material.warped).max())
    whole = np.stack([view.cut(component) for component in final])
    assert np.allclose([last.view.cut(component) for component in last.nonlinear_mm], whole, atol=1e-2)
    figure = figures.evolution(material)
    assert figure is not None
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles[-1].startswith("in the end\nenergy ")
    assert len(titles) == len(result.passed) + 1


def test_what_goes_one_way_has_no_way_to_show():
    pair = ww.brain_pair((32, 36, 32), seed=1)
    result = ww.register(pair.fixed, pair.moving, method="affine")
    material = Material.of_result(result, (pair.fixed, pair.moving), result.record())
    assert material.evolution == ()
    assert figures.evolution(material) is None


@pytest.mark.parametrize("shape", [(27, 30, 25), (43, 38)])
def test_the_way_of_a_cascade_lies_where_its_field_does(shape: tuple[int, ...]):
    """The last of its stages adds nothing, so the one before is the answer: in mm, to the far border."""
    dim = len(shape)
    settings = {
        "kind": "cascade",
        "widths": [4, 6],
        "features": 3,
        "matching": [4],
        "context": [],
        "stages": 2,
        "finest": 1,
    }
    network = parse_network(settings)
    made = initialise(network.build(dim=dim, channels=1), torch.Generator().manual_seed(0)).eval()
    last = next(name for name, _ in made.named_modules() if name.endswith("stages.0-1"))
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if ".velocity." in name:
                parameter.mul_(0.0 if name.startswith(last) else 3e3)
    card = ModelCard(network=network, dim=dim, spacing_mm=(1.5,) * dim)
    rng = np.random.default_rng(0)
    space = shape if dim == 3 else (shape[0], 1, shape[1])
    volumes = [Volume(0.2 + 0.8 * rng.random((1, *space), np.float32), Grid(space, np.eye(4)), dim=dim) for _ in range(2)]
    found = Predicted(Model(card, made), samples=0).solve(Pair(volumes[0], volumes[1], np.eye(4)))
    assert [one.name for one in found.passed] == ["stage 1"]
    before = found.passed[-1]
    there = DisplacementField(kernels.map_vectors(before.field, before.nodes.affine[:3, :3]), before.nodes)
    assert np.abs(found.field).max() > 0.2
    assert np.allclose(there.displacement(volumes[0].grid), found.field, atol=0.05 * np.abs(found.field).max())
