"""From a dataset to what training and validation look at."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from warpwise.data.batches import NumberedPair, PairSampler, Sampler
from warpwise.data.pairs import AllPairs, Numbered, PairOfScans, training_pairs, validation_pairs
from warpwise.data.people import SELECT, TRAIN, parts
from warpwise.data.settings import AugmentationSettings, DataSettings, SyntheticSettings, TeacherSettings
from warpwise.data.synthetic_pairs import SyntheticSampler
from warpwise.data.teacher import Teacher
from warpwise.data.volumes import Alignment, Store, label_values, working_spacing
from warpwise.errors import InputError
from warpwise.events import OnEvent, ignore, note
from warpwise.image import DARK
from warpwise.io.datasets import Dataset, read_dataset
from warpwise.io.scan import Scan
from warpwise.methods import Method
from warpwise.shapes import Matrix, Triple, VectorField
from warpwise.similarity.codes import Codes
from warpwise.volume import Volume

STILL = AugmentationSettings(rotation_degrees=0, scaling=0, shift_voxels=0, flip=False, noise=0, bias=0, gamma=0)
"""Of pairs that are looked at as they are."""

LOOKED_AT = 200  # images at most that are decoded before training begins

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
        structures: what a head of labels tells apart, a channel each; none where pairs are made.
    """

    sampler: Sampler
    labels: tuple[int, ...]
    facts: DataFacts
    validation: Sequence[PreparedPair] = field(default_factory=list[PreparedPair])
    structures: Codes | None = None


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
    """Look at the images; decode and align them: now where they are few, else as they are drawn. Kept in the store.

    Of many images, some that lie evenly in the list stand for all: for spacing, canvas, labels, channels and contrast.

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
    people = parts(dataset, data.people)
    pairs = training_pairs(data, dataset, atlas, part=people.get(TRAIN))
    validation = validation_pairs(dataset, atlas, most=most, part=people.get(SELECT), one_person=data.pairs == "subject")
    learnt = pairs.scans if isinstance(pairs, AllPairs) else list(dict.fromkeys(scan for pair in pairs for scan in pair))
    judged = list(dict.fromkeys(scan for pair in validation for scan in pair))
    if left_out := len(set(dataset.training) - set(learnt)) if data.pairs == "all" and not people else 0:
        tell(note(f"{left_out} of {len(dataset.training)} training images show people to validate or test on: left out."))
    looked_at = evenly(learnt, LOOKED_AT)
    spacing = working_spacing([*looked_at, *judged], data.spacing_mm)
    words = f"{len(learnt)} images in {len(pairs)} pairs to train and {len(validation)} to validate on."
    tell(note(f"{dataset.name}: {words}"))
    volumes = Volumes(learnt, store, spacing)
    seen = [store.volume(scan, spacing) for scan in looked_at]
    channels = {len(v.data) for v in seen}
    if len(channels) != 1:
        raise InputError(f"{dataset.folder}: images have {' and '.join(map(str, sorted(channels)))} channels.")
    labels = label_values(seen, data.labels or dataset.averaged)
    x, y, z = canvas(seen)
    located = Located(pairs, {scan: n for n, scan in enumerate(learnt)}, store, data.alignment)
    if len(learnt) <= LOOKED_AT:
        tell(note("Linear transforms …"))
        located.find()
    codes = Codes.grouped(list(data.groups.values())) if data.groups else None
    if data.label_codes:
        codes = Codes.signed(sizes(seen, labels), channels=data.label_codes)
    taught = teacher_of(data.teacher, store, volumes) if data.teacher is not None else None
    window = windowed((x, y, z), data.crop, dim=seen[0].dim)
    sampler = PairSampler(
        volumes, located, window, labels, data.labels_at_once, augmentation, seed, codes, taught, data.crop is not None
    )
    values = np.concatenate([v.data[v.data > DARK][::7] for v in seen])
    dim = seen[0].dim
    facts = DataFacts(
        dim=dim,
        channels=channels.pop(),
        spacing_mm=spacing,
        contrast=dataset.modality,
        any_contrast=augmentation.contrast > 0.5,
        intensities=tuple(round(float(v), 3) for v in np.percentile(values, range(10, 100, 10))),
        field_mm=tuple(round(n * s, 1) for n, s in zip((x, y, z) if dim == 3 else (x, z), spacing, strict=True)),
    )
    kept = decoded_pairs(validation, store, spacing, data)
    structures = codes if data.groups else Codes.apart(labels)
    return Prepared(sampler, labels, facts, kept, structures)


def decoded_pairs(
    pairs: Sequence[PairOfScans], store: Store, spacing: Sequence[float], data: DataSettings
) -> list[PreparedPair]:
    """Pairs in memory, and how they lie."""
    return [(store.volume(a, spacing), store.volume(b, spacing), store.linear(a, b, data.alignment)) for a, b in pairs]


def own_pairs(
    data: DataSettings, store: Store, ready: Prepared, part: str, *, labelled: bool = False, most: int = 64, seed: int = 0
) -> Sampler:
    """Pairs of a part of the people that a further level learns by, as they are.

    Args:
        ready: what was prepared of the same data; part: one that `data.people` names; seed: of the pairs that are drawn.
        labelled: only those with label maps; most: so many.

    Raises:
        InputError: there are no pairs of that part.
    """
    assert data.dataset is not None
    dataset = read_dataset(data.dataset, allow_outside=data.allow_outside)
    atlas = atlas_of(data, dataset) if data.pairs == "atlas" else None
    people = parts(dataset, data.people)[part]
    theirs = validation_pairs(dataset, atlas, most=most, part=people, one_person=data.pairs == "subject")
    theirs = [pair for pair in theirs if not labelled or all(scan.labels is not None for scan in pair)]
    if not theirs:
        raise InputError(
            f"data.people: {part}: no pairs{' with label maps' if labelled else ''}.", hint="Name two people at least."
        )
    pairs = decoded_pairs(theirs, store, ready.facts.spacing_mm, data)
    return sampler_of(pairs, ready.labels, labels_at_once=data.labels_at_once, augmentation=STILL, seed=seed)


def teacher_of(settings: TeacherSettings, store: Store, volumes: "Volumes") -> Callable[[int, int, Matrix], VectorField]:
    """Fields by numbers of volumes.

    Raises:
        InputError: there is no such method, or it deforms nothing.
    """
    method = Method.named(settings.method)
    teacher = Teacher(method.refined() if settings.refine else method, store, settings.labels)
    if teacher.method.registrar is None:
        raise InputError(f"data.teacher: {settings.method!r} deforms nothing.", hint="Take for example accurate.")

    def field(fixed: int, moving: int, world: Matrix) -> VectorField:
        return teacher.field(volumes.scans[fixed], volumes.scans[moving], world, volumes[fixed].grid)

    return field


def evenly(scans: Sequence[Scan], most: int) -> list[Scan]:
    """At most so many, from beginning to end."""
    count = min(most, len(scans))
    return [scans[k * len(scans) // count] for k in range(count)]


def sizes(volumes: Sequence[Volume], labels: Sequence[int]) -> dict[int, float]:
    """Mean voxels of each label over the maps that hold it."""
    counts: dict[int, list[int]] = {label: [] for label in labels}
    for volume in volumes:
        if volume.labels is not None:
            for value, count in zip(*np.unique(volume.labels, return_counts=True), strict=True):
                if int(value) in counts:
                    counts[int(value)].append(int(count))
    return {label: float(np.mean(found)) for label, found in counts.items() if found}


def windowed(shape: Triple, crop: int | tuple[int, ...] | None, *, dim: int) -> Triple:
    """What training looks at of a canvas of this shape; a plane is (X, 1, Y).

    Raises:
        InputError: the window has other axes than the images.
    """
    if crop is None:
        return shape
    sides = (crop,) * dim if isinstance(crop, int) else crop
    if len(sides) != dim:
        raise InputError(f"data.crop: {len(sides)} numbers for images of {dim} axes.")
    whole = sides if dim == 3 else (sides[0], 1, sides[1])
    x, y, z = (min(n, m) for n, m in zip(shape, whole, strict=True))
    return x, y, z


def canvas(volumes: Sequence[Volume]) -> Triple:
    """Voxels of the largest of some images."""
    x, y, z = (max(volume.grid.shape[axis] for volume in volumes) for axis in range(3))
    return x, y, z


@dataclass(frozen=True, eq=False)
class Volumes(Numbered[Volume]):
    """The volumes of scans by number, decoded when one is asked for, and mapped from disk."""

    scans: Sequence[Scan]
    store: Store
    spacing_mm: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.scans)

    def one(self, at: int) -> Volume:
        return self.store.volume(self.scans[at], self.spacing_mm)


@dataclass(frozen=True, eq=False)
class Located(Numbered[NumberedPair]):
    """Pairs with their linear maps, each found when it is asked for.

    Between all pairs of n images, n transforms suffice: each image to the first, and from there to any other.
    """

    pairs: Sequence[PairOfScans]
    numbers: Mapping[Scan, int]
    store: Store
    kind: Alignment

    def __len__(self) -> int:
        return len(self.pairs)

    def one(self, at: int) -> NumberedPair:
        fixed, moving = self.pairs[at]
        return self.numbers[fixed], self.numbers[moving], self.world(fixed, moving)

    def world(self, fixed: Scan, moving: Scan) -> Matrix:
        """Fixed mm → moving mm."""
        if not isinstance(self.pairs, AllPairs):
            return self.store.linear(fixed, moving, self.kind)
        first = self.pairs.scans[0]
        away = [self.store.linear(first, scan, self.kind) for scan in (fixed, moving)]
        return away[1] @ np.linalg.inv(away[0])

    def find(self) -> None:
        """Find all transforms now."""
        if isinstance(self.pairs, AllPairs):
            for scan in self.pairs.scans:
                self.store.linear(self.pairs.scans[0], scan, self.kind)
        else:
            for fixed, moving in self.pairs:
                self.store.linear(fixed, moving, self.kind)


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
    numbered = [(numbers[id(fixed)], numbers[id(moving)], world) for fixed, moving, world in pairs]
    return PairSampler(volumes, numbered, canvas(volumes), labels, labels_at_once, augmentation, seed)


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
