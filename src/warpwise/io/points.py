"""Points: landmarks of 3D Slicer and of tables, streamlines. Inside they are RAS+ mm, whatever the file says."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from warpwise.errors import InputError
from warpwise.grid import Grid
from warpwise.image import shortened
from warpwise.io.checks import lps_signs

Array = NDArray[np.float64]

SUFFIXES = (".csv", ".tsv", ".fcsv", ".mrk.json", ".json", ".tck", ".trk")
SPACES = ("ras", "lps", "voxel")
# Slicer refuses markups without this identifier, which is an address only in form.
_SCHEMA = "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
_COLUMNS = {
    ("r", "a", "s"): "ras", ("l", "p", "s"): "lps", ("x", "y", "z"): None,
    ("r", "a"): "ras", ("l", "p"): "lps", ("x", "y"): None,
}  # fmt: skip
_FCSV = ("0", "ras"), ("1", "lps")  # older Slicers wrote numbers
_FCSV_HEAD = "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID"


@dataclass(frozen=True, eq=False)
class Points:
    """Points (n, dim), RAS+ mm, and what their file held besides.

    Attributes:
        names: one a point, empty where the file has none.
        space: what the file's numbers mean: ras, lps or voxel.
        rows: a table's header and rows, so that its other columns come back; columns are where x, y (and z) stand.
        lengths: points a streamline, for files of lines.
        name: the file.
    """

    mm: Array
    names: tuple[str, ...] = ()
    space: str = "ras"
    rows: tuple[tuple[str, ...], ...] = ()
    columns: tuple[int, ...] = ()
    lengths: tuple[int, ...] = ()
    name: str = "points"

    def __repr__(self) -> str:
        lines = f" on {len(self.lengths)} lines" if self.lengths else ""
        text = f"Points({shortened(self.name)!r}, {len(self.mm)} in {self.mm.shape[1]}-D{lines}"
        if len(self.mm):
            low, high = (", ".join(f"{v:.4g}" for v in corner) for corner in (self.mm.min(0), self.mm.max(0)))
            text += f",\n       from ({low}) to ({high}) mm"
        return f"{text})"

    def moved(self, mm: Array, *, space: str | None = None) -> "Points":
        """The same points elsewhere, and perhaps in numbers of another space, which a table's columns then say."""
        rows = self.rows
        if space is not None and space != self.space and rows and rows[0]:
            head = [*rows[0]]
            for column, letter in zip(self.columns, space, strict=False):
                head[column] = letter
            rows = (tuple(head), *rows[1:])
        return replace(self, mm=mm, space=space or self.space, rows=rows)


def is_points(path: Path) -> bool:
    """Whether a name is one of a file of points."""
    return path.name.lower().endswith(SUFFIXES)


