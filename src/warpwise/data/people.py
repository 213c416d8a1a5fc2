"""Who teaches what: people, not images, are parted, so that nobody is on two sides of a figure."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from warpwise.errors import InputError
from warpwise.io.datasets import Dataset
from warpwise.io.scan import Scan

TRAIN, SELECT, TEST = "train", "select", "test"
"""Parts with a meaning of their own: weights learn from the first, are chosen by the second, and never see the third."""


@dataclass(frozen=True)
class Part:
    """Some of the people of a dataset, and their scans."""

    people: frozenset[str]
    scans: tuple[Scan, ...]

    def shows(self, scan: Scan) -> bool:
        """Whether a scan is of one of these people."""
        return person(scan) in self.people


def person(scan: Scan) -> str:
    """Whom a scan shows: its subject, where the dataset names one, else the file's name."""
    return scan.subject or scan.title


def drawn(people: Iterable[str], counts: Mapping[str, int], *, seed: int = 0) -> dict[str, tuple[str, ...]]:
    """Parts of so many people each; who is in which depends on names and seed alone, not on the order.

    Example:
        >>> drawn(["ann", "bob", "eve"], {"train": 2, "test": 1})
        {'train': ('bob', 'eve'), 'test': ('ann',)}

    Raises:
        InputError: there are fewer people than are asked for.
    """
    order = sorted(set(people), key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).hexdigest())
    if sum(counts.values()) > len(order):
        raise InputError(f"{sum(counts.values())} people are asked for, and there are {len(order)}.")
    out: dict[str, tuple[str, ...]] = {}
    for name, count in counts.items():
        out[name], order = tuple(sorted(order[:count])), order[count:]
    return out


def parts(dataset: Dataset, people: Mapping[str, Sequence[str]]) -> dict[str, Part]:
    """The scans of each part of the people, in the dataset's order.

    Raises:
        InputError: somebody is in two parts, or is not known, or is kept for a last test but not in the part of that name.
    """
    if not people:
        return {}
    # One scan a file: where a file is named with and without its label map, the first one counts.
    files: dict[Path, Scan] = {}
    for scan in scans_of(dataset):
        files.setdefault(scan.image.resolve(), scan)
    known = list(files.values())
    by_person: dict[str, list[Scan]] = {}
    for scan in known:
        by_person.setdefault(person(scan), []).append(scan)
    place: dict[str, str] = {}
    for part, names in people.items():
        for name in names:
            if place.setdefault(name, part) != part:
                raise InputError(f"data.people: {name!r} is in {place[name]!r} and in {part!r}.")
            if part == TEST:
                continue
            if name not in by_person:
                raise InputError(f"data.people: {part}: {name!r} is nobody of {dataset.name}.")
            if name in dataset.test_subjects or any(scan.image.resolve() in dataset.test for scan in by_person[name]):
                raise InputError(f"data.people: {part}: the dataset keeps {name!r} for a last test.")
    scans: dict[str, list[Scan]] = {part: [] for part in people}
    for scan in known:
        if person(scan) in place:
            scans[place[person(scan)]].append(scan)
    return {part: Part(frozenset(names), tuple(scans[part])) for part, names in people.items()}


def scans_of(dataset: Dataset) -> list[Scan]:
    """Every scan that is named to train or to validate on, singly or in pairs."""
    pairs = (*dataset.training_pairs, *dataset.validation_pairs)
    return [*dataset.training, *dataset.validation, *(scan for pair in pairs for scan in pair)]


def unjudged(dataset: Dataset, atlas: Scan | None = None) -> Callable[[Scan], bool]:
    """Whether a scan shows nobody to validate or test on, wherever the dataset lists it; an atlas is everybody's."""
    judged = [*dataset.validation, *(scan for pair in dataset.validation_pairs for scan in pair)]
    files = {scan.image.resolve() for scan in judged} | dataset.test
    subjects = {scan.subject for scan in judged if scan.subject} | dataset.test_subjects
    common = None if atlas is None else atlas.image.resolve()

    def seen(scan: Scan) -> bool:
        file = scan.image.resolve()
        return file == common or not (file in files or scan.subject in subjects)

    return seen
