"""Training images, decoded once: normalised, cut to the object, at the working spacing, kept on disk."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from warpwise.errors import InputError
from warpwise.grid import Grid
from warpwise.image import DARK, PERCENTILES, upright
from warpwise.io.checks import whole
from warpwise.io.images import read_geometry, read_image
from warpwise.io.run_folder import appearing
from warpwise.io.scan import Scan, read_both
from warpwise.io.stamp import stamp
from warpwise.methods import Method
from warpwise.registrars.crop import around
from warpwise.registrars.linear.affine import Freedom, LinearSettings
from warpwise.registrars.linear.stage import align
from warpwise.registration.prepare import prepare
from warpwise.resampling import brought
from warpwise.shapes import Array, Matrix
from warpwise.spacing import at_spacing, embedded_spacing, labels_at_spacing, stretched
from warpwise.volume import Volume

Alignment = Literal["none", "rigid", "affine"]


@dataclass(frozen=True)
class Store:
    """A folder in which decoded volumes and linear transforms are kept."""

    folder: Path

    def volume(self, scan: Scan, spacing_mm: Sequence[float]) -> Volume:
        """The image of a scan with its labels, decoded now or before.

        Raises:
            InputError: it cannot be read, or its label map does not fit it.
        """
        files = [path for path in (scan.image, scan.labels) if path is not None]
        name = f"{scan.title}-{stamp(*files, spacing=list(spacing_mm))}"
        kept = self._kept(name, scan.title)
        if kept is not None:
            return kept
        made = decoded(scan, spacing_mm)
        facts = {"affine": made.grid.affine.tolist(), "dim": made.dim, "labels": made.labels is not None}
        with appearing(self.folder, last=f"{name}.json") as scratch:
            np.save(scratch / f"{name}.npy", made.data)
            if made.labels is not None:
                np.save(scratch / f"{name}-labels.npy", made.labels)
            (scratch / f"{name}.json").write_text(json.dumps(facts), encoding="utf-8")
        # The same from now on: arrays that lie on the disk, and in memory as long as there is room.
        return self._kept(name, scan.title) or made

    def _kept(self, name: str, title: str) -> Volume | None:
        """A volume decoded before, mapped, not read; None where it is not there or was cut short by a full disk."""
        try:
            facts = json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))
            data = mapped(self.folder / f"{name}.npy")
            labels = mapped(self.folder / f"{name}-labels.npy") if facts["labels"] else None
            grid = Grid(data.shape[1:], np.array(facts["affine"], np.float64))
            return Volume(data, grid, labels=labels, dim=int(facts["dim"]), name=title)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, EOFError):
            (self.folder / f"{name}.json").unlink(missing_ok=True)  # made anew
            return None

    def array(self, title: str, files: Sequence[Path], options: Mapping[str, object], make: Callable[[], Array]) -> Array:
        """What is made of files under options, made now or before; kept in half precision."""
        place = self.folder / f"{title}-{stamp(*files, **options)}.npy"
        try:
            return mapped(place).astype(np.float32)
        except FileNotFoundError:
            pass
        except (OSError, ValueError, EOFError):
            place.unlink(missing_ok=True)
        made = make().astype(np.float16)
        with appearing(self.folder) as scratch:
            np.save(scratch / place.name, made)
        return made.astype(np.float32)

    def linear(self, fixed: Scan, moving: Scan, kind: Alignment) -> Matrix:
        """Fixed mm → moving mm (4×4), by the solver's linear stage, now or before; a plane moves within x and y."""
        if kind == "none" or fixed.image == moving.image:
            return np.eye(4)
        place = self.folder / f"{moving.title}-{stamp(fixed.image, moving.image, linear=kind)}.json"
        if place.exists():
            try:
                return np.array(json.loads(place.read_text(encoding="utf-8")), np.float64).reshape(4, 4)
            except ValueError:
                place.unlink(missing_ok=True)
        matrix = aligned(fixed, moving, kind)
        with appearing(self.folder) as scratch:
            (scratch / place.name).write_text(json.dumps(matrix.tolist()), encoding="utf-8")
        return matrix


def mapped(file: Path) -> NDArray[Any]:
    """An array on disk, as a plain one, for which kernels are compiled; where somebody writes to it, in memory alone."""
    return np.load(file, mmap_mode="c").view(np.ndarray)


def decoded(scan: Scan, spacing_mm: Sequence[float]) -> Volume:
    """Read, turn upright, normalise, cut to the object, bring to the working spacing: as a network will be used."""
    image = upright(read_image(scan.image))
    data, grid = stretched(image, PERCENTILES)
    start, size = around(np.asarray((data > DARK).any(0)))
    at = tuple(slice(s, s + n) for s, n in zip(start, size, strict=True))
    part = grid.cropped(start, size)
    if len(spacing_mm) != image.grid.dim:
        raise InputError(f"{scan.image}: is {image.grid.dim}-D, and spacing is given for {len(spacing_mm)} axes.")
    spacing = embedded_spacing(spacing_mm)
    labels = None
    if scan.labels is not None:
        map_ = brought(upright(read_image(scan.labels, kind="labels")), image)
        values = whole(map_.data[0], name=map_.name).reshape(grid.shape)[at]
        labels = labels_at_spacing(values, part, spacing)
    out, working = at_spacing(np.ascontiguousarray(data[(slice(None), *at)]), part, spacing)
    return Volume(out, working, labels=labels, dim=image.grid.dim, name=scan.title)


def aligned(fixed: Scan, moving: Scan, kind: Freedom) -> Matrix:
    """Fixed mm → moving mm (4×4) by the linear stage of `balanced`, as `register` runs it; guides are not heeded."""
    method = Method.named("balanced")
    ready = prepare(read_both(fixed.image, moving.image), method.images)
    return align(ready.pair, LinearSettings(transform=kind), method.terms()).world


def working_spacing(scans: Sequence[Scan], wanted: float | Sequence[float] | None) -> tuple[float, ...]:
    """Spacing of the network's voxels along each upright axis: what was asked for, else the images' median.

    Raises:
        InputError: images differ in dimension, or as many numbers as axes are not given.
    """
    grids = [read_geometry(scan.image).grid for scan in scans]
    dims = {grid.dim for grid in grids}
    if len(dims) != 1:
        raise InputError(f"The dataset mixes images of {' and '.join(f'{d}-D' for d in sorted(dims))}.")
    dim = dims.pop()
    if wanted is None:
        upright_spacing = [[grid.spacing_mm[axis] for axis in grid.towards_ras()[0]] for grid in grids]
        return tuple(round(float(v), 4) for v in np.median(upright_spacing, axis=0))
    numbers = (float(wanted),) * dim if isinstance(wanted, int | float) else tuple(float(v) for v in wanted)
    if len(numbers) != dim or min(numbers) <= 0:
        raise InputError(f"spacing_mm {numbers}: {dim} positive numbers are needed.")
    return numbers


def label_values(volumes: Sequence[Volume], wanted: Sequence[int]) -> tuple[int, ...]:
    """Labels that train: those wanted, else all that occur in at least half of the label maps."""
    if wanted:
        return tuple(wanted)
    maps = [set(np.unique(v.labels).tolist()) - {0} for v in volumes if v.labels is not None]
    counts: Mapping[int, int] = {k: sum(k in m for m in maps) for m in maps for k in m}
    return tuple(sorted(int(k) for k, n in counts.items() if 2 * n >= len(maps)))
