"""ITK's .h5 transforms, read without ITK, which crashes on sizes that lie and keeps every field several times over.

A file has a group for each transform, numbered as ITK composes them (the last is applied first), with its type, its
parameters and its fixed parameters; number 0 of a chain is only its name.
"""

import struct
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from warpwise.errors import InputError
from warpwise.grid import Grid
from warpwise.io.checks import lps_signs, room_for
from warpwise.transforms.affine import Affine
from warpwise.transforms.base import Transform
from warpwise.transforms.displacement import DisplacementField

_MOST = 10_000  # parameters of anything but a field
_PARAMETERS = ("TransformParameters", "TranformParameters")  # ITK misspelt it for years
_FIXED = ("TransformFixedParameters", "TranformFixedParameters")
_UNREADABLE = (
    struct.error,
    OSError,
    RuntimeError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    OverflowError,
    MemoryError,
)


def read(path: Path) -> Transform:
    """The transform in a file.

    Raises:
        InputError: it is not such a file, its sizes do not fit, or its kind is not known here.
    """
    try:
        with h5py.File(path, "r") as file:
            group: Any = file["TransformGroup"]
            names = sorted((name for name in group), key=int)
            parts = [part for name in names if (part := _part(path, group[name])) is not None]
    except _UNREADABLE as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a readable transform ({str(error)[:80].splitlines()[0]}).") from None
    if not parts:
        raise InputError(f"{path}: holds no transform.")
    if any(part.dim != parts[0].dim for part in parts):
        raise InputError(f"{path}: its transforms differ in dimension.")
    return reduce(lambda first, later: first.then(later), reversed(parts))


def write(path: Path, parts: Sequence[Transform]) -> None:
    """Write affines and displacement fields, in the order in which a point meets them, as an ITK chain.

    In single precision, as fMRIPrep's files are: half the size, and ITK's writer keeps several copies in double.

    Raises:
        InputError: a part is neither.
    """
    dim = parts[0].dim
    kinds = h5py.string_dtype("ascii")
    with h5py.File(path, "w", libver=("earliest", "v110")) as file:
        group = file.create_group("TransformGroup")
        group.create_dataset("0/TransformType", data=[f"CompositeTransform_float_{dim}_{dim}"], dtype=kinds)
        # ITK applies the transform that was added last first.
        for n, part in enumerate(reversed(parts), 1):
            name, frame, values = _stored(part)
            node = group.create_group(str(n))
            node.create_dataset("TransformType", data=[f"{name}_float_{dim}_{dim}"], dtype=kinds)
            node.create_dataset("TransformFixedParameters", data=np.asarray(frame, np.float64))
            node.create_dataset("TransformParameters", data=values)


def _stored(part: Transform) -> tuple[str, NDArray[np.float64], NDArray[Any]]:
    turn = flip(part.dim)
    if isinstance(part, Affine):
        matrix = turn @ part.matrix @ turn
        return "AffineTransform", np.zeros(part.dim), np.concatenate([matrix[:-1, :-1].ravel(), matrix[:-1, -1]])
    if isinstance(part, DisplacementField):
        affine = turn @ part.grid.affine
        spacing = np.array(part.grid.spacing_mm)
        frame = [part.grid.shape, affine[:-1, -1], spacing, (affine[:-1, :-1] / spacing).ravel()]
        values = np.empty((*reversed(part.grid.shape), part.dim), np.float32)
        for d in range(part.dim):
            np.multiply(part.vectors[d].transpose(), np.float32(turn[d, d]), out=values[..., d])
        return "DisplacementFieldTransform", np.concatenate(frame), values.reshape(-1)
    raise InputError(f"A {type(part).__name__} cannot be written to an ITK file.", hint="Write its displacement field.")


def _part(path: Path, node: Any) -> Transform | None:
    kind = _word(path, node["TransformType"])
    name, *_ = kind.split("_")
    if name == "CompositeTransform":
        return None
    dim = int(kind.rsplit("_", 1)[-1]) if kind.rsplit("_", 1)[-1].isdigit() else 3
    if dim not in (2, 3):
        raise InputError(f"{path}: a {kind} of dimension {dim}.")
    values, fixed = (next(node[key] for key in keys if key in node) for keys in (_PARAMETERS, _FIXED))
    for found in (values, fixed):
        if found.ndim != 1 or found.dtype.kind != "f":
            raise InputError(f"{path}: parameters of shape {found.shape} and type {found.dtype}.")
    if fixed.size > _MOST:
        raise InputError(f"{path}: {fixed.size} fixed parameters.")
    frame = np.asarray(fixed, np.float64)
    if not np.isfinite(frame).all():
        raise InputError(f"{path}: holds fixed parameters that are not finite.")
    if name == "DisplacementFieldTransform":
        return _field(path, values, frame, dim)
    if values.size > _MOST:
        raise InputError(f"{path}: a {name} with {values.size} parameters is not supported.")
    return _linear(path, kind, dim, np.asarray(values, np.float64), frame)


