"""ITK transform files. ITK's space is LPS; ours is RAS, so x and y change sign at this door and nowhere else."""

from functools import reduce
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import SimpleITK as sitk

from warpwise.errors import InputError
from warpwise.io import structure
from warpwise.io.checks import first_line
from warpwise.io.transforms import Spaces, hdf5
from warpwise.transforms.affine import Affine
from warpwise.transforms.base import Composite, Transform
from warpwise.transforms.gridded import gridded


class Itk:
    """Affine kinds, displacement fields and chains of them, 2-D or 3-D, as ITK, ANTs, elastix and 3D Slicer keep them."""

    suffixes: ClassVar = (".h5", ".hdf5", ".tfm", ".txt", ".mat", ".xfm")

    @staticmethod
    def read(path: Path, spaces: Spaces) -> Transform:
        if path.suffix.lower() in (".h5", ".hdf5"):
            return hdf5.read(path)
        structure.check(path)
        sitk.ProcessObject.GlobalWarningDisplayOff()
        try:
            found = sitk.ReadTransform(str(path))
        except (RuntimeError, MemoryError, OverflowError, ValueError) as error:
            reason = first_line(error) if "ITK ERROR" not in str(error) else "ITK cannot read it"
            raise InputError(f"{path}: not a readable transform ({reason}).") from None
        return from_itk(found)

    @staticmethod
    def write(path: Path, transform: Transform, spaces: Spaces) -> None:
        parts = transform.parts if isinstance(transform, Composite) else (transform,)
        affines = [part for part in parts if isinstance(part, Affine)]
        if path.suffix.lower() in (".h5", ".hdf5") and len(affines) < len(parts):
            hdf5.write(path, [gridded(part) for part in parts])
            return
        if len(affines) < len(parts):
            raise InputError(f"{path.name}: only .h5 holds displacement fields.", hint="Write .h5, or --to displacement.")
        if len(affines) == 1:
            # ANTs takes a lone affine only if it is not wrapped in a chain.
            sitk.WriteTransform(_to_itk(affines[0]), str(path))
            return
        chain = sitk.CompositeTransform(transform.dim)
        # ITK applies the transform that was added last first.
        for part in reversed(affines):
            chain.AddTransform(_to_itk(part))
        sitk.WriteTransform(chain, str(path))


def _to_itk(part: Affine) -> Any:
    flip = hdf5.flip(part.dim)
    matrix = flip @ part.matrix @ flip
    out = sitk.AffineTransform(part.dim)
    out.SetMatrix(matrix[:-1, :-1].ravel().tolist())
    out.SetTranslation(matrix[:-1, -1].tolist())
    return out


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
