"""Register a pair of scans: the front door."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from warpwise.errors import InputError
from warpwise.events import Event, OnEvent, ignore
from warpwise.io.adapt import ImageLike, TransformLike, as_transform
from warpwise.io.images import Geometry, read_geometry
from warpwise.io.scan import Scan, Scans, read_both
from warpwise.methods import Method
from warpwise.ops.runtime import get_threads, release_memory
from warpwise.registrars.base import PREDICTED, Registrar
from warpwise.registrars.deformable.energy import STAGE as ENERGY
from warpwise.registrars.linear.stage import Aligned, align
from warpwise.registration.deform import Deformed, deform
from warpwise.registration.deliver import Clock, deliver
from warpwise.registration.linear_stages import LinearStages
from warpwise.registration.memory import affordable, predicted_memory_mb, words
from warpwise.registration.prepare import Prepared, prepare
from warpwise.registration.record import Choices
from warpwise.registration.result import Result
from warpwise.registration.scores import scored
from warpwise.registration.trust import shading_words, suspicions
from warpwise.similarity.base import Similarity
from warpwise.transforms.base import Transform


def register(
    fixed: Scan | ImageLike,
    moving: Scan | ImageLike,
    *,
    method: Method | str | Path = "balanced",
    initial: TransformLike | None = None,
    on_step: OnEvent = ignore,
) -> Result:
    """Align a moving image with a fixed one.

    Args:
        fixed, moving: paths, `Image`s, nibabel or SimpleITK images, arrays (1 mm voxels) or (array, affine), 2-D or 3-D,
            of one or several channels; or `Scan`s, which carry masks, lesions, labels and landmarks as well.
        method: fast, balanced or accurate; an installed or trained model; a YAML file; or a `Method` of your own.
        initial: a transform (or its file) to begin with; the search for a start is then left out.
        on_step: told of every iteration.

    Raises:
        InputError: the input cannot be used.
        RunError: the solver diverged.

    Example:
        >>> from warpwise.synthetic.phantoms import brain_pair
        >>> pair = brain_pair(shape=(32, 36, 32), seed=1)
        >>> register(pair.fixed, pair.moving, method="fast").certificate.percent_folded
        0.0
    """
    method = Method.named(method)
    registrar = method.build()  # refuses what cannot work before anything is read
    chain = None if initial is None else as_transform(initial)
    return register_scans(read_both(fixed, moving), method, registrar, initial=chain, on_step=on_step)


def register_scans(
    scans: Scans,
    method: Method,
    registrar: Registrar | None,
    *,
    initial: Transform | None = None,
    linear_stages: LinearStages | None = None,
    on_step: OnEvent = ignore,
) -> Result:
    """`register` for scans that were read; the registrar is what `method.build()` gives.

    Args:
        linear_stages: where the linear stage may have been kept from an earlier registration of the same files, and is
            kept otherwise; its seconds are then those of that time.
    """
    clock = Clock()
    reduction = affordable(scans, method)
    prepared = prepare(scans, method.images, method.terms(), initial=initial, reduction=reduction)
    unlike = () if registrar is None else registrar.fits(prepared.pair)
    clock.lap("preparing")
    if linear_stages is None or initial is not None:
        aligned = align(prepared.pair, method.linear, method.terms(), given=initial is not None, on_step=on_step)
        clock.lap("affine")
    else:
        aligned, seconds = linear_stages.aligned(scans, prepared.pair, method, reduction=reduction)
        clock.lap("affine")
        clock.laps["affine"] = round(seconds, 4)
    if not np.isfinite(aligned.solution.value):
        raise InputError(
            f"{scans[0].image.name} and {scans[1].image.name} do not overlap where the registration begins.",
            hint="Check the masks and the initial transform, or leave them out.",
        )
    pair = aligned.applied(prepared.pair)
    deformed = deform(pair, method, registrar, on_step=on_step)
    if deformed.solution is not None:
        clock.lap("deformable")
    delivered = deliver(scans, prepared, pair, deformed.solution, clock)
    release_memory()
    history = (*aligned.solution.history, *deformed.history)
    linear_stops = {} if method.linear is None else {method.linear.transform: aligned.solution.stops}
    paths = [None if scan.source is None else scan.source.path for scan in scans]
    sources = ["" if path is None else str(path.absolute()) for path in paths]
    return Result(
        **vars(delivered),
        method=method,
        choices=choices_of(prepared, aligned, deformed, reduction),
        scores=scored(scans, delivered.transform),
        history=history,
        stops=linear_stops | deformed.stops,
        similarity=energies(history),
        timings_s=clock.laps,
        warnings=(
            *prepared.notes,
            *words(reduction),
            *unlike,
            *deformed.words,
            *shading_words(aligned, even=deformed.even, corrected=method.images.bias_field),
            *suspicions(aligned, pair, delivered.displacement_mm),
        ),
        predicted_memory_mb=predicted_memory_mb(scans, method, reduction=reduction),
        sources=(sources[0], sources[1]),
        geometry=geometry_of(scans),
    )


def choices_of(prepared: Prepared, aligned: Aligned, deformed: Deformed, reduction: int) -> Choices:
    """What was decided on the way."""
    pair, terms = prepared.pair, deformed.terms
    guides: dict[str, float] = {}
    if terms.landmarks is not None and pair.fixed.points is not None and deformed.stage != ENERGY:
        guides["landmarks"] = terms.landmarks.weight
    if terms.labels is not None and pair.fixed.codes is not None:
        guides["labels"] = terms.labels.weight
    minimised = deformed.solution is not None and deformed.stage != PREDICTED
    return Choices(
        similarity="+".join(map(called, terms.similarities)) if minimised else "",
        linear_measure=aligned.measure,
        start=aligned.start.name,
        contrast_agreement=round(deformed.agreement, 3),
        evidence=None if deformed.evidence is None else round(deformed.evidence, 3),
        cautious=deformed.cautious,
        shading=round(aligned.shading, 3),
        without_shading=[*(["linear"] if aligned.flattened else []), *([deformed.stage] if deformed.even else [])],
        guides=guides,
        voxels="all" if reduction == 1 else f"one in {'×'.join(map(str, prepared.factors))}",
        threads=get_threads(),
    )


def called(similarity: Similarity) -> str:
    """A similarity as a record has it."""
    return f"{similarity.row()} in both contrasts" if similarity.both_contrasts else similarity.row()


def geometry_of(scans: Scans) -> Geometry | None:
    """How the fixed image's file says where a plane lies; None for volumes and for images in memory."""
    source = scans[0].source
    if scans[0].image.grid.dim == 3 or source is None or source.path is None:
        return None
    return read_geometry(source.path, source.reading)


def energies(history: Sequence[Event]) -> dict[str, float]:
    """First and last energy of the finest scale of each stage."""
    out: dict[str, float] = {}
    for stage in dict.fromkeys(step.stage for step in history):
        steps = [(step.scale or 0, step.energy) for step in history if step.stage == stage]
        finest = min(scale for scale, _ in steps)
        values = [energy for scale, energy in steps if scale == finest]
        out[f"{stage}_before"], out[f"{stage}_after"] = values[0], values[-1]
    return out
