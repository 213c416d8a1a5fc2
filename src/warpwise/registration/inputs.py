"""What is asked of two scans before any work: that they can be registered with each other, and what looks odd."""

from typing import Any

import numpy as np

from warpwise.errors import InputError
from warpwise.image import Image
from warpwise.io.points import inside, matched
from warpwise.io.scan import Scans
from warpwise.methods import ImageSettings
from warpwise.transforms.base import Transform

FLAT = 0.85  # of neighbours within the object are equal: so alike are labels, not intensities


def check(scans: Scans, settings: ImageSettings, initial: Transform | None) -> None:
    """Refuse scans that cannot be registered with each other, and guides that do not fit them.

    Raises:
        InputError: they differ in dimension or channels, are too small or constant, or a guide does not fit.
    """
    fixed, moving = (scan.image for scan in scans)
    if fixed.grid.dim != moving.grid.dim:
        raise InputError(f"{fixed.name} is {fixed.grid.dim}-D and {moving.name} is {moving.grid.dim}-D.")
    if len(fixed.data) != len(moving.data):
        raise InputError(f"{fixed.name} has {len(fixed.data)} channels and {moving.name} has {len(moving.data)}.")
    for image in (fixed, moving):
        if sum(n >= 4 for n in image.grid.shape) < 2:
            raise InputError(f"{image.name}: {image.grid.shape} voxels are too few to register.")
        for channel in image.data:
            if channel.min() == channel.max():
                raise InputError(f"{image.name}: every voxel is {channel.flat[0]}; there is nothing to register.")
    if initial is not None and initial.dim != fixed.grid.dim:
        raise InputError(f"The initial transform is {initial.dim}-D, the images are {fixed.grid.dim}-D.")
    weights = settings.channel_weights
    if weights is not None and len(weights) != len(fixed.data):
        raise InputError(f"{len(fixed.data)} positive channel weights are needed; got {list(weights)}.")
    if any(scan.stiffness is not None for scan in scans):
        raise InputError("A stiffness map was given, and no registrar of this version reads one.", hint="Leave it out.")
    _check_guides(scans)


def _check_guides(scans: Scans) -> None:
    for what, first, second in (
        ("Labels", scans[0].labels, scans[1].labels),
        ("Landmarks", scans[0].landmarks, scans[1].landmarks),
    ):
        if (first is None) != (second is None):
            raise InputError(f"{what} of both images are needed, or of neither.", hint="The other image's file is missing.")
    if scans[0].landmarks is None or scans[1].landmarks is None:
        return
    *both, names = matched(scans[0].landmarks, scans[1].landmarks)
    for mm, scan in zip(both, scans, strict=True):
        points: Any = scan.landmarks
        if mm.shape[1] != scan.image.grid.dim:
            raise InputError(f"{points.name}: {mm.shape[1]}-D landmarks for a {scan.image.grid.dim}-D image.")
        inside(mm, scan.image.grid, names, points.name)


def oddities(scans: Scans) -> list[str]:
    """What looks like a mistake but may be meant."""
    out = [f"{scan.image.name}: looks like a label map, not an image." for scan in scans if looks_like_labels(scan.image)]
    for mask in (*(scan.mask for scan in scans), *(scan.exclude for scan in scans)):
        if mask is not None and not np.isin(np.unique(mask.data), (0, 1)).all():
            out.append(f"{mask.name}: the mask is not binary; voxels above 0 are taken.")
    return out


def looks_like_labels(image: Image) -> bool:
    """Whether whole numbers above 0 nearly always have equal neighbours: so flat are labels, not intensities."""
    data = image.data[0]
    if data.dtype.kind not in "ui" or data.size > 2**31:
        return False
    middle = data[tuple(slice(n // 4, n - n // 4) for n in data.shape)]
    a, b = middle[:-1].ravel(), middle[1:].ravel()
    object_ = (a != 0) & (b != 0)
    return bool(object_.sum() > 100 and np.unique(middle).size > 1 and float((a == b)[object_].mean()) > FLAT)


def named(image: Image | None) -> str:
    """An image's name."""
    return "image" if image is None else image.name
