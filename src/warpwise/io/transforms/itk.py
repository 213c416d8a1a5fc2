"""ITK transform files. ITK's space is LPS; ours is RAS, so x and y change sign at this door and nowhere else."""

from functools import reduce
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from warpwise.errors import InputError
from warpwise.grid import Grid, occupied
from warpwise.io import structure
from warpwise.io.checks import first_line
from warpwise.io.transforms import Spaces, hdf5
from warpwise.transforms.affine import Affine
from warpwise.transforms.base import Transform
from warpwise.transforms.composite import Composite
from warpwise.transforms.displacement import DisplacementField
from warpwise.transforms.gridded import gridded


class Itk:
    """Affine kinds, displacement fields and chains of them, 2-D or 3-D, as ITK, ANTs, elastix and 3D Slicer keep them."""

    suffixes: ClassVar = (".h5", ".hdf5", ".tfm", ".txt", ".mat", ".xfm")

    @staticmethod
    def read(path: Path, spaces: Spaces) -> Transform:
        if path.suffix.lower() in (".h5", ".hdf5"):
            return hdf5.read(path)
        structure.check(path)
        sitk.ProcessObject.SetGlobalWarningDisplay(False)
        try:
            found = sitk.ReadTransform(str(path))
        except (RuntimeError, MemoryError, OverflowError, ValueError) as error:
            reason = first_line(error) if "ITK ERROR" not in str(error) else "ITK cannot read it"
            raise InputError(f"{path}: not a readable transform ({reason}).") from None
        return from_itk(found)

    @staticmethod
    def write(path: Path, transform: Transform, spaces: Spaces) -> None:
        parts = transform.parts if isinstance(transform, Composite) else (transform,)
        if path.suffix.lower() not in (".h5", ".hdf5") and not all(isinstance(part, Affine) for part in parts):
            raise InputError(f"{path.name}: only .h5 holds displacement fields.", hint="Write .h5, or --to displacement.")
        if len(parts) == 1:
            # ANTs takes a lone affine only if it is not wrapped in a chain.
            sitk.WriteTransform(_to_itk(parts[0]), str(path))
            return
        chain = sitk.CompositeTransform(transform.dim)
        # ITK applies the transform that was added last first.
        for part in reversed(parts):
            chain.AddTransform(_to_itk(part))
        sitk.WriteTransform(chain, str(path))


def _to_itk(part: Transform) -> Any:
    flip = hdf5.flip(part.dim)
    if isinstance(part, Affine):
        matrix = flip @ part.matrix @ flip
        out = sitk.AffineTransform(part.dim)
        out.SetMatrix(matrix[:-1, :-1].ravel().tolist())
        out.SetTranslation(matrix[:-1, -1].tolist())
        return out
    part = gridded(part)
    if isinstance(part, DisplacementField):
        part = trimmed(part)
        order = tuple(reversed(range(1, part.dim + 1)))
        signs = np.diag(flip)[:-1]
        vectors = np.empty((*[part.grid.shape[d - 1] for d in order], part.dim), np.float64)
        for d in range(part.dim):
            vectors[..., d] = signs[d] * part.vectors[d].transpose()
        image = sitk.GetImageFromArray(vectors, isVector=True)
        del vectors  # ITK has copied them; together with its own copies they would set the peak of memory
        affine = flip @ part.grid.affine
        spacing = np.array(part.grid.spacing_mm)
        image.SetSpacing(spacing.tolist())
        image.SetOrigin(affine[:-1, -1].tolist())
        image.SetDirection((affine[:-1, :-1] / spacing).ravel().tolist())
        return sitk.DisplacementFieldTransform(image)
    raise InputError(f"A {type(part).__name__} cannot be written to an ITK file.", hint="Write its displacement field.")


def trimmed(field: DisplacementField) -> DisplacementField:
    """The same map on fewer nodes: a field is 0 outside its grid, so a rim of zeros need not be kept."""
    ends = occupied(np.asarray((field.vectors != 0).any(0)))
    # One node of the rim stays on each side: between it and the first that moves, the field fades to 0.
    box = tuple(slice(max(low - 1, 0), min(high + 2, n)) for (low, high), n in zip(ends, field.grid.shape, strict=True))
    start, shape = [b.start for b in box], [b.stop - b.start for b in box]
    return DisplacementField(field.vectors[(slice(None), *box)], field.grid.cropped(start, shape))


def from_itk(found: Any) -> Transform:
    """A SimpleITK transform as one of ours, LPS turned to RAS.

    Raises:
        InputError: it is of a kind that is not known here.
    """
    dim = int(found.GetDimension())
    name = str(found.GetName())
    if name == "CompositeTransform":
        chain = sitk.CompositeTransform(found)
        parts = [from_itk(chain.GetNthTransform(k)) for k in reversed(range(chain.GetNumberOfTransforms()))]
        if not parts:
            return Affine(np.eye(dim + 1))
        return parts[0] if len(parts) == 1 else reduce(lambda a, b: a.then(b), parts)
    if name == "DisplacementFieldTransform":
        field = sitk.DisplacementFieldTransform(found).GetDisplacementField()
        return hdf5.field_from_lps(
            sitk.GetArrayViewFromImage(field), field.GetOrigin(), field.GetSpacing(), field.GetDirection()
        )
    if not found.IsLinear():
        raise InputError(f"a {name} is not supported.", hint="Affine kinds and displacement fields are.")
    return hdf5.linear_from_itk(found)
