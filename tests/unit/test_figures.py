"""Figures of the report, whatever the voxels."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from warpwise.grid import Grid
from warpwise.report import figures
from warpwise.report.planes import views


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
