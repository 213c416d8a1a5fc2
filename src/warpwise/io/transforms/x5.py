"""X5, the transform format that BIDS drafts, as nitransforms reads and writes it.

HDF5 can be made to crash or to search for ever by a file that lies, so a file is read in a process of its own, with
bounds on its time and memory: `python -m warpwise.io.transforms.x5 FILE OUT`.
"""

import subprocess
import sys
import tempfile
import warnings
import zipfile
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import nibabel as nib
import numpy as np

from warpwise.errors import InputError
from warpwise.extras import need
from warpwise.grid import Grid
from warpwise.io.transforms import Spaces
from warpwise.transforms.affine import Affine
from warpwise.transforms.base import Composite, Transform
from warpwise.transforms.displacement import DisplacementField
from warpwise.transforms.gridded import gridded

_BASE_BYTES, _BASE_S = 2 << 30, 4  # what importing the libraries takes, and more
_REFUSED = 3


class X5:
    """Matrices, dense fields and chains of both; volumes only."""

    suffixes: ClassVar = (".x5",)

    @staticmethod
    def read(path: Path, spaces: Spaces) -> Transform:
        _nitransforms(path)
        with tempfile.TemporaryDirectory(prefix="warpwise-x5-") as folder:
            out = Path(folder) / "parts.npz"
            command = [sys.executable, "-m", "warpwise.io.transforms.x5", str(path), str(out)]
            done = subprocess.run(command, capture_output=True, check=False)
            try:
                with np.load(out, allow_pickle=False) as found:
                    parts = _parts(dict(found)) if done.returncode == 0 else ()
            except (OSError, ValueError, zipfile.BadZipFile):
                parts = ()
        if not parts:
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
            reason = lines[-1][:100] if done.returncode == _REFUSED and lines else "its sizes or types do not fit"
            raise InputError(f"{path}: not a readable X5 file ({reason}).")
        return parts[0] if len(parts) == 1 else Composite(parts)

    @staticmethod
    def write(path: Path, transform: Transform, spaces: Spaces) -> None:
        nitransforms = _nitransforms(path)
        if transform.dim != 3:
            raise InputError(f"{path.name}: X5 files are written for volumes only.")
        whole = gridded(transform)
        parts = whole.parts if isinstance(whole, Composite) else (whole,)
        nodes: list[Any] = []
        for part in parts:
            if isinstance(part, Affine):
                nodes.append(nitransforms.linear.Affine(part.matrix))
            elif isinstance(part, DisplacementField):
                vectors = np.moveaxis(part.vectors, 0, -1)
                image = nib.Nifti1Image(np.asarray(vectors, np.float32), part.grid.affine)  # type: ignore[reportPrivateImportUsage]
                nodes.append(nitransforms.nonlinear.DenseFieldTransform(image, is_deltas=True))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a matrix needs no reference image
            nitransforms.manip.TransformChain(nodes).to_filename(str(path), fmt="X5")


def _nitransforms(path: Path) -> Any:
    need("nitransforms", what=f"{path.name}: an X5 file")
    import_module("nitransforms.manip")
    return import_module("nitransforms")


def _parts(found: dict[str, Any]) -> tuple[Transform, ...]:
    out: list[Transform] = []
    for n in range(len(found) // 2):
        values, affine = found[f"values{n}"], found[f"affine{n}"]
        if affine.size:
            out.append(DisplacementField(np.ascontiguousarray(values), Grid(values.shape[1:], affine)))
        else:
            out.append(Affine(values))
    return tuple(out)


def _unpack(path: Path, out: Path) -> None:
    """Read a file with nitransforms and save matrices and fields as plain arrays."""
    h5py, manip = import_module("h5py"), import_module("nitransforms.manip")
    size = path.stat().st_size
    _bound(_BASE_BYTES + 40 * size, _BASE_S + size // 20_000_000)
    with h5py.File(path, "r") as file:
        chained = "TransformChain" in file
    found: Any = manip.TransformChain.from_filename(str(path), fmt="X5", x5_chain=0 if chained else None)
    arrays: dict[str, Any] = {}
    for n, node in enumerate(found.transforms if chained else found[:1]):
        if hasattr(node, "matrix"):
            arrays[f"values{n}"], arrays[f"affine{n}"] = np.asarray(node.matrix, np.float64), np.zeros(0)
        else:
            arrays[f"values{n}"] = np.moveaxis(np.asarray(node._deltas, np.float32), -1, 0)
            arrays[f"affine{n}"] = np.asarray(node.reference.affine, np.float64)
    np.savez(out, **arrays)


def _bound(memory: int, seconds: int) -> None:
    try:
        import resource  # noqa: PLC0415 - not on every system
    except ImportError:
        return
    for limit, most in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CPU, seconds)):
        with suppress(ValueError):  # a lower one holds already; macOS lets nobody set the first
            resource.setrlimit(limit, (most, most))


if __name__ == "__main__":
    try:
        _unpack(Path(sys.argv[1]), Path(sys.argv[2]))
    except Exception as error:  # noqa: BLE001 - whatever the libraries raise is the reason
        sys.stderr.write(f"\n{str(error) or type(error).__name__}\n")
        sys.exit(_REFUSED)
