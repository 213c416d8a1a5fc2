"""Register a pair of images: everything about files, units and checks happens here, once."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warpwise.errors import InputError
from warpwise.grid import Grid
from warpwise.image import Image, normalised
from warpwise.io.adapt import ImageLike, TransformLike, as_image, as_transform
from warpwise.ops.cpu import launch
from warpwise.ops.cpu.parallel import get_threads
from warpwise.pair import Pair
from warpwise.registrars import REGISTRARS, affine, starts
from warpwise.registrars.base import OnStep, Solution, Step, ignore
from warpwise.registrars.certificate import Certificate, certify
from warpwise.registrars.contrast import ALIKE, agreement
from warpwise.registrars.presets import Preset
from warpwise.registrars.presets import preset as named_preset
from warpwise.registrars.result import Result
from warpwise.registrars.trust import suspicions
from warpwise.resampling import resample
from warpwise.similarity import SIMILARITIES
from warpwise.transforms.affine import Affine
from warpwise.transforms.base import Transform
from warpwise.transforms.composite import Composite
from warpwise.transforms.displacement import DisplacementField
from warpwise.transforms.velocity import VelocityField

LINEAR = ("rigid", "affine")


def register(  # noqa: PLR0913 - the front door: what users set stands here by name
    fixed: ImageLike,
    moving: ImageLike,
    *,
    preset: str | Preset = "balanced",
    transform: str = "greedy",
    similarity: str = "auto",
    masks: tuple[ImageLike | None, ImageLike | None] = (None, None),
    initial: TransformLike | None = None,
    channel_weights: Sequence[float] | None = None,
    on_step: OnStep = ignore,
) -> Result:
    """Align a moving image with a fixed one.

    Args:
        fixed, moving: paths, `Image`s, nibabel or SimpleITK images, arrays (1 mm voxels) or (array, affine); 2-D or
            3-D, of one or several channels.
        preset: fast, balanced or accurate, or settings of your own.
        transform: rigid, affine, greedy, svf or symmetric.
        similarity: lncc, ncc, mse, mi or mind; auto takes lncc where the images show tissue alike, else mind.
        masks: fixed and moving; only voxels > 0 count.
        initial: a transform (or its file) to begin with; the search for a start is then left out.
        channel_weights: importance of the channels, any positive scale.
        on_step: told of every iteration.

    Raises:
        InputError: the input cannot be used.
        RunError: the solver diverged.

    Example:
        >>> from warpwise.synthetic.phantoms import brain_pair
        >>> pair = brain_pair(shape=(32, 36, 32), seed=1)
        >>> register(pair.fixed, pair.moving, preset="fast").certificate.percent_folded
        0.0
    """
    clock = Clock()
    settings = named_preset(preset) if isinstance(preset, str) else preset
    if transform not in (*LINEAR, *REGISTRARS):
        raise InputError(f"Unknown transform {transform!r}.", hint=f"Known: {', '.join((*LINEAR, *REGISTRARS))}.")
    if similarity not in ("auto", *SIMILARITIES):
        raise InputError(f"Unknown similarity {similarity!r}.", hint=f"Known: auto, {', '.join(SIMILARITIES)}.")
    images = as_image(fixed, name="fixed"), as_image(moving, name="moving")
    mask_images = [None if m is None else as_image(m, name="mask", kind="mask") for m in masks]
    first = None if initial is None else as_transform(initial)
    pair, warped_first = prepare(images, mask_images, first, channel_weights)
    clock.lap("reading")
    start = starts.choose(pair) if initial is None else starts.given(pair)
    linear_name = "affine" if transform not in LINEAR else transform
    pair = pair.moved(start.to_moving)
    linear_similarity = similarity if similarity in ("ncc", "mse", "mi") else ("lncc" if agreement(pair) > ALIKE else "mi")
    linear_settings = settings.affine.replace(transform=linear_name)
    linear = affine.solve(pair, linear_settings, similarity=linear_similarity, on_step=on_step)
    clock.lap("affine")
    pair = pair.moved(linear.to_moving)
    solution: Solution | None = None
    alike = agreement(pair)
    if similarity == "auto":
        similarity = "lncc" if alike > ALIKE else "mind"
    if transform not in LINEAR:
        solver = REGISTRARS[transform](settings.deformable if alike > ALIKE else settings.cautious, similarity)
        solution = solver.solve(pair, on_step=on_step)
        clock.lap("deformable")
    result = deliver(images, pair, solution, first if warped_first else None, clock)
    history = (*linear.history, *(solution.history if solution else ()))
    return Result(
        **result,
        history=history,
        stops={"affine": linear.stops, **({transform: solution.stops} if solution else {})},
        similarity=energies(history),
        settings={
            "transform": transform,
            "similarity": similarity,
            "affine_similarity": linear_similarity,
            "start": start.name,
            "contrast_agreement": round(alike, 3),
            "threads": get_threads(),
            **settings.model_dump(mode="json"),
        },
        timings_s=clock.laps,
        warnings=suspicions(pair, start, result["displacement_mm"]),
        predicted_memory_mb=predicted_memory_mb(images[0].grid, images[1].grid, len(images[0].data)),
    )


class Clock:
    """Seconds of each stage since the last lap."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, name: str) -> None:
        """End a stage."""
        now = time.perf_counter()
        self.laps[name] = round(self.laps.get(name, 0.0) + now - self._since, 4)
        self._since = now


