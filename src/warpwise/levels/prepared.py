"""From a dataset to what training and validation look at."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from warpwise.data.batches import PairSampler, Sampler
from warpwise.data.synthetic_pairs import SyntheticSampler
from warpwise.data.volumes import Matrix, Store, label_values, working_spacing
from warpwise.errors import InputError
from warpwise.io.datasets import Dataset, read_dataset
from warpwise.io.scan import Scan
from warpwise.levels.settings import TrainingSettings
from warpwise.networks.model import ModelCard
from warpwise.registrars.crop import DARK
from warpwise.volume import Volume

Say = Callable[[str], None]
ValidationPair = tuple[Volume, Volume, Matrix]


@dataclass(frozen=True, eq=False)
class Prepared:
    """What a run needs.

    Attributes:
        sampler: of training pairs; validation: real pairs, empty where they are made.
        labels: values that are averaged over.
        card: what the model's card says of the data.
    """

    sampler: Sampler
    labels: tuple[int, ...]
    card: ModelCard
    validation: Sequence[ValidationPair] = field(default_factory=list[ValidationPair])


def prepare(settings: TrainingSettings, store: Store, say: Say) -> Prepared:
    """Decode what is to be decoded, align what is to be aligned; kept in the store.

    Raises:
        InputError: the dataset does not fit the settings.
    """
    known: dict[str, Any] = {"network": settings.network_settings(), "licence": settings.licence}
    known["alignment"] = "affine" if settings.synthetic is not None else settings.data.alignment
    if settings.synthetic is not None:
        made = SyntheticSampler(settings.synthetic, settings.data.labels_at_once, settings.seed)
        spacing = settings.data.spacing_mm or 1.0
        numbers = (float(spacing),) * made.dim if isinstance(spacing, int | float) else tuple(spacing)
        card = ModelCard(
            **known, dim=made.dim, spacing_mm=numbers, contrast="synthetic: random shapes and contrasts", any_contrast=True,
            field_mm=tuple(n * s for n, s in zip(settings.synthetic.shape, numbers, strict=True)),
        )  # fmt: skip
        return Prepared(made, (), card)
    if settings.data.dataset is None:
        raise InputError("data.dataset is not set.", hint="Name a folder with a dataset.json, or train with --synthetic.")
    dataset = read_dataset(settings.data.dataset, allow_outside=settings.data.allow_outside)
    pairs, validation = training_pairs(settings, dataset), validation_pairs(settings, dataset)
    scans = list(dict.fromkeys(scan for pair in (*pairs, *validation) for scan in pair))
    spacing = working_spacing(scans, settings.data.spacing_mm)
    say(f"{dataset.name}: {len(scans)} images, {len(pairs)} pairs to train and {len(validation)} to validate on.")
    volumes: dict[Scan, Volume] = {}
    for scan in scans:
        volumes[scan] = store.volume(scan, spacing)
    channels = {len(v.data) for v in volumes.values()}
    if len(channels) != 1:
        raise InputError(f"{dataset.folder}: images have {' and '.join(map(str, sorted(channels)))} channels.")
    say("Linear transforms …")
    worlds = linear_maps(settings, store, pairs)
    numbers = {scan: n for n, scan in enumerate(scans)}
    learnt = [volumes[scan] for scan in dict.fromkeys(s for pair in pairs for s in pair)]
    labels = label_values([*volumes.values()], settings.data.labels or dataset.averaged)
    x, y, z = (max(v.grid.shape[axis] for v in learnt) for axis in range(3))
    sampler = PairSampler(
        [volumes[scan] for scan in scans],
        [(numbers[a], numbers[b], world) for (a, b), world in zip(pairs, worlds, strict=True)],
        (x, y, z),
        labels,
        settings.data.labels_at_once,
        settings.augmentation,
        settings.seed,
    )
    values = np.concatenate([v.data[v.data > DARK][::7] for v in learnt])
    card = ModelCard(
        **known, dim=sampler.dim, channels=sampler.channels, spacing_mm=spacing, contrast=dataset.modality,
        any_contrast=settings.augmentation.contrast > 0.5,
        intensities=tuple(round(float(v), 3) for v in np.percentile(values, range(10, 100, 10))),
        field_mm=tuple(round(n * s, 1) for n, s in zip((x, y, z) if sampler.dim == 3 else (x, z), spacing, strict=True)),
        labels=labels if settings.network_settings().labels else (),
    )  # fmt: skip
    kept = [(volumes[a], volumes[b], store.linear(a, b, settings.data.alignment)) for a, b in validation]
    return Prepared(sampler, labels, card, kept)


def training_pairs(settings: TrainingSettings, dataset: Dataset) -> list[tuple[Scan, Scan]]:
    """(fixed, moving), as the settings want them."""
    how = settings.data.pairs
    if how == "listed":
        pairs = list(dataset.training_pairs)
    elif how == "atlas":
        pairs = [(atlas_of(settings, dataset), scan) for scan in dataset.training]
        pairs = [(a, b) for a, b in pairs if a.image.resolve() != b.image.resolve()]
    else:
        pairs = [(a, b) for a in dataset.training for b in dataset.training if a is not b]
        if how == "subject":
            pairs = [(a, b) for a, b in pairs if a.subject and a.subject == b.subject]
    if not pairs:
        what = {
            "listed": "registration_train",
            "atlas": "training",
            "subject": "training (two images with the same subject at least)",
            "all": "training (two images at least)",
        }[how]
        raise InputError(f"{dataset.folder}: no pairs to train on; {what} is empty.", hint="Choose another data.pairs.")
    return pairs


def validation_pairs(settings: TrainingSettings, dataset: Dataset) -> list[tuple[Scan, Scan]]:
    """(fixed, moving): those listed, else the atlas with each image, else neighbours in the list."""
    pairs = list(dataset.validation_pairs)
    if settings.data.pairs == "atlas":
        pairs = [(atlas_of(settings, dataset), scan) for scan in dataset.validation]
    elif not pairs:
        pairs = [*zip(dataset.validation, dataset.validation[1:], strict=False)]
    most = settings.validation_pairs
    if most and len(pairs) > most:
        pairs = [pairs[k * len(pairs) // most] for k in range(most)]
    return pairs


def atlas_of(settings: TrainingSettings, dataset: Dataset) -> Scan:
    """The image that is always fixed; with its labels where the dataset knows them.

    Raises:
        InputError: none is named, or it does not exist.
    """
    path = settings.data.atlas
    if path is None or not path.exists():
        raise InputError(f"data.atlas: {path or 'not set'}.", hint="Name the image that all others are registered to.")
    known = [s for s in (*dataset.training, *dataset.validation) if s.image.resolve() == path.resolve()]
    return known[0] if known else Scan(image=path)


def linear_maps(settings: TrainingSettings, store: Store, pairs: Sequence[tuple[Scan, Scan]]) -> list[Matrix]:
    """Fixed mm → moving mm of every pair.

    Between all pairs of n images, n transforms suffice: each image to the first, and from there to any other.
    """
    kind = settings.data.alignment
    if settings.data.pairs != "all":
        return [store.linear(a, b, kind) for a, b in pairs]
    scans = list(dict.fromkeys(scan for pair in pairs for scan in pair))
    away = {scan: store.linear(scans[0], scan, kind) for scan in scans}
    return [away[b] @ np.linalg.inv(away[a]) for a, b in pairs]