def read_points(path: str | Path, *, space: str | None = None, grid: Grid | None = None) -> Points:
    """Points of a file.

    Args:
        path: a table (.csv, .tsv), Slicer's .fcsv or .mrk.json, or streamlines (.tck, .trk).
        space: ras, lps or voxel: what a table's columns x, y, z mean. Columns named r, a, s or l, p, s say it themselves.
        grid: of the image, for voxels.

    Raises:
        InputError: missing, of no known format, without points, or with a row that is not finite numbers (which is named).
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file.")
    name = path.name.lower()
    if space is not None and space not in SPACES:
        raise InputError(f"Unknown space {space!r} of points.", hint=f"Known: {', '.join(SPACES)}.")
    try:
        if name.endswith((".csv", ".tsv")):
            found = _table(path, space, grid)
        elif name.endswith(".fcsv"):
            found = _fcsv(path)
        elif name.endswith(".json"):
            found = _markups(path)
        elif name.endswith((".tck", ".trk")):
            found = _streamlines(path)
        else:
            raise InputError(f"{path}: not a file of points.", hint=f"Known: {', '.join(SUFFIXES)}.")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file.") from None
    if len(found.mm) == 0:
        raise InputError(f"{path}: no points.")
    bad = np.flatnonzero(~np.isfinite(found.mm).all(1))
    if bad.size:
        raise InputError(f"{path}: point {int(bad[0]) + 1} is not finite.")
    return replace(found, name=str(path))


def write_points(path: str | Path, points: Points, *, grid: Grid | None = None) -> None:
    """Write points in the format of the suffix and in their own space; a table keeps its other columns.

    Raises:
        InputError: the format cannot hold them.
    """
    path = Path(path)
    name = path.name.lower()
    if name.endswith((".tck", ".trk")):
        _write_streamlines(path, points)
        return
    if name.endswith(".fcsv"):
        lps = lps_signs(points.mm.shape[1]) * points.mm
        lines = ["# Markups fiducial file version = 4.11", "# CoordinateSystem = LPS", _FCSV_HEAD]
        for n, at in enumerate(_three(lps)):
            words = ",".join(f"{v:.6f}" for v in at)
            lines.append(f"vtkMRMLMarkupsFiducialNode_{n},{words},0,0,0,1,1,1,0,{_quoted(label_of(points, n))},,")
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    elif name.endswith(".json"):
        lps = lps_signs(points.mm.shape[1]) * points.mm
        control = [
            {"id": str(n + 1), "label": label_of(points, n), "position": [round(float(v), 6) for v in at]}
            for n, at in enumerate(_three(lps))
        ]
        markup = {"type": "Fiducial", "coordinateSystem": "LPS", "coordinateUnits": "mm", "controlPoints": control}
        text = json.dumps({"@schema": f"{_SCHEMA}markups-schema-v1.0.3.json#", "markups": [markup]}, indent=1)
        path.write_text(text + "\n", encoding="utf-8")
    elif name.endswith((".csv", ".tsv")):
        _write_table(path, points, grid)
    else:
        raise InputError(f"{path}: not a file of points.", hint=f"Known: {', '.join(SUFFIXES)}.")


def label_of(points: Points, n: int) -> str:
    """A point's name, or its number."""
    return points.names[n] if points.names else str(n + 1)


def matched(fixed: Points, moving: Points) -> tuple[Array, Array, tuple[str, ...]]:
    """Corresponding points (n, dim) of two files and their names: by name where both name the same points, else in order.

    Raises:
        InputError: they differ in number or dimension.
    """
    if fixed.mm.shape[1] != moving.mm.shape[1]:
        raise InputError(f"{fixed.name} is {fixed.mm.shape[1]}-D and {moving.name} is {moving.mm.shape[1]}-D.")
    if len(fixed.mm) != len(moving.mm):
        raise InputError(
            f"{fixed.name} has {len(fixed.mm)} landmarks and {moving.name} {len(moving.mm)}: "
            f"row {min(len(fixed.mm), len(moving.mm)) + 1} has no partner."
        )
    order = np.arange(len(fixed.mm))
    if fixed.names and len({*fixed.names}) == len(fixed.names) and {*fixed.names} == {*moving.names}:
        order = np.array([moving.names.index(name) for name in fixed.names])
    return fixed.mm, moving.mm[order], tuple(label_of(fixed, n) for n in range(len(fixed.mm)))


def inside(points: Array, grid: Grid, names: Sequence[str], file: str) -> None:
    """Refuse landmarks that lie outside their image.

    Raises:
        InputError: one does; its row is named.
    """
    back = grid.inverse_affine
    index = points @ back[:-1, :-1].T + back[:-1, -1]
    out = np.flatnonzero(((index < -0.5) | (index > np.array(grid.shape) - 0.5)).any(1))
    if out.size:
        n = int(out[0])
        raise InputError(
            f"{file}: landmark {n + 1} ({names[n]}) at {np.round(points[n], 2).tolist()} mm RAS lies outside its image "
            f"(voxel {np.round(index[n], 1).tolist()} of {grid.shape}; {out.size} of {len(points)} do).",
            hint="Check the coordinate system: --points-space ras, lps or voxel.",
        )


