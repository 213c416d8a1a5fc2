"""Register a pair of images: the front door."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from warpwise.errors import InputError
from warpwise.io.adapt import ImageLike, PointsLike, TransformLike, as_image, as_points, as_transform
from warpwise.methods.presets import Preset
from warpwise.methods.presets import preset as named_preset
from warpwise.ops.runtime import get_threads, release_memory
from warpwise.pair import Pair
from warpwise.registrars import REGISTRARS
from warpwise.registrars.base import OnStep, Registrar, Solution, Step, ignore
from warpwise.registrars.linear import affine
from warpwise.registrars.linear.contrast import ALIKE, agreement
from warpwise.registrars.linear.stage import align, unaligned
from warpwise.registration.deliver import Clock, deliver
from warpwise.registration.prepare import Inputs, affordable, predicted_memory_mb, prepare
from warpwise.registration.result import Result
from warpwise.registration.scores import scored
from warpwise.registration.trust import suspicions
from warpwise.similarity import SIMILARITIES

if TYPE_CHECKING:
    from warpwise.networks.model import Model

LINEAR = ("rigid", "affine")
NEITHER = (None, None)


def register(  # noqa: PLR0913 - the front door: what users set stands here by name
    fixed: ImageLike,
    moving: ImageLike,
    *,
    preset: str | Preset = "balanced",
    transform: str = "greedy",
    similarity: str = "auto",
    masks: tuple[ImageLike | None, ImageLike | None] = NEITHER,
    exclude: tuple[ImageLike | None, ImageLike | None] = NEITHER,
    labels: tuple[ImageLike | None, ImageLike | None] = NEITHER,
    landmarks: tuple[PointsLike, PointsLike] | None = None,
    weights: Mapping[str, float] | None = None,
    initial: TransformLike | None = None,
    channel_weights: Sequence[float] | None = None,
    percentiles: tuple[float, float] = (0.5, 99.5),
    bias_field: bool = False,
    fit_memory: bool = False,
    model: "str | Path | Model | None" = None,
    refine: bool = False,
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
        exclude: fixed and moving; voxels > 0 do not count: lesions, implants.
        labels: fixed and moving label maps that should overlap, as a further term.
        landmarks: fixed and moving points (n, dim), mm RAS+, or their files, that should meet, as a further term.
        weights: of labels and landmarks against the similarity, 1 each by default; with 0 they are only judged.
        initial: a transform (or its file) to begin with; the search for a start is then left out.
        channel_weights: importance of the channels, any positive scale.
        percentiles: intensities outside are cut: the darkest, and the brightest of what is brighter; a model has its own.
        bias_field: estimate and divide out slow shading first (N4); the warped image keeps its own intensities.
        fit_memory: where memory does not suffice, work on every second or fourth voxel instead of refusing.
        model: a trained network (an installed one's name, its folder, or a training run) instead of the solver.
        refine: let the solver go on from what the network says.
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
    if model is not None and transform in LINEAR:
        raise InputError(f"A model predicts a deformation; transform is {transform!r}.", hint="Leave one of both out.")
    if refine and model is None:
        raise InputError("There is nothing to refine without a model.", hint="Name one: model, or --model.")
    network = loaded(model)
    images = as_image(fixed, name="fixed"), as_image(moving, name="moving")
    inputs = Inputs(
        images,
        _two(masks, "mask"),
        _two(exclude, "mask"),
        _two(labels, "labels"),
        None if landmarks is None else (as_points(landmarks[0], "fixed"), as_points(landmarks[1], "moving")),
        {"labels": 1.0, "landmarks": 1.0, **(weights or {})},
        None if initial is None else as_transform(initial),
        channel_weights,
        percentiles if network is None else network.card.percentiles,
        bias_field,
    )
    reduction = affordable(images[0].grid, images[1].grid, len(images[0].data), fit=fit_memory)
    ready = prepare(inputs, reduction=reduction)
    clock.lap("preparing")
    pair = ready.pair
    if network is not None:
        network.card.fits(len(pair.fixed), dim=2 if pair.planar else 3)
    # A network is given what it was trained on: images that were brought together in the same way.
    kind = transform if transform in LINEAR else ("affine" if network is None else network.card.alignment)
    if kind == "none":
        found = unaligned(pair)
    else:
        linear_settings = settings.affine.replace(transform=kind)
        found = align(pair, linear_settings, similarity=similarity, given=initial is not None, on_step=on_step)
    linear, seen = found.solution, found.seen
    clock.lap("affine")
    if not np.isfinite(linear.value):
        raise InputError(
            f"{images[0].name} and {images[1].name} do not overlap where the registration begins.",
            hint="Check the masks and the initial transform, or leave them out.",
        )
    pair = pair.moved(affine.lift(linear.to_moving, seen, pair))
    solution: Solution | None = None
    stage, unlike = transform, ()
    alike = agreement(pair)
    if similarity == "auto":
        similarity = "lncc" if alike > ALIKE else "mind"
    if transform not in LINEAR:
        plain, after = (settings.deformable, settings.refining) if alike > ALIKE else (settings.cautious, settings.cautious)
        if network is None:
            solver: Registrar = REGISTRARS[transform](plain, similarity)
        else:
            solver = learned(network, REGISTRARS[transform](after, similarity) if refine else None)
            stage, unlike = (transform if refine else "predicted"), mismatches_of(network, pair)
        solution = solver.solve(pair, on_step=on_step)
        clock.lap("deformable")
    result = deliver(images, ready, pair, solution, clock, initial=inputs.initial if ready.warped_first else None)
    release_memory()
    history = (*linear.history, *(solution.history if solution else ()))
    scores = scored(inputs, result["transform"]) if inputs.labels[0] is not None or landmarks is not None else None
    return Result(
        **result,
        scores=scores,
        history=history,
        stops={"affine": linear.stops, **({stage: solution.stops} if solution else {})},
        similarity=energies(history),
        settings={
            "transform": transform,
            **({} if model is None else {"model": str(model_name(model)), "refine": refine}),
            "similarity": similarity,
            "affine_similarity": found.similarity,
            "start": found.start.name,
            "contrast_agreement": round(alike, 3),
            "guides": guides(pair),
            "percentiles": list(inputs.percentiles),
            "bias_field": bias_field,
            "voxels_used": "all" if reduction == 1 else f"one in {'×'.join(map(str, ready.factors))}",
            "threads": get_threads(),
            **settings.model_dump(mode="json"),
        },
        timings_s=clock.laps,
        warnings=(
            *ready.notes,
            *thinned(reduction),
            *unlike,
            *suspicions(seen.moved(linear.to_moving), pair, found.start, result["displacement_mm"]),
        ),
        predicted_memory_mb=predicted_memory_mb(images[0].grid, images[1].grid, len(images[0].data), reduction=reduction),
    )


def loaded(model: "str | Path | Model | None") -> "Model | None":
    """A network, read if need be; nothing where there is none."""
    if model is None:
        return None
    from warpwise.networks.model import Model  # noqa: PLC0415 - solvers must not pay for importing torch

    return model if isinstance(model, Model) else Model.load(model)


def learned(network: "Model", solver: Any) -> Registrar:
    """A network as registrar, followed by a solver where there is one."""
    from warpwise.registrars.learned.predicted import Predicted, Refined  # noqa: PLC0415 - imports torch

    predicted = Predicted(network)
    return predicted if solver is None else Refined(predicted, solver)


def mismatches_of(network: "Model", pair: Pair) -> tuple[str, ...]:
    """How a pair differs from what a network was trained on."""
    from warpwise.registrars.learned.predicted import mismatches  # noqa: PLC0415 - imports torch

    return mismatches(network.card, pair)


def model_name(model: Any) -> Any:
    """What a model is called in a result."""
    return model if isinstance(model, str | Path) else model.path or model.card.name


def _two(given: tuple[ImageLike | None, ImageLike | None], kind: str) -> tuple[Any, Any]:
    fixed, moving = (None if one is None else as_image(one, name=kind, kind=kind) for one in given)  # type: ignore[arg-type]
    return fixed, moving


def thinned(reduction: int) -> tuple[str, ...]:
    """A word about voxels that were left out."""
    if reduction == 1:
        return ()
    return (f"Memory is short: the registration saw one voxel in {reduction} along each axis, so it is less accurate.",)


def guides(pair: Pair) -> dict[str, float]:
    """What guided the registration besides the images, and its weight."""
    out: dict[str, float] = {}
    if pair.landmarks is not None:
        out["landmarks"] = pair.landmarks.weight
    if pair.labels is not None:
        out["labels"] = pair.labels.weight
    return out


def energies(history: Sequence[Step]) -> dict[str, float]:
    """First and last energy of the finest level of each stage."""
    out: dict[str, float] = {}
    for stage in dict.fromkeys(step.stage for step in history):
        finest = min(step.level for step in history if step.stage == stage)
        values = [step.energy for step in history if step.stage == stage and step.level == finest]
        out[f"{stage}_before"], out[f"{stage}_after"] = values[0], values[-1]
    return out