def prepare(
    images: tuple[Image, Image],
    masks: Sequence[Image | None],
    initial: Transform | None,
    channel_weights: Sequence[float] | None,
) -> tuple[Pair, bool]:
    """Checked, normalised arrays of both images; True if the initial transform was applied to the moving image.

    An affine initial transform becomes the pair's starting matrix. Any other is applied by resampling the moving
    image for the solver's eyes; what is delivered is still resampled once, through the whole chain.
    """
    fixed, moving = images
    if fixed.grid.dim != moving.grid.dim:
        raise InputError(f"{fixed.name} is {fixed.grid.dim}-D and {moving.name} is {moving.grid.dim}-D.")
    if len(fixed.data) != len(moving.data):
        raise InputError(f"{fixed.name} has {len(fixed.data)} channels and {moving.name} has {len(moving.data)}.")
    for image in images:
        if sum(n >= 4 for n in image.grid.shape) < 2:
            raise InputError(f"{image.name}: {image.grid.shape} voxels are too few to register.")
        for channel in image.data:
            if channel.min() == channel.max():
                raise InputError(f"{image.name}: every voxel is {channel.flat[0]}; there is nothing to register.")
    if initial is not None and initial.dim != fixed.grid.dim:
        raise InputError(f"The initial transform is {initial.dim}-D, the images are {fixed.grid.dim}-D.")
    deforming = initial is not None and not isinstance(initial, Affine)
    if initial is not None and deforming:
        moving = resample(moving, fixed.grid, initial)
    world = np.eye(4)
    if isinstance(initial, Affine):
        dim = initial.dim
        world[:dim, :dim], world[:dim, 3] = initial.matrix[:dim, :dim], initial.matrix[:dim, dim]
    grid, moving_grid = fixed.grid.embedded(), moving.grid.embedded()
    weights = None if channel_weights is None else np.asarray(channel_weights, np.float32)
    if weights is not None:
        if weights.shape != (len(fixed.data),) or not (weights > 0).all():
            raise InputError(f"{len(fixed.data)} positive channel weights are needed; got {channel_weights}.")
        weights = (weights / weights.sum()).astype(np.float32)
    inside = mask_on(masks[0], fixed), mask_on(masks[1], moving)
    pair = Pair(
        normalised_channels(fixed, inside[0]),
        normalised_channels(moving, inside[1]),
        grid,
        moving_grid,
        moving_grid.inverse_affine @ world @ grid.affine,
        *inside,
        weights,
    )
    return pair, deforming