def to_ras(values: Array, space: str, grid: Grid | None, name: str) -> Array:
    """Numbers of a file as RAS+ mm."""
    if space == "voxel":
        if grid is None:
            raise InputError(f"{name}: voxel coordinates need their image.", hint="Pass --like IMAGE.")
        if grid.dim != values.shape[1]:
            raise InputError(f"{name}: {values.shape[1]} coordinates a point for a {grid.dim}-D image.")
        return values @ grid.affine[:-1, :-1].T + grid.affine[:-1, -1]
    return values * lps_signs(values.shape[1]) if space == "lps" else values


def from_ras(mm: Array, space: str, grid: Grid | None, name: str) -> Array:
    """RAS+ mm as numbers of a file."""
    if space == "voxel":
        if grid is None:
            raise InputError(f"{name}: voxel coordinates need their image.", hint="Pass --like IMAGE.")
        return (mm - grid.affine[:-1, -1]) @ grid.inverse_affine[:-1, :-1].T
    return mm * lps_signs(mm.shape[1]) if space == "lps" else mm


def _numbers(path: Path, row: int, words: Sequence[str]) -> list[float]:
    try:
        return [float(word) for word in words]
    except ValueError:
        raise InputError(f"{path}: row {row}: {', '.join(words)!r} are not numbers.") from None


def _table(path: Path, space: str | None, grid: Grid | None) -> Points:
    with path.open(encoding="utf-8-sig", newline="") as file:
        sample = file.read(4096)
        file.seek(0)
        mark = "\t" if path.suffix.lower() == ".tsv" or ("\t" in sample and "," not in sample) else ","
        mark = ";" if ";" in sample and "," not in sample else mark
        rows = [tuple(word.strip() for word in row) for row in csv.reader(file, delimiter=mark) if any(row)]
    if not rows:
        raise InputError(f"{path}: no points.")
    head = [word.lower() for word in rows[0]]
    columns, said = _coordinate_columns(head)
    header = bool(columns)
    if not columns:
        width = len(rows[0])
        try:
            [float(word) for word in rows[0][: min(width, 3)]]
        except ValueError:
            raise InputError(f"{path}: no columns x, y, z (or r, a, s; l, p, s) among {', '.join(rows[0])}.") from None
        columns = tuple(range(min(width, 3)))
    if len(columns) < 2:
        raise InputError(f"{path}: a point has two or three coordinates; the table has {len(columns)} column.")
    space = space or said
    if space is None:
        raise InputError(
            f"{path}: nothing says which way x, y and z point.",
            hint="Pass --points-space ras, lps (as ANTs and ITK write them) or voxel.",
        )
    body = rows[1:] if header else rows
    values: list[list[float]] = []
    for n, row in enumerate(body):
        if len(row) <= max(columns):
            raise InputError(f"{path}: row {n + 1 + header} has {len(row)} columns; {max(columns) + 1} are needed.")
        values.append(_numbers(path, n + 1 + header, [row[c] for c in columns]))
    label = head.index("label") if header and "label" in head else len(head)
    names = tuple(row[label] if label < len(row) else str(n + 1) for n, row in enumerate(body)) if label < len(head) else ()
    found = np.array(values, np.float64).reshape(-1, len(columns))
    if not np.isfinite(found).all():
        bad = int(np.flatnonzero(~np.isfinite(found).all(1))[0])
        raise InputError(f"{path}: row {bad + 1 + header}: {found[bad].tolist()} is not finite.")
    kept = tuple(rows) if header else ((), *rows)
    return Points(to_ras(found, space, grid, str(path)), names, space, kept, columns)


def _coordinate_columns(head: Sequence[str]) -> tuple[tuple[int, ...], str | None]:
    for names, space in _COLUMNS.items():
        if all(name in head for name in names):
            return tuple(head.index(name) for name in names), space
    return (), None


