"""A scan: one subject's images on one grid, and what belongs to them."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from warpwise.image import Image, Kind
from warpwise.io.adapt import ImageLike, PointsLike, as_image, as_points
from warpwise.io.images import Reading, read_image
from warpwise.io.points import Points, read_points


@dataclass(frozen=True, eq=False, kw_only=True)
class Scan:
    """An image with all that is known of it, as paths or in memory; `read` loads what is a path, once.

    Attributes:
        image: path, `Image`, nibabel or SimpleITK image, array (1 mm voxels) or (array, affine); 2-D or 3-D, of one or
            several channels.
        mask: only voxels > 0 count.
        exclude: voxels > 0 do not count: lesions, implants.
        labels: a label map; with one of both scans, structures should overlap.
        landmarks: points (n, dim), mm RAS+, or their file; with those of both scans, they should meet.
        stiffness: where smoothness is strict (1) and where not (0).
        subject: whose they are; name: what messages call the image.
        reading: how files of the image are to be read; points_space: what columns x, y, z of a table mean.

    Example:
        >>> import numpy as np
        >>> Scan(image=np.eye(8), name="eye").read().image.grid.shape
        (8, 8)
    """

    image: ImageLike
    mask: ImageLike | None = None
    exclude: ImageLike | None = None
    labels: ImageLike | None = None
    landmarks: PointsLike | None = None
    stiffness: ImageLike | None = None
    subject: str = ""
    name: str = ""
    reading: Reading = field(default_factory=Reading)
    points_space: str | None = None

    @classmethod
    def of(cls, value: "Scan | ImageLike", name: str = "") -> "Scan":
        """A scan itself, or one that is nothing but an image."""
        return value if isinstance(value, Scan) else cls(image=value, name=name)

    @property
    def path(self) -> Path | None:
        """Where the image lies, if it is a file."""
        return Path(self.image) if isinstance(self.image, str | Path) else None

    @property
    def title(self) -> str:
        """A short name: the given one, else the file's without suffixes."""
        if self.name:
            return self.name
        return "image" if self.path is None else self.path.name.split(".")[0]

    def read(self) -> "ReadScan":
        """Everything in memory.

        Raises:
            InputError: a member cannot be used.
        """
        if self.path is not None:
            image = read_image(self.path, reading=self.reading)
        else:
            image = as_image(self.image, name=self.name or "image")

        def map_of(value: ImageLike | None, kind: Kind) -> Image | None:
            return None if value is None else as_image(value, name=kind, kind=kind)

        points: Points | None = None
        if isinstance(self.landmarks, str | Path):
            points = read_points(self.landmarks, space=self.points_space, grid=image.grid)
        elif self.landmarks is not None:
            points = as_points(self.landmarks, self.name or "image")
        return ReadScan(
            image,
            map_of(self.mask, "mask"),
            map_of(self.exclude, "mask"),
            map_of(self.labels, "labels"),
            points,
            map_of(self.stiffness, "intensity"),
            self,
        )


@dataclass(frozen=True, eq=False)
class ReadScan:
    """A scan in memory; see `Scan`."""

    image: Image
    mask: Image | None = None
    exclude: Image | None = None
    labels: Image | None = None
    landmarks: Points | None = None
    stiffness: Image | None = None
    source: Scan | None = None

    def replaced(self, **changes: Any) -> "ReadScan":
        """A copy with some members changed."""
        return replace(self, **changes)


Scans = tuple[ReadScan, ReadScan]
"""Fixed and moving."""


def read_both(fixed: "Scan | ImageLike", moving: "Scan | ImageLike") -> Scans:
    """Both scans in memory, files side by side.

    Raises:
        InputError: a member of one cannot be used.
    """
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(Scan.of(value, name).read) for value, name in ((fixed, "fixed"), (moving, "moving"))]
        return jobs[0].result(), jobs[1].result()
