"""What a training step looks at: pairs drawn, moved and coloured at random, as tensors.

Everything random comes from (seed, step, slot), so a run that is resumed, or split over processes, sees the same pairs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from warpwise.data.settings import AugmentationSettings
from warpwise.ops import kernels
from warpwise.shapes import Array, Matrix, Triple, VectorField
from warpwise.similarity.codes import Codes
from warpwise.synthetic.contrasts import curved, noisy, remapped, shaded
from warpwise.synthetic.deformations import random_velocity
from warpwise.transforms.velocity import exponential
from warpwise.volume import Volume

MARGIN = 4  # voxels at the face of a window


@dataclass(frozen=True, eq=False)
class Batch:
    """Pairs on one grid, (B, …, *space); see `Alignment`. Labels are shares of one voxel, one channel a label.

    Attributes:
        seen_fixed, seen_moving: what the network is shown, where that differs from what the objective compares.
    """

    fixed: Tensor
    moving: Tensor
    weight: Tensor
    fixed_labels: Tensor | None = None
    moving_labels: Tensor | None = None
    truth: Tensor | None = None
    seen_fixed: Tensor | None = None
    seen_moving: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """On a device."""
        return Batch(*[None if t is None else t.to(device) for t in (getattr(self, f.name) for f in fields(self))])  # type: ignore[arg-type]


class Sampler(Protocol):
    """Where batches come from."""

    @property
    def dim(self) -> int:
        """Axes of the images."""
        ...

    @property
    def channels(self) -> int:
        """Channels of the images."""
        ...

    def batch(self, step: int, slots: Sequence[int]) -> Batch:
        """Pairs number `slots` of a step."""
        ...


@dataclass(frozen=True, eq=False)
class Sample:
    """One pair as 3-D arrays, labels as maps; a plane is (X, 1, Y)."""

    fixed: Array
    moving: Array
    weight: Array
    fixed_labels: NDArray[np.int16] | None = None
    moving_labels: NDArray[np.int16] | None = None
    truth: Array | None = None
    seen: tuple[Array, Array] | None = None


def stacked(samples: Sequence[Sample], codes: Codes | None, dim: int) -> Batch:
    """Samples as one batch, with labels as channels, or without any."""

    def tensor(arrays: list[Array]) -> Tensor:
        whole = np.stack(arrays)
        return torch.from_numpy(np.ascontiguousarray(whole if dim == 3 else whole[:, :, :, 0]))

    def channels(maps: list[NDArray[np.int16] | None]) -> Tensor | None:
        known = [m for m in maps if m is not None]
        if len(known) < len(maps) or codes is None:
            return None
        return tensor([codes.of(m) for m in known])

    truths = [s.truth for s in samples if s.truth is not None]
    seen = [s.seen for s in samples if s.seen is not None]
    return Batch(
        tensor([s.fixed for s in samples]),
        tensor([s.moving for s in samples]),
        tensor([s.weight[None] for s in samples]),
        channels([s.fixed_labels for s in samples]),
        channels([s.moving_labels for s in samples]),
        tensor([t if dim == 3 else t[[0, 2]] for t in truths]) if len(truths) == len(samples) else None,
        *[tensor([pair[n] for pair in seen]) if seen else None for n in range(2)],
    )


def some(values: Sequence[int], count: int, rng: np.random.Generator) -> Codes | None:
    """A channel for each of these labels, or for so many of them, drawn without putting back; none of none."""
    if not values:
        return None
    if len(values) <= count:
        return Codes.apart(values)
    return Codes.apart(sorted(int(v) for v in rng.choice(np.array(values), count, replace=False)))


def carried(
    field: VectorField, shape: Triple, to_fixed: Matrix, to_moving: Matrix, across: Matrix, undone: VectorField | None
) -> VectorField:
    """A pair's displacement as one of two images that were moved apart: (3, *shape), voxels of their canvas.

    Args:
        field: (3, X, Y, Z), voxels of the fixed volume: p corresponds to across·(p + field(p)).
        shape: of the canvas.
        to_fixed, to_moving: canvas index → fixed and moving index (4×4).
        across: fixed index → moving index.
        undone: the inverse of a further displacement of the moving image on the canvas.
    """
    on_canvas = kernels.warp_affine(field, to_fixed[:3], out=np.empty((3, *shape), np.float32))
    back = np.linalg.inv(to_moving) @ across
    straight = back @ to_fixed - np.eye(4)
    out = kernels.map_vectors(on_canvas, back[:3, :3])
    out += kernels.map_vectors(np.indices(shape, np.float32), straight[:3, :3])
    out += straight[:3, 3].astype(np.float32)[:, None, None, None]
    if undone is None:
        return out
    return out + kernels.warp(undone, out, np.eye(4), out=np.empty_like(out))


def shift(by: NDArray[np.float64]) -> Matrix:
    """4×4."""
    out = np.eye(4)
    out[:3, 3] = by
    return out


def random_linear(
    rng: np.random.Generator, *, degrees: float, scaling: float, spacing: NDArray[np.float64], planar: bool
) -> Matrix:
    """4×4 in voxels: rotations of up to so many degrees about each axis, scalings of 1 ± scaling along each."""
    turn = np.eye(3)
    for axis in (1,) if planar else (0, 1, 2):
        angle = np.deg2rad(degrees) * rng.uniform(-1, 1)
        a, b = [k for k in range(3) if k != axis]
        step = np.eye(3)
        step[a, a] = step[b, b] = np.cos(angle)
        step[a, b], step[b, a] = -np.sin(angle), np.sin(angle)
        turn = turn @ step
    scale = 1 + scaling * rng.uniform(-1, 1, 3)
    if planar:
        scale[1] = 1
    out = np.eye(4)
    # Rotations mix axes in mm, not in voxels.
    out[:3, :3] = np.diag(1 / spacing) @ turn @ np.diag(scale) @ np.diag(spacing)
    return out


def sampled(volume: Volume, matrix: Matrix, shape: Triple, field: Array | None) -> tuple[Array, NDArray[np.int16] | None]:
    """Image and labels of a volume at matrix·(x + u(x)) for every x of a canvas."""
    out = np.empty((len(volume.data), *shape), np.float32)
    labels = None
    if field is None:
        kernels.warp_affine(volume.data, matrix[:3], out=out)
    else:
        kernels.warp(volume.data, field, matrix, out=out)
    if volume.labels is not None:
        u = np.zeros((3, *shape), np.float32) if field is None else field
        labels = kernels.resample(volume.labels[None], u, matrix, method="nearest")[0]
    return out, labels


NumberedPair = tuple[int, int, Matrix]
"""Numbers of the fixed and the moving volume, fixed mm → moving mm."""


@dataclass(frozen=True, eq=False)
class PairSampler:
    """Pairs of decoded volumes.

    Attributes:
        volumes: by number; pairs: of those. Both may be made as they are asked for.
        shape: of the canvas that every pair is put on.
        windows: whether that is a part of the images, anywhere in the fixed one; near its faces, beyond which the image
            goes on, similarities do not look.
        labels: values that take part, `labels_at_once` of them in a step, unless `codes` stand for all.
        teacher: (fixed, moving, their linear map) → a displacement to learn from, on the fixed volume, in its voxels.
    """

    volumes: Sequence[Volume]
    pairs: Sequence[NumberedPair]
    shape: Triple
    labels: Sequence[int]
    labels_at_once: int
    augmentation: AugmentationSettings
    seed: int
    codes: Codes | None = None
    teacher: Callable[[int, int, Matrix], VectorField] | None = None
    windows: bool = False

    @property
    def dim(self) -> int:
        """Axes of the images."""
        return self.volumes[0].dim

    @property
    def channels(self) -> int:
        """Channels of the images."""
        return len(self.volumes[0].data)

    def batch(self, step: int, slots: Sequence[int]) -> Batch:
        """Pairs number `slots` of a step."""
        rng = np.random.default_rng([self.seed, step])
        codes = some(self.labels, self.labels_at_once, rng) if self.codes is None else self.codes
        samples = [self.sample(np.random.default_rng([self.seed, step, slot + 1])) for slot in slots]
        return stacked(samples, codes, self.dim)

    def sample(self, rng: np.random.Generator) -> Sample:
        """One pair."""
        n, m, world = self.pairs[int(rng.integers(len(self.pairs)))]
        fixed, moving = self.volumes[n], self.volumes[m]
        settings, shape = self.augmentation, self.shape
        spacing = np.array(fixed.grid.spacing_mm)
        random = partial(random_linear, rng, spacing=spacing, planar=self.dim == 2)
        middle = (np.array(fixed.grid.shape) - 1) / 2
        free = np.array([float(k > 1) for k in shape])
        together = random(degrees=settings.rotation_degrees, scaling=settings.scaling)
        if settings.flip and rng.random() < 0.5:
            together = together @ np.diag([-1.0, 1.0, 1.0, 1.0])
        at = settings.shift_voxels * rng.uniform(-1, 1, 3) * free
        spare = np.zeros(3, np.int64)
        if self.windows:
            spare = np.maximum(0, np.array(fixed.grid.shape) - np.array(shape))
            middle = middle + spare * rng.uniform(-0.5, 0.5, 3)
        to_fixed = shift(middle) @ together @ shift(at - (np.array(shape) - 1) / 2)
        part = settings.apart
        apart = random(degrees=part * settings.rotation_degrees, scaling=part * settings.scaling)
        centre = (np.array(moving.grid.shape) - 1) / 2
        move = part * settings.shift_voxels * rng.uniform(-1, 1, 3) * free
        across = moving.grid.inverse_affine @ world @ fixed.grid.affine
        to_moving = shift(centre + move) @ apart @ shift(-centre) @ across @ to_fixed
        field = undone = None
        if settings.elastic_voxels > 0:
            amplitude = settings.elastic_voxels * float(rng.uniform(0, 1))
            velocity = random_velocity(shape, rng, sigma=float(rng.uniform(4, 10)), amplitude=amplitude)
            field = exponential(velocity, squarings=6)
            undone = None if self.teacher is None else exponential(-velocity, squarings=6)
        still, still_labels = sampled(fixed, to_fixed, shape, None)
        moved, moved_labels = sampled(moving, to_moving, shape, field)
        weight = np.empty(shape, np.float32)
        kernels.overlap_weight(None, fixed.grid.shape, to_fixed, out=weight)
        kernels.overlap_weight(weight.copy(), moving.grid.shape, to_moving, out=weight)
        for axis in np.flatnonzero(spare):
            # The image goes on beyond these faces, and what lies there cannot be fetched.
            faces = np.moveaxis(weight, int(axis), 0)
            faces[:MARGIN], faces[-MARGIN:] = 0, 0
        truth = None
        if self.teacher is not None:
            truth = carried(self.teacher(n, m, world), shape, to_fixed, to_moving, across, undone)
        plain = settings.contrast if settings.contrast_of == "both" else 0.0
        images = self.coloured(still, rng, contrast=plain), self.coloured(moved, rng, contrast=settings.contrast)
        if settings.judge_clean:
            return Sample(still, moved, weight, still_labels, moved_labels, truth, seen=images)
        return Sample(*images, weight, still_labels, moved_labels, truth)

    def coloured(self, image: Array, rng: np.random.Generator, *, contrast: float) -> Array:
        """Other intensities of the same image (C, X, Y, Z), at times through a random curve."""
        settings = self.augmentation
        out: list[Array] = []
        for channel in image:
            one = channel
            if contrast > 0 and rng.random() < contrast:
                one = remapped(one, rng)
            if settings.gamma > 0:
                one = curved(one, rng, most=settings.gamma)
            one = shaded(one, rng, most=settings.bias)
            if settings.noise > 0:
                one = noisy(one, rng, most=settings.noise)
            out.append(np.clip(one, 0, 1.2))
        return np.stack(out).astype(np.float32)
