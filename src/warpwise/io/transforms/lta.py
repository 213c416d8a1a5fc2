"""FreeSurfer's linear transform arrays: moving (src) → fixed (dst), with the geometry of both."""

from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from warpwise.errors import InputError
from warpwise.io.transforms import Space, Spaces
from warpwise.shapes import Matrix
from warpwise.transforms.affine import Affine
from warpwise.transforms.base import Transform
from warpwise.transforms.gridded import only_affine

_VOX, _RAS = 0, 1  # LINEAR_VOX_TO_VOX and LINEAR_RAS_TO_RAS
_LINES = 10_000


class Lta:
    """Types 0 (voxel to voxel) and 1 (RAS to RAS) are read, 1 is written."""

    suffixes: ClassVar = (".lta",)

    @staticmethod
    def read(path: Path, spaces: Spaces) -> Transform:
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
            lines = [line.split("#")[0].strip() for line in text.splitlines()[:_LINES]]
            lines = [line for line in lines if line]
            values = dict(line.split("=", 1) for line in lines[:5] if "=" in line)
            kind = int({k.strip(): v for k, v in values.items()}["type"])
            at = lines.index("1 4 4") + 1
            matrix = np.array([[float(word) for word in line.split()] for line in lines[at : at + 4]])
            source, target = (geometry(lines, head) for head in ("src volume info", "dst volume info"))
        except (KeyError, ValueError, IndexError):
            raise InputError(f"{path}: not a FreeSurfer transform of one matrix.") from None
        if kind not in (_VOX, _RAS):
            raise InputError(f"{path}: LTA type {kind}; types 0 (voxels) and 1 (RAS) can be read.")
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or abs(float(np.linalg.det(matrix))) < 1e-9:
            raise InputError(f"{path}: the matrix is not 4×4, finite and invertible.")
        if kind == _VOX:
            if source is None or target is None:
                raise InputError(f"{path}: a voxel-to-voxel transform without the geometry of its volumes.")
            matrix = target @ matrix @ np.linalg.inv(source)
        return Affine(np.linalg.inv(matrix).astype(np.float64))

    @staticmethod
    def write(path: Path, transform: Transform, spaces: Spaces) -> None:
        fixed, moving = spaces.both(path, "a FreeSurfer transform")
        matrix = np.linalg.inv(only_affine(transform).matrix)
        if matrix.shape != (4, 4):
            raise InputError(f"{path.name}: FreeSurfer transforms are for volumes.")
        rows = [" ".join(f"{value:.15e}" for value in row) for row in matrix]
        head = ["type      = 1", "nxforms   = 1", "mean      = 0.0000 0.0000 0.0000", "sigma     = 1.0000", "1 4 4"]
        lines = [*head, *rows, "src volume info", *described(moving), "dst volume info", *described(fixed)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def described(space: Space) -> list[str]:
    """FreeSurfer's words for a volume's place: direction cosines, and the RAS of its middle."""
    grid = space.grid
    cosines = grid.affine[:3, :3] / np.array(grid.spacing_mm)
    middle = (grid.affine @ np.array([*[n / 2 for n in grid.shape], 1.0]))[:3]
    rows = {
        "valid": "1  # volume info valid",
        "filename": Path(space.name).name,
        "volume": " ".join(map(str, grid.shape)),
        "voxelsize": " ".join(f"{s:.15e}" for s in grid.spacing_mm),
        **{f"{axis}ras  ": " ".join(f"{v:.15e}" for v in cosines[:, d]) for d, axis in enumerate("xyz")},
        "cras  ": " ".join(f"{v:.15e}" for v in middle),
    }
    return [f"{key} = {value}" for key, value in rows.items()]


def geometry(lines: list[str], head: str) -> Matrix | None:
    """Index → RAS mm of a volume that an LTA describes; None where it is not valid."""
    if head not in lines:
        return None
    at = lines.index(head) + 1
    rows = dict(line.split("=", 1) for line in lines[at : at + 8] if "=" in line)
    found = {key.strip(): value.strip() for key, value in rows.items()}
    if int(found["valid"]) != 1:
        return None

    def three(key: str) -> NDArray[np.float64]:
        values = np.array([float(word) for word in found[key].split()], np.float64)
        if values.shape != (3,) or not np.isfinite(values).all():
            raise ValueError(key)
        return values

    affine = np.eye(4)
    affine[:3, :3] = np.stack([three(f"{axis}ras") for axis in "xyz"], 1) * three("voxelsize")
    affine[:3, 3] = three("cras") - affine[:3, :3] @ (three("volume") / 2)
    return affine
