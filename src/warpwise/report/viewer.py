"""An interactive view of the volumes by NiiVue, taken from an installed package at the moment a report is written.

ipyniivue ships NiiVue as an anywidget: a module of `initialize` and `render`, which take a model of named values. The
page gives it such a model (templates/viewer.js), so nothing of NiiVue is kept in this repository and none of its
internals are touched.
"""

import base64
import gzip
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from warpwise.image import intensity_range
from warpwise.io.nifti import full_affine, packed_nifti
from warpwise.report.material import Material, Volume

LARGEST = 6_000_000  # voxels a volume: a larger one is shown at every second voxel
LOG_REACH = 1.0  # log Jacobians beyond are cut in the viewer


@dataclass(frozen=True)
class Layer:
    """One volume of the viewer: its name, how it is coloured, and the gzipped NIfTI file in base64."""

    name: str
    colours: str
    low: float
    high: float
    file: str


@cache
def bundle() -> str | None:
    """NiiVue's module, gzipped, in base64; None where ipyniivue is not installed or not as expected."""
    spec = find_spec("ipyniivue")
    if spec is None or spec.origin is None:
        return None
    module = Path(spec.origin).parent / "static" / "widget.js"
    if not module.is_file():
        return None
    return base64.b64encode(gzip.compress(module.read_bytes(), 6, mtime=0)).decode("ascii")


def layers(material: Material) -> list[Layer]:
    """The volumes that can be laid over each other; none for a plane, which the figures show whole."""
    if material.grid.dim != 3:
        return []
    step = 1
    while np.prod([-(-n // step) for n in material.grid.shape]) > LARGEST:
        step += 1
    affine = full_affine(material.grid) @ np.diag([step, step, step, 1.0])
    out = [
        _layer(name, volume, affine, step)
        for name, volume in (
            ("fixed", material.fixed),
            ("warped", material.warped),
            ("after affine", material.affine),
            ("moving, before", material.before),
        )
        if volume is not None
    ]
    levels = np.clip(material.log_jacobian[::step, ::step, ::step] / LOG_REACH, -1, 1) * 127 + 128
    return [*out, Layer("log Jacobian", "blue2red", 1, 255, _packed(levels, affine))]


def _layer(name: str, volume: Volume, affine: NDArray[np.float64], step: int) -> Layer:
    low, high = intensity_range(volume)
    thin = volume[::step, ::step, ::step]
    levels = np.clip((thin - low) / max(high - low, 1e-12), 0, 1) * 255
    return Layer(name, "gray", 0, 255, _packed(levels, affine))


def _packed(levels: NDArray[np.floating], affine: NDArray[np.float64]) -> str:
    return base64.b64encode(packed_nifti(np.rint(levels).astype(np.uint8), affine)).decode("ascii")
