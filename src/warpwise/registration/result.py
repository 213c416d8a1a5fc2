"""What a registration returns, and how it is kept."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from warpwise import __version__
from warpwise.events import Event
from warpwise.image import Image
from warpwise.io.images import Geometry, write_image
from warpwise.io.memory import peak_memory_mb
from warpwise.io.nifti import write_displacement
from warpwise.io.run_folder import appearing, claim_folder, locked
from warpwise.io.transforms import write_transform
from warpwise.methods import Method
from warpwise.registration.certificate import Certificate
from warpwise.registration.record import NAME, Choices, Record, StepRow, versions
from warpwise.registration.scores import Scores
from warpwise.transforms.base import Transform
from warpwise.transforms.velocity import VelocityField

MAPS = ("uncertainty", "feature_uncertainty")
"""Attributes of a result that are maps on the fixed grid, of networks that know theirs; written under these names."""

FILES = ("warped.nii.gz", "transform.h5", "inverse.h5", "displacement.nii.gz", NAME)
"""What is always written."""

REPORT, FIGURES = "report.html", "figures"
"""What may be drawn of a result, beside it."""

PLAIN = {name: name for name in (*FILES, *(f"{name}.nii.gz" for name in MAPS))}
"""Names of files outside BIDS."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Result:
    """A registration, complete.

    Attributes:
        transform: fixed mm → moving mm (RAS+): the field, then the affine.
        inverse: the map back, exact (Newton on the forward field).
        inverse_on_grid: the same as a field on voxels, for files and other programs.
        warped: the moving image on the fixed grid, resampled once from its native voxels.
        displacement_mm: (dim, *fixed grid), of the whole transform.
        affine_only: the linear part, 4×4 (or 3×3), fixed mm → moving mm.
        certificate: folds, and how well forward and inverse agree.
        method: how it was made; choices: what was decided on the way.
        history: every step of every stage; stops: why each scale ended, by stage.
        similarity: energy before and after (on the finest images of each stage; lower is better).
        timings_s: seconds a stage; warnings: reasons not to trust the result.
        velocity: of the svf and symmetric solvers.
        passed: what was known on the way, after every scale of a solver or stage of a network but the last: its name, the
            whole transform, and the energy of a solver.
        uncertainty: standard deviation of where a voxel goes, mm, on the fixed grid; of networks that know it.
        feature_uncertainty: standard deviation of the fixed image's learned features, of networks whose features have one.
        scores: overlap of the labels and distance of the landmarks that were given.
        sources: paths of the fixed and the moving image, empty for images in memory.
        geometry: how the fixed image's file says where it lies, for a plane that was read from one.

    Example:
        >>> import warpwise as ww
        >>> pair = ww.brain_pair((32, 36, 32), seed=1)
        >>> result = ww.register(pair.fixed, pair.moving, method="fast")
        >>> sorted(path.name for path in result.save("out").iterdir())  # doctest: +SKIP
        ['displacement.nii.gz', 'inverse.h5', 'result.json', 'transform.h5', 'warped.nii.gz']
    """

    transform: Transform
    inverse: Transform
    inverse_on_grid: Transform
    warped: Image
    displacement_mm: Any
    affine_only: Any
    certificate: Certificate
    method: Method
    choices: Choices
    history: tuple[Event, ...] = ()
    stops: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    similarity: Mapping[str, float] = field(default_factory=dict[str, float])
    timings_s: Mapping[str, float] = field(default_factory=dict[str, float])
    warnings: tuple[str, ...] = ()
    predicted_memory_mb: float = 0.0
    velocity: VelocityField | None = None
    uncertainty: Image | None = None
    feature_uncertainty: Image | None = None
    passed: tuple[tuple[str, Transform, float | None], ...] = ()
    scores: Scores | None = None
    sources: tuple[str, str] = ("", "")
    geometry: Geometry | None = None

    def __repr__(self) -> str:
        size = "×".join(map(str, self.warped.grid.shape))
        longest = float(np.sqrt(np.square(self.displacement_mm).sum(0).max()))
        seconds = sum(self.timings_s.values())
        linear = "nothing" if self.method.linear is None else self.method.linear.transform
        how = self.choices.similarity or (linear if self.method.registrar is None else self.method.registrar.kind)
        return (
            f"Result({how}, {size} voxels, {seconds:.1f} s: points move {longest:.1f} mm at most,\n"
            f"  {self.certificate.percent_folded:g} % folded, forward and inverse agree to "
            f"{self.certificate.forward_inverse_max:.1g} voxel,\n  {len(self.warnings)} warnings; .save(folder) writes it)"
        )

    def record(self, files: Mapping[str, str] | None = None, timings_s: Mapping[str, float] | None = None) -> Record:
        """What result.json says.

        Args:
            files: names of what was written, by kind.
            timings_s: seconds of each part, where reading and writing are known as well.
        """
        return Record(
            warpwise=__version__,
            fixed=self.sources[0],
            moving=self.sources[1],
            method=self.method,
            choices=self.choices,
            similarity={k: round(v, 6) for k, v in self.similarity.items()},
            stop_reasons={k: list(v) for k, v in self.stops.items()},
            energies=[_row(step) for step in self.history],
            affine=[[round(float(v), 9) for v in row] for row in self.affine_only],
            certificate=self.certificate.to_dict(),
            scores=self.scores.to_dict() if self.scores else {},
            warnings=list(self.warnings),
            timings_s=dict(self.timings_s if timings_s is None else timings_s),
            memory_mb={"predicted": self.predicted_memory_mb, "peak": peak_memory_mb()},
            versions=versions(self.method),
            files=dict(files or {}),
        )

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write warped image, transforms for ITK, ANTs and Slicer, and result.json; returns the folder.

        Raises:
            InputError: a file exists and `overwrite` is off, or the folder cannot be written to.
        """
        place = Path(folder)
        claim_folder(place, [*PLAIN], overwrite=overwrite)
        with locked(place), appearing(place, last=NAME, without=[*PLAIN, REPORT, FIGURES]) as scratch:
            self.record(self.write(scratch, PLAIN)).write(scratch / NAME)
        return place

    def write(self, folder: Path, names: Mapping[str, str]) -> dict[str, str]:
        """The image and transform files, side by side, under these names; returns what a record says of them."""
        maps = {f"{name}.nii.gz": map_ for name in MAPS if (map_ := getattr(self, name)) is not None}
        with ThreadPoolExecutor(1) as pool:
            # ITK holds several float64 copies of a field: one file after the other keeps the peak low.
            chain = pool.submit(write_transform, folder / names["transform.h5"], self.transform)
            back = pool.submit(write_transform, folder / names["inverse.h5"], self.inverse_on_grid)
            write_displacement(folder / names["displacement.nii.gz"], self.displacement_mm, self.warped.grid)
            write_image(folder / names["warped.nii.gz"], self.warped, like=self.geometry)
            for name, map_ in maps.items():
                write_image(folder / names[name], map_, like=self.geometry)
            chain.result()
            back.result()
        return {name.split(".")[0]: names[name] for name in (*FILES, *maps)}


def _row(step: Event) -> StepRow:
    return StepRow(stage=step.stage, scale=step.scale or 0, iteration=step.step, energy=round(step.energy, 7))