def _word(path: Path, found: Any) -> str:
    """A data set of one string. Those of any length lie in a heap, through which HDF5 may search for ever if a size in
    it is wrong; so the heap is read here.

    Source: HDF5 file format specification 3.0, sections III.E (global heap) and IV.B (variable-length types).
    """
    if found.size != 1 or found.dtype.itemsize > _MOST:
        raise InputError(f"{path}: a transform's type is not one word.")
    offset = found.id.get_offset()
    if h5py.check_string_dtype(found.dtype) is None or h5py.check_string_dtype(found.dtype).length is not None:
        return np.asarray(found).ravel()[0].decode("ascii", "replace")
    if offset is None:
        raise InputError(f"{path}: a transform's type is stored in an unusual way.")
    with path.open("rb") as file:
        file.seek(offset)
        length, address, wanted = struct.unpack("<IQI", file.read(16))
        file.seek(address)
        mark, size = struct.unpack("<4s4xQ", file.read(16))
        if mark != b"GCOL" or length > _MOST or size > 1 << 20:
            raise InputError(f"{path}: a transform's type cannot be read.")
        heap = file.read(size - 16)
    at = 0
    while at + 16 <= len(heap):
        index, extent = struct.unpack_from("<H6xQ", heap, at)
        if index == wanted:
            return heap[at + 16 : at + 16 + length].split(b"\0")[0].decode("ascii", "replace")
        at += 16 + -(-extent // 8) * 8
    raise InputError(f"{path}: a transform's type is missing.")


def _field(path: Path, values: Any, frame: NDArray[np.float64], dim: int) -> Transform:
    if frame.size != dim * 3 + dim * dim:
        raise InputError(f"{path}: a field in {dim}-D with {frame.size} fixed parameters.")
    shape = tuple(int(n) for n in frame[:dim])
    if any(n < 1 or n != f for n, f in zip(shape, frame[:dim], strict=True)):
        raise InputError(f"{path}: a field of size {frame[:dim].tolist()}.")
    if int(np.prod(shape, dtype=np.float64)) * dim != values.size:
        raise InputError(f"{path}: a field of size {shape} with {values.size} numbers.")
    room_for(str(path), (*shape, dim), 8)
    stored = np.asarray(values).reshape(*reversed(shape), dim)
    origin, spacing, direction = np.split(frame[dim:], [dim, 2 * dim])
    return field_from_lps(stored, origin.tolist(), spacing.tolist(), direction.tolist())


def _linear(path: Path, kind: str, dim: int, values: NDArray[np.float64], frame: NDArray[np.float64]) -> Transform:
    """Any linear kind; ITK itself is asked what its parameters mean."""
    makers: dict[str, Any] = {
        "AffineTransform": lambda: sitk.AffineTransform(dim),
        "MatrixOffsetTransformBase": lambda: sitk.AffineTransform(dim),
        "TranslationTransform": lambda: sitk.TranslationTransform(dim),
        "IdentityTransform": lambda: sitk.Transform(dim, sitk.sitkIdentity),
        "ScaleTransform": lambda: sitk.ScaleTransform(dim),
        "Euler2DTransform": sitk.Euler2DTransform,
        "CenteredEuler2DTransform": sitk.Euler2DTransform,
        "Rigid2DTransform": sitk.Euler2DTransform,
        "Similarity2DTransform": sitk.Similarity2DTransform,
        "Euler3DTransform": sitk.Euler3DTransform,
        "VersorTransform": sitk.VersorTransform,
        "VersorRigid3DTransform": sitk.VersorRigid3DTransform,
        "Similarity3DTransform": sitk.Similarity3DTransform,
        "ScaleVersor3DTransform": sitk.ScaleVersor3DTransform,
        "ScaleSkewVersor3DTransform": sitk.ScaleSkewVersor3DTransform,
        "ComposeScaleSkewVersor3DTransform": sitk.ComposeScaleSkewVersor3DTransform,
    }
    name = kind.split("_")[0]
    if name not in makers:
        raise InputError(f"{path}: a {name} is not supported.", hint="Affine kinds and displacement fields are.")
    made = makers[name]()
    if made.GetDimension() != dim or len(made.GetParameters()) != values.size:
        raise InputError(f"{path}: a {kind} with {values.size} parameters.")
    if not np.isfinite(values).all():
        raise InputError(f"{path}: holds parameters that are not finite.")
    if frame.size == len(made.GetFixedParameters()):
        made.SetFixedParameters(frame.tolist())
    made.SetParameters(values.tolist())
    return linear_from_itk(made)


def linear_from_itk(found: Any) -> Affine:
    """A linear SimpleITK transform, known from where it sends the origin and the unit points."""
    dim = int(found.GetDimension())
    origin = np.array(found.TransformPoint([0.0] * dim))
    matrix = np.eye(dim + 1)
    matrix[:-1, -1] = origin
    for d, unit in enumerate(np.eye(dim)):
        matrix[:-1, d] = np.array(found.TransformPoint(unit.tolist())) - origin
    return affine_from_lps(matrix)


def flip(dim: int) -> NDArray[np.float64]:
    """RAS ↔ LPS, homogeneous."""
    return np.diag([*lps_signs(dim), 1.0])


def affine_from_lps(matrix: NDArray[np.float64]) -> Affine:
    """A matrix on LPS mm as one of ours.

    Raises:
        InputError: it is singular or not finite.
    """
    turn = flip(len(matrix) - 1)
    return Affine(turn @ matrix @ turn)


def field_from_lps(
    stored: NDArray[Any], origin: Sequence[float], spacing: Sequence[float], direction: Sequence[float]
) -> DisplacementField:
    """A field (Z, Y, X, dim) of LPS mm with ITK's geometry as one of ours.

    Raises:
        InputError: it is not finite, or its axes are singular.
    """
    dim = stored.shape[-1]
    affine = np.eye(dim + 1)
    affine[:-1, :-1] = np.array(direction).reshape(dim, dim) * np.array(spacing)
    affine[:-1, -1] = origin
    shape = tuple(reversed(stored.shape[:-1]))
    vectors = np.empty((dim, *shape), np.float32)
    signs = np.diag(flip(dim))
    for d in range(dim):
        vectors[d] = signs[d] * stored[..., d].transpose()
    return DisplacementField(vectors, Grid(shape, flip(dim) @ affine))
