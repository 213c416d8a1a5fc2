"""Figures of the report, whatever the voxels."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

import warpwise as ww
from warpwise.grid import Grid
from warpwise.image import Image
from warpwise.report import figures
from warpwise.report.material import Material
from warpwise.report.planes import views
from warpwise.transforms.affine import Affine


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
