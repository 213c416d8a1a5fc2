"""Which pairs train, and which are validated on: numbered, not listed, so that any number of images will do."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar, overload

from warpwise.data.people import Part, unjudged
from warpwise.data.settings import DataSettings
from warpwise.errors import InputError
from warpwise.io.datasets import Dataset
from warpwise.io.scan import Scan

PairOfScans = tuple[Scan, Scan]
"""Fixed, moving."""
One = TypeVar("One")


class Numbered(Sequence[One], ABC):
    """A sequence whose items are made as they are asked for."""

    @abstractmethod
    def one(self, at: int) -> One:
        """Item number `at`, from 0."""

    @overload
    def __getitem__(self, at: int) -> One: ...
    @overload
    def __getitem__(self, at: slice) -> list[One]: ...
    def __getitem__(self, at: int | slice) -> One | list[One]:
        if isinstance(at, slice):
            return [self.one(k) for k in range(*at.indices(len(self)))]
        if not -len(self) <= at < len(self):
            raise IndexError(at)
        return self.one(at % len(self))


@dataclass(frozen=True)
class AllPairs(Numbered[PairOfScans]):
    """Every ordered pair of these scans: the first with each other one, then the second …"""

    scans: Sequence[Scan]

    def __len__(self) -> int:
        return len(self.scans) * (len(self.scans) - 1)

    def one(self, at: int) -> PairOfScans:
        first, other = divmod(at, len(self.scans) - 1)
        return self.scans[first], self.scans[other + (other >= first)]


def training_pairs(
    data: DataSettings, dataset: Dataset, atlas: Scan | None = None, *, part: Part | None = None
) -> Sequence[PairOfScans]:
    """(fixed, moving), as the settings want them, that show only people of a part, or else nobody to validate or test on;
    an atlas is always fixed, and everybody's.

    Raises:
        InputError: there is none, or none is left.
    """
    how = data.pairs
    listed, scans = dataset.training_pairs, dataset.training
    if part is None:
        seen = unjudged(dataset, atlas)
    else:
        listed, scans = (*listed, *dataset.validation_pairs), part.scans
        seen = part.shows
    pairs: Sequence[PairOfScans]
    if how == "listed":
        allowed = {scan: seen(scan) for pair in listed for scan in pair}
        pairs, any_at_all = [pair for pair in listed if allowed[pair[0]] and allowed[pair[1]]], bool(listed)
    elif atlas is not None:
        place = atlas.image.resolve()
        others = [scan for scan in scans if scan.image.resolve() != place]
        pairs, any_at_all = [(atlas, scan) for scan in others if seen(scan)], bool(others)
    else:
        usual = [scan for scan in scans if seen(scan)]
        pairs = AllPairs(usual) if how == "all" else of_one_person(usual)
        any_at_all = len(scans) > 1 if how == "all" else bool(of_one_person(scans))
    if len(pairs):
        return pairs
    if any_at_all:
        raise InputError(
            f"{dataset.folder}: every training pair shows people to validate or test on.",
            hint="List other people under validation and test, or name those who train in data.people.",
        )
    what = {
        "listed": "registration_train",
        "atlas": "training",
        "subject": "training (two images with the same subject at least)",
        "all": "training (two images at least)",
    }[how]
    raise InputError(f"{dataset.folder}: no pairs to train on; {what} is empty.", hint="Choose another data.pairs.")


def balanced(scans: Sequence[Scan], most: int) -> list[PairOfScans]:
    """At most so many (0: all) ordered pairs, in which everybody is as often fixed, and as often moving, as anybody, or
    once more: each with the next one, then with the one after that …"""
    count = len(scans)
    turns = [(n, (n + step) % count) for step in range(1, count) for n in range(count)]
    return [(scans[n], scans[m]) for n, m in turns[: most or None]]


def of_one_person(scans: Iterable[Scan]) -> list[PairOfScans]:
    """Every ordered pair of scans of one subject."""
    scans = list(scans)
    mates: dict[str, list[Scan]] = {}
    for scan in scans:
        if scan.subject:
            mates.setdefault(scan.subject, []).append(scan)
    return [(a, b) for a in scans if a.subject for b in mates[a.subject] if a is not b]


def validation_pairs(
    dataset: Dataset,
    atlas: Scan | None = None,
    *,
    most: int = 0,
    part: Part | None = None,
    one_person: bool = False,
) -> list[PairOfScans]:
    """(fixed, moving), at most so many (0: all), evenly drawn.

    Of a part of the people: the pairs that are listed anywhere between two of them, else all ordered ones, or with
    `one_person` those that show one person twice. Otherwise those that are listed to validate on, else the atlas with each
    image, else neighbours in the list.
    """
    pairs: Sequence[PairOfScans] = dataset.validation_pairs
    if part is not None:
        listed = (*dataset.training_pairs, *dataset.validation_pairs)
        pairs = [pair for pair in listed if part.shows(pair[0]) and part.shows(pair[1])]
        pairs = pairs or (of_one_person(part.scans) if one_person else AllPairs(part.scans))
        if atlas is not None:
            pairs = [(atlas, scan) for scan in part.scans]
        if most and isinstance(pairs, AllPairs):
            return balanced(part.scans, most)
    elif atlas is not None:
        pairs = [(atlas, scan) for scan in dataset.validation]
    elif not pairs:
        pairs = [*zip(dataset.validation, dataset.validation[1:], strict=False)]
    if most and len(pairs) > most:
        return [pairs[k * len(pairs) // most] for k in range(most)]
    return list(pairs)
