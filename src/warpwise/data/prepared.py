"""From a dataset to what training and validation look at."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from warpwise.data.batches import PairSampler, Sampler
from warpwise.data.settings import AugmentationSettings, DataSettings, SyntheticSettings
from warpwise.data.synthetic_pairs import SyntheticSampler
from warpwise.data.volumes import Store, label_values, working_spacing
from warpwise.errors import InputError
from warpwise.events import OnEvent, ignore, note
from warpwise.image import DARK
from warpwise.io.datasets import Dataset, read_dataset
from warpwise.io.scan import Scan
from warpwise.shapes import Matrix
from warpwise.volume import Volume

PreparedPair = tuple[Volume, Volume, Matrix]
"""Fixed, moving, fixed mm → moving mm."""


@dataclass(frozen=True)
class DataFacts:
    """What is to be known of the images that a network learnt from.

    Attributes:
        dim, channels: of the images; spacing_mm: of the voxels, one number an upright axis.
        contrast: in words; any_contrast: whether it was random.
        intensities: deciles of the foreground; field_mm: extent of the largest image.
    """

    dim: int
    channels: int
    spacing_mm: tuple[float, ...]
    contrast: str
    any_contrast: bool
    intensities: tuple[float, ...]
    field_mm: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Prepared:
    """What a run needs.

    Attributes:
        sampler: of training pairs; validation: real pairs, empty where they are made.
        labels: values that are averaged over.
        facts: what a model's card says of the data.
    """

    sampler: Sampler
    labels: tuple[int, ...]
    facts: DataFacts
    validation: Sequence[PreparedPair] = field(default_factory=list[PreparedPair])


def prepare(
    data: DataSettings,
    store: Store,
    *,
    synthetic: SyntheticSettings | None = None,
    augmentation: AugmentationSettings | None = None,
    most: int = 0,
    seed: int = 0,
    tell: OnEvent = ignore,
) -> Prepared:
    """Decode what is to be decoded, align what is to be aligned; kept in the store.

    Args:
        synthetic: pairs are made by these, and nothing is read.
        augmentation: of training pairs; the usual one if None.
        most: validation pairs at most; 0: all.
        seed: of the training pairs that are drawn.

    Raises:
        InputError: the dataset does not fit the settings.
    """
    if synthetic is not None:
        return made(data, synthetic, seed=seed)
    augmentation = AugmentationSettings() if augmentation is None else augmentation
    if data.dataset is None:
        raise InputError("data.dataset is not set.", hint="Name a folder with a dataset.json, or train with --synthetic.")
    dataset = read_dataset(data.dataset, allow_outside=data.allow_outside)
    atlas = atlas_of(data, dataset) if data.pairs == "atlas" else None
    listed, validation = training_pairs(data, dataset, atlas), validation_pairs(dataset, atlas, most=most)
    pairs = unseen(listed, dataset, atlas)
    if left_out := len(listed) - len(pairs):
        tell(note(f"{left_out} of {len(listed)} training pairs show people to validate or test on: left out."))
    scans = list(dict.fromkeys(scan for pair in (*pairs, *validation) for scan in pair))
    spacing = working_spacing(scans, data.spacing_mm)
    tell(note(f"{dataset.name}: {len(scans)} images, {len(pairs)} pairs to train and {len(validation)} to validate on."))
    volumes: dict[Scan, Volume] = {}
    for scan in scans:
        volumes[scan] = store.volume(scan, spacing)
    channels = {len(v.data) for v in volumes.values()}
    if len(channels) != 1:
        raise InputError(f"{dataset.folder}: images have {' and '.join(map(str, sorted(channels)))} channels.")
    tell(note("Linear transforms …"))
    worlds = linear_maps(data, store, pairs)
    learnt = [volumes[scan] for scan in dict.fromkeys(s for pair in pairs for s in pair)]
    labels = label_values(learnt, data.labels or dataset.averaged)
    sampler = sampler_of(
        [(volumes[a], volumes[b], world) for (a, b), world in zip(pairs, worlds, strict=True)],
        labels,
        labels_at_once=data.labels_at_once,
        augmentation=augmentation,
        seed=seed,
    )
    x, y, z = sampler.shape
    values = np.concatenate([v.data[v.data > DARK][::7] for v in learnt])
    facts = DataFacts(
        dim=sampler.dim,
        channels=sampler.channels,
        spacing_mm=spacing,
        contrast=dataset.modality,
        any_contrast=augmentation.contrast > 0.5,
        intensities=tuple(round(float(v), 3) for v in np.percentile(values, range(10, 100, 10))),
        field_mm=tuple(round(n * s, 1) for n, s in zip((x, y, z) if sampler.dim == 3 else (x, z), spacing, strict=True)),
    )
    kept = [(volumes[a], volumes[b], store.linear(a, b, data.alignment)) for a, b in validation]
    return Prepared(sampler, labels, facts, kept)


def made(data: DataSettings, synthetic: SyntheticSettings, *, seed: int) -> Prepared:
    """Pairs that are made as they are drawn."""
    sampler = SyntheticSampler(synthetic, data.labels_at_once, seed)
    wanted = data.spacing_mm or 1.0
    spacing = (float(wanted),) * sampler.dim if isinstance(wanted, int | float) else tuple(wanted)
    facts = DataFacts(
        dim=sampler.dim,
        channels=sampler.channels,
        spacing_mm=spacing,
        contrast="synthetic: random shapes and contrasts",
        any_contrast=True,
        intensities=(),
        field_mm=tuple(n * s for n, s in zip(synthetic.shape, spacing, strict=True)),
    )
    return Prepared(sampler, (), facts)


def sampler_of(
    pairs: Sequence[PreparedPair],
    labels: Sequence[int],
    *,
    labels_at_once: int,
    augmentation: AugmentationSettings,
    seed: int,
) -> PairSampler:
    """Batches of these pairs: the training pairs, or a level's own part of them or of the validation pairs.

    The canvas is as large as the largest image.
    """
    volumes = list({id(volume): volume for pair in pairs for volume in pair[:2]}.values())
    numbers = {id(volume): n for n, volume in enumerate(volumes)}
    x, y, z = (max(volume.grid.shape[axis] for volume in volumes) for axis in range(3))
    numbered = [(numbers[id(fixed)], numbers[id(moving)], world) for fixed, moving, world in pairs]
    return PairSampler(volumes, numbered, (x, y, z), labels, labels_at_once, augmentation, seed)


def training_pairs(data: DataSettings, dataset: Dataset, atlas: Scan | None = None) -> list[tuple[Scan, Scan]]:
    """(fixed, moving), as the settings want them; with an atlas, that one is always fixed."""
    how = data.pairs
    if how == "listed":
        pairs = list(dataset.training_pairs)
    elif atlas is not None:
        pairs = [(atlas, scan) for scan in dataset.training]
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


def validation_pairs(dataset: Dataset, atlas: Scan | None = None, *, most: int = 0) -> list[tuple[Scan, Scan]]:
    """(fixed, moving), at most so many (0: all): listed, else the atlas with each image, else neighbours in the list."""
    pairs = list(dataset.validation_pairs)
    if atlas is not None:
        pairs = [(atlas, scan) for scan in dataset.validation]
    elif not pairs:
        pairs = [*zip(dataset.validation, dataset.validation[1:], strict=False)]
    if most and len(pairs) > most:
        pairs = [pairs[k * len(pairs) // most] for k in range(most)]
    return pairs


def unseen(pairs: Sequence[tuple[Scan, Scan]], dataset: Dataset, atlas: Scan | None = None) -> list[tuple[Scan, Scan]]:
    """Those training pairs that hold no image, and no person, to validate or test on, wherever the dataset lists them; an
    atlas is everybody's.

    Raises:
        InputError: none is left.
    """
    judged = [*dataset.validation, *(scan for pair in dataset.validation_pairs for scan in pair)]
    files = {scan.image.resolve() for scan in judged} | dataset.test
    people = {scan.subject for scan in judged if scan.subject} | dataset.test_subjects
    common = None if atlas is None else atlas.image.resolve()

    def seen(scan: Scan) -> bool:
        file = scan.image.resolve()
        return file != common and (file in files or scan.subject in people)

    # Paths are resolved once a scan, not once a pair: there are as many pairs as the square of that.
    held = {scan for scan in dict.fromkeys(scan for pair in pairs for scan in pair) if seen(scan)}
    left = [pair for pair in pairs if held.isdisjoint(pair)]
    if not left:
        raise InputError(
            f"{dataset.folder}: every training pair shows people to validate or test on.",
            hint="List other people under validation and test.",
        )
    return left


def atlas_of(data: DataSettings, dataset: Dataset) -> Scan:
    """The image that is always fixed; with its labels where the dataset knows them.

    Raises:
        InputError: none is named, or it does not exist.
    """
    path = data.atlas
    if path is None or not path.exists():
        raise InputError(f"data.atlas: {path or 'not set'}.", hint="Name the image that all others are registered to.")
    known = [s for s in (*dataset.training, *dataset.validation) if s.image.resolve() == path.resolve()]
    return known[0] if known else Scan(image=path)


def linear_maps(data: DataSettings, store: Store, pairs: Sequence[tuple[Scan, Scan]]) -> list[Matrix]:
    """Fixed mm → moving mm of every pair.

    Between all pairs of n images, n transforms suffice: each image to the first, and from there to any other.
    """
    kind = data.alignment
    if data.pairs != "all":
        return [store.linear(a, b, kind) for a, b in pairs]
    scans = list(dict.fromkeys(scan for pair in pairs for scan in pair))
    away = {scan: store.linear(scans[0], scan, kind) for scan in scans}
    return [away[b] @ np.linalg.inv(away[a]) for a, b in pairs]