def _write_table(path: Path, points: Points, grid: Grid | None) -> None:
    values = from_ras(points.mm, points.space, grid, path.name)
    mark = "\t" if path.suffix.lower() == ".tsv" else ","
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=mark, lineterminator="\n")
        if points.rows:
            if points.rows[0]:
                writer.writerow(points.rows[0])
            for row, at in zip(points.rows[1:], values, strict=True):
                new = [*row]
                for column, value in zip(points.columns, at, strict=True):
                    new[column] = f"{round(value, 6) + 0.0:.6f}"
                writer.writerow(new)
            return
        letters = {"ras": "ras", "lps": "lps"}.get(points.space, "xyz")[: values.shape[1]]
        writer.writerow([*letters, "label"])
        writer.writerows([*[f"{v:.6f}" for v in at], label_of(points, n)] for n, at in enumerate(values))


def _fcsv(path: Path) -> Points:
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    space = "ras"
    for line in lines:
        if line.startswith("#") and "CoordinateSystem" in line:
            word = line.split("=")[-1].strip().lower()
            space = dict(_FCSV).get(word, word)
    if space not in ("ras", "lps"):
        raise InputError(f"{path}: coordinate system {space!r}; RAS and LPS are known.")
    body = [(n + 1, line) for n, line in enumerate(lines) if line.strip() and not line.startswith("#")]
    rows = [(n, next(csv.reader([line]))) for n, line in body]
    short = [n for n, row in rows if len(row) < 4]
    if short:
        raise InputError(f"{path}: row {short[0]} has fewer than four columns.")
    values = [_numbers(path, n, row[1:4]) for n, row in rows]
    names = tuple(row[11] if len(row) > 11 else row[0] for _, row in rows)
    return Points(to_ras(np.array(values, np.float64).reshape(-1, 3), space, None, str(path)), names, space)


def _markups(path: Path) -> Points:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8-sig"))
        markup = content["markups"][0]
        control = markup["controlPoints"]
        space = str(markup.get("coordinateSystem", "LPS")).lower()
        values = [[float(v) for v in point["position"]] for point in control]
        names = tuple(str(point.get("label", n + 1)) for n, point in enumerate(control))
    except (json.JSONDecodeError, KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError):
        raise InputError(f"{path}: not a Slicer markups file of control points.") from None
    if space not in ("ras", "lps"):
        raise InputError(f"{path}: coordinate system {space!r}; RAS and LPS are known.")
    if any(len(at) != 3 for at in values):
        raise InputError(f"{path}: a control point has not three coordinates.")
    return Points(to_ras(np.array(values, np.float64).reshape(-1, 3), space, None, str(path)), names, space)


def _streamlines(path: Path) -> Points:
    try:
        loaded: Any = nib.streamlines.load(path)  # type: ignore[reportPrivateImportUsage]
        lines = [np.asarray(line, np.float64) for line in loaded.streamlines]
    except Exception as error:  # noqa: BLE001 - nibabel's readers of streamlines raise whatever breaks first
        raise InputError(f"{path}: not readable streamlines ({str(error)[:80]}).") from None
    mm = np.concatenate(lines) if lines else np.zeros((0, 3))
    return Points(mm, (), "ras", lengths=tuple(len(line) for line in lines))


def _write_streamlines(path: Path, points: Points) -> None:
    lengths = points.lengths or (len(points.mm),)
    ends = np.cumsum(lengths)[:-1].tolist()
    lines = [part.astype(np.float32) for part in np.split(points.mm, ends)]
    tractogram = nib.streamlines.Tractogram(lines, affine_to_rasmm=np.eye(4))  # type: ignore[reportPrivateImportUsage]
    nib.streamlines.save(tractogram, str(path))  # type: ignore[reportPrivateImportUsage]


def _three(points: Array) -> Array:
    return points if points.shape[1] == 3 else np.column_stack([points, np.zeros(len(points))])


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\n') else text