def normalised_channels(image: Image, mask: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Channels (C, X, Y, Z) with intensities 0 … 1.2, by the range inside the mask."""
    shape = (len(image.data), *image.grid.embedded().shape)
    inside = None if mask is None else mask.reshape(image.grid.shape) > 0
    return np.stack([normalised(channel, inside) for channel in image.data]).reshape(shape)


def mask_on(mask: Image | None, image: Image) -> NDArray[np.float32] | None:
    """A mask as 0 or 1 on an image's grid, through the world where it lies on another."""
    if mask is None:
        return None
    if mask.grid.dim != image.grid.dim:
        raise InputError(f"{mask.name} is {mask.grid.dim}-D and {image.name} is {image.grid.dim}-D.")
    if not mask.grid.same_as(image.grid):
        mask = resample(mask, image.grid, Affine(np.eye(image.grid.dim + 1)), interpolation="nearest")
    inside = (mask.data[0] > 0).astype(np.float32).reshape(image.grid.embedded().shape)
    if not inside.any():
        raise InputError(f"{mask.name}: the mask is empty on the grid of {image.name}.")
    return inside


def deliver(
    images: tuple[Image, Image], pair: Pair, solution: Solution | None, initial: Transform | None, clock: Clock
) -> dict[str, Any]:
    """Transforms in mm, certified, and the warped image."""
    fixed, moving = images
    dim = fixed.grid.dim
    keep = [*range(dim), 3]
    matrix = pair.moving_grid.affine @ pair.to_moving @ pair.grid.inverse_affine
    linear = Affine(matrix[np.ix_(keep, keep)])
    after: tuple[Transform, ...] = (linear,) if initial is None else (linear, initial)
    if solution is None:
        transform: Transform = linear if initial is None else Composite(after)
        inverse = on_grid = transform.inverse()
        certificate, velocity = Certificate(), None
    else:
        x, y, z = pair.grid.shape
        sound = certify(solution.field, solution.factors, (x, y, z))
        certificate = sound.certificate
        node_grid = pair.grid.coarser(solution.factors)
        forward = in_mm(sound.field, node_grid, pair.grid, fixed.grid)
        backward = in_mm(sound.inverse, pair.grid.cropped(sound.start, sound.inverse.shape[1:]), pair.grid, fixed.grid)
        transform = Composite((forward, *after))
        inverse = transform.inverse()
        undo = tuple(part.inverse() for part in reversed(after))
        on_grid = Composite((*undo, backward))
        velocity = None
        if solution.velocity is not None:
            v = in_mm(solution.velocity, node_grid, pair.grid, fixed.grid)
            velocity = VelocityField(v.vectors, v.grid)
    clock.lap("inverse and certificate")
    displacement = transform.displacement(fixed.grid)
    warped = resample(moving, fixed.grid, transform, displacement=displacement)
    clock.lap("resampling")
    return {
        "transform": transform,
        "inverse": inverse,
        "inverse_on_grid": on_grid,
        "warped": warped,
        "displacement_mm": displacement,
        "affine_only": linear.matrix,
        "certificate": certificate,
        "velocity": velocity,
    }


def in_mm(field: NDArray[np.float32], nodes: Grid, voxels: Grid, original: Grid) -> DisplacementField:
    """A field in voxels of a 3-D grid as a displacement in world mm, in as many dimensions as the original."""
    mm = launch.map_vectors(field, voxels.affine[:3, :3])
    if original.dim == 3:
        return DisplacementField(mm, nodes)
    plane = nodes.affine[np.ix_([0, 1, 3], [0, 2, 3])]
    return DisplacementField(np.ascontiguousarray(mm[:2, :, 0]), Grid((nodes.shape[0], nodes.shape[2]), plane))


def energies(history: Sequence[Step]) -> dict[str, float]:
    """First and last energy of the finest level of each stage."""
    out: dict[str, float] = {}
    for stage in dict.fromkeys(step.stage for step in history):
        finest = min(step.level for step in history if step.stage == stage)
        values = [step.energy for step in history if step.stage == stage and step.level == finest]
        out[f"{stage}_before"], out[f"{stage}_after"] = values[0], values[-1]
    return out


def predicted_memory_mb(fixed: Grid, moving: Grid, channels: int) -> float:
    """Peak memory of a registration, from measured use: a base for Python and its libraries, and bytes a voxel."""
    voxels_fixed, voxels_moving = float(np.prod(fixed.shape)), float(np.prod(moving.shape))
    return round(230 + (voxels_fixed * (100 + 14 * channels) + voxels_moving * 12 * channels) / 1e6, 1)
