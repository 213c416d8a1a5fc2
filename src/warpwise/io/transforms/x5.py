"""X5, the transform format that BIDS drafts, as nitransforms reads and writes it."""

from pathlib import Path
from typing import Any, ClassVar

import nibabel as nib
import numpy as np

from warpwise.errors import InputError
from warpwise.grid import Grid
from warpwise.io.transforms import Spaces
from warpwise.transforms.affine import Affine
from warpwise.transforms.base import Transform
from warpwise.transforms.composite import Composite
from warpwise.transforms.displacement import DisplacementField
from warpwise.transforms.gridded import gridded


class X5:
    """Matrices, dense fields and chains of both; volumes only."""

    suffixes: ClassVar = (".x5",)

    @staticmethod
    def read(path: Path, spaces: Spaces) -> Transform:
        nitransforms = _nitransforms(path)
        try:
            chained = _has_chain(path)
            found = nitransforms.manip.TransformChain.from_filename(str(path), fmt="X5", x5_chain=0 if chained else None)
            nodes = found.transforms if chained else found[:1]
            parts = tuple(_ours(node) for node in nodes)
        except (OSError, KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path}: not a readable X5 file ({str(error)[:80]}).") from None
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
        nitransforms.manip.TransformChain(nodes).to_filename(str(path), fmt="X5")


def _nitransforms(path: Path) -> Any:
    try:
        import nitransforms  # noqa: PLC0415 - an extra, needed for this format only
        import nitransforms.manip  # noqa: PLC0415
    except ImportError:
        raise InputError(f"{path.name}: X5 files need nitransforms.", hint="pip install 'warpwise[formats]'") from None
    return nitransforms


def _has_chain(path: Path) -> bool:
    import h5py  # noqa: PLC0415 - comes with nitransforms

    with h5py.File(path, "r") as file:
        return "TransformChain" in file


def _ours(node: Any) -> Transform:
    if hasattr(node, "matrix"):
        return Affine(np.asarray(node.matrix, np.float64))
    deltas = np.moveaxis(np.asarray(node._deltas, np.float32), -1, 0)
    reference = node.reference
    return DisplacementField(np.ascontiguousarray(deltas), Grid(tuple(deltas.shape[1:]), np.asarray(reference.affine)))
