"""What a report is made of, from a result in memory or from a folder that holds one."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warpwise.errors import InputError
from warpwise.evaluation.metrics import jacobian_map
from warpwise.grid import Grid
from warpwise.image import Image
from warpwise.io.checks import first_line
from warpwise.io.images import Reading, read_image
from warpwise.io.transforms import read_transform
from warpwise.registration.record import Record, find
from warpwise.registration.result import MAPS, Result
from warpwise.report.planes import View, views
from warpwise.resampling import resample
from warpwise.transforms.affine import Affine
from warpwise.transforms.base import Transform

Volume = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Known:
    """What was known after a part of the way, on one slice of the fixed grid.

    Attributes:
        name: of the scale or stage; energy: of a solver, where it ended.
        view: the slice, its `at` counted on the slice's own grid; fixed, warped: (X, Y[, Z]) of one voxel across it.
        nonlinear_mm: (dim, X, Y[, Z]), the displacement without the linear part.
    """

    name: str
    energy: float | None
    view: View
    fixed: Volume
    warped: Volume
    nonlinear_mm: Volume


@dataclass(frozen=True, eq=False)
class Material:
    """Images on the fixed grid, the deformation, and everything that result.json says.

    Attributes:
        grid: of the fixed image.
        fixed, warped: (X, Y[, Z]).
        before, affine: the moving image through the headers alone (or brought over the fixed one where these do not
            overlap), and after the linear stage; None where the moving image is not at hand.
        shifted: whether `before` had to be brought over.
        displacement_mm: (dim, X, Y[, Z]); log_jacobian: of the whole map.
        record: result.json.
        uncertainty, feature_uncertainty: (X, Y[, Z]), of networks that know theirs.
        notes: what could not be shown.
        evolution: what was known on the way, and in the end; of a registration that has just been made.
    """

    grid: Grid
    fixed: Volume
    warped: Volume
    before: Volume | None
    affine: Volume | None
    shifted: bool
    displacement_mm: Volume
    log_jacobian: Volume
    record: Record
    notes: tuple[str, ...] = ()
    uncertainty: Volume | None = None
    feature_uncertainty: Volume | None = None
    evolution: tuple[Known, ...] = ()

    @classmethod
    def of_result(cls, result: Result, images: tuple[Image, Image], record: Record) -> "Material":
        """From a registration that has just been made."""
        made = cls.built(images[0], result.warped, images[1], result.transform, record, result.displacement_mm)
        known = {name: getattr(result, name) for name in MAPS}
        maps = {name: _shown(map_) for name, map_ in known.items() if map_ is not None}
        return replace(made, **maps, evolution=evolution(result, images[1], made.fixed))

    @classmethod
    def of_folder(cls, folder: Path) -> "Material":
        """From what `warpwise register` wrote.

        Raises:
            InputError: the folder holds no result, or its fixed image cannot be found.
        """
        record = Record.read(find(folder))
        files = record.files
        names = [Path(path) for path in (record.fixed, record.moving)]
        fixed_path, moving_path = (located(path, folder) for path in names)
        if fixed_path is None:
            what = f"{names[0]} is not there any more" if record.fixed else "was in memory, and no file is known of it"
            raise InputError(f"{folder}: the fixed image {what}.", hint="Put it back, or register from files.")
        warped = read_image(folder / files["warped"])
        transform = read_transform(folder / files["transform"])
        fixed, notes, moving = _read(fixed_path), (), None
        try:
            moving = None if moving_path is None else _read(moving_path)
        except InputError as error:
            notes = (first_line(error),)
        if moving is None and not notes:
            notes = (f"The moving image {names[1].name} is not there any more: nothing is shown before registration.",)
        if fixed.grid.shape != warped.grid.shape:
            raise InputError(f"{fixed_path}: has {fixed.grid.shape} voxels, the result {warped.grid.shape}.")
        made = cls.built(fixed, warped, moving, transform, record, transform.displacement(fixed.grid), notes)
        maps = {name: folder / files[name] for name in MAPS if name in files}
        return replace(made, **{name: _shown(read_image(path)) for name, path in maps.items()})

    @classmethod
    def built(  # noqa: PLR0917 - the one place where all of it comes together
        cls,
        fixed: Image,
        warped: Image,
        moving: Image | None,
        transform: Transform,
        record: Record,
        displacement_mm: Any,
        notes: tuple[str, ...] = (),
    ) -> "Material":
        """Everything on the fixed grid."""
        before = affine = None
        shifted = False
        if moving is not None:
            start, shifted = overlapping(fixed, moving)
            before = _shown(resample(moving, fixed.grid, start))
            affine = _shown(resample(moving, fixed.grid, Affine(np.array(record.affine))))
        return cls(
            fixed.grid,
            _shown(fixed),
            _shown(warped),
            before,
            affine,
            shifted,
            np.asarray(displacement_mm, np.float32),
            jacobian_map(transform, fixed.grid, log=True),
            record,
            notes,
        )


def evolution(result: Result, moving: Image, fixed: Volume) -> tuple[Known, ...]:
    """What was known after every scale or stage, on the first plane of a report; nothing where there was one only."""
    if not result.passed:
        return ()
    grid = result.warped.grid
    view = views(grid, fixed)[0]
    slab, here, picture = grid, view, fixed
    if grid.dim == 3:
        across = view.axes[2]
        start = [view.at if axis == across else 0 for axis in range(3)]
        slab = grid.cropped(start, [1 if axis == across else n for axis, n in enumerate(grid.shape)])
        here, picture = replace(view, at=0), np.take(fixed, [view.at], axis=across)
    linear = Affine(np.array(result.affine_only)).displacement(slab)
    energies = [step.energy for step in result.history]
    stage = result.history[-1].stage if result.history else ""
    deformed = result.passed[-1][2] is not None and stage != ""
    ways = [*result.passed, ("in the end", result.transform, energies[-1] if deformed else None)]
    return tuple(
        Known(
            name, energy, here, picture, _shown(resample(moving, slab, way)),
            np.asarray(way.displacement(slab) - linear, np.float32),
        )
        for name, way, energy in ways
    )  # fmt: skip


def located(path: Path, folder: Path) -> Path | None:
    """An image where result.json says, or beside or above the results; None for one that was in memory."""
    if path == Path():
        return None
    return next((p for p in (path, folder / path.name, folder.parent / path.name) if p.exists()), None)


def overlapping(fixed: Image, moving: Image) -> tuple[Transform, bool]:
    """The headers' own alignment, or one of centres where by the headers the images hardly meet."""
    dim = fixed.grid.dim
    centres = [(g.affine @ np.append((np.array(g.shape) - 1) / 2, 1))[:dim] for g in (fixed.grid, moving.grid)]
    extent = 0.5 * float(np.linalg.norm(np.array(fixed.grid.spacing_mm) * fixed.grid.shape))
    shift = np.eye(dim + 1)
    if float(np.linalg.norm(centres[1] - centres[0])) < 0.5 * extent:
        return Affine(shift), False
    shift[:dim, dim] = centres[1] - centres[0]
    return Affine(shift), True


def _read(path: Path) -> Image:
    return read_image(path, reading=Reading(volume=0, grey=True, nan_to_zero=True))


def _shown(image: Image) -> Volume:
    return image.data[0].astype(np.float32)
