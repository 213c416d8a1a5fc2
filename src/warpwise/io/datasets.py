"""dataset.json, as Learn2Reg has it: which images there are, which are labelled, which pairs are meant."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from warpwise.errors import InputError
from warpwise.io.scan import Scan

KNOWN = (
    "name", "training", "validation", "test", "registration_train", "registration_val", "registration_test", "labels",
    "labelsInEverySubject", "modality", "licence", "tensorImageSize", "numTraining", "numTest", "channel_names",
    "file_ending",
)  # fmt: skip


@dataclass(frozen=True)
class Dataset:
    """What a dataset.json says.

    Attributes:
        training, validation: single images.
        training_pairs, validation_pairs: (fixed, moving), where such are listed.
        labels: value → name; averaged: those to average over.
        modality, licence: as written.
        test: files of images that are kept for a last test; test_subjects: people of whom there are such images.
        test_pairs: (fixed, moving) for that test, where they are listed and their files are here.
    """

    name: str
    folder: Path
    training: tuple[Scan, ...]
    validation: tuple[Scan, ...]
    training_pairs: tuple[tuple[Scan, Scan], ...]
    validation_pairs: tuple[tuple[Scan, Scan], ...]
    labels: Mapping[int, str]
    averaged: tuple[int, ...]
    modality: str
    licence: str
    test: frozenset[Path] = frozenset()
    test_subjects: frozenset[str] = frozenset()
    test_pairs: tuple[tuple[Scan, Scan], ...] = ()

    @property
    def test_people(self) -> frozenset[str]:
        """Those who are kept for a last test: by subject, or by the names of their files where none is named."""
        return self.test_subjects or frozenset(Scan(image=path).title for path in self.test)


def read_dataset(path: Path, *, allow_outside: bool = False) -> Dataset:
    """A dataset from its dataset.json, or from the folder that holds it.

    Args:
        path: the file or its folder.
        allow_outside: whether images may lie outside that folder.

    Raises:
        InputError: it is missing, is not JSON, lacks what is needed, or names a file that is not there.
    """
    file = path / "dataset.json" if path.is_dir() else path
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{file}: no such file.", hint="A dataset is a folder with a dataset.json in it.") from None
    except (ValueError, OSError) as error:
        raise InputError(f"{file}: cannot be read as JSON ({error}).") from error
    if not isinstance(content, dict):
        raise InputError(f"{file}: holds a {type(content).__name__}, not an object.")
    reader = _Reader(file, content, allow_outside)
    training, validation = reader.scans("training"), reader.scans("validation")
    pairs = reader.pairs("registration_train"), reader.pairs("registration_val")
    if not (training or validation or pairs[0] or pairs[1]):
        raise reader.missing("training")
    labels = reader.whole_keys("labels")
    averaged = content.get("labelsInEverySubject", sorted(labels))
    if not isinstance(averaged, list | dict) or not all(str(v).lstrip("-").isdigit() for v in averaged):
        raise InputError(f"{file}: labelsInEverySubject: label values are needed, got {averaged!r}.")
    modality = content.get("modality", "")
    return Dataset(
        str(content.get("name", file.parent.name)),
        file.parent,
        training,
        validation,
        *pairs,
        labels,
        tuple(int(v) for v in averaged if int(v) != 0),
        " ".join(map(str, modality.values())) if isinstance(modality, dict) else str(modality),
        str(content.get("licence", content.get("license", ""))),
        *reader.tested(),
        reader.tested_pairs(),
    )


@dataclass(frozen=True)
class _Reader:
    file: Path
    content: dict[str, Any]
    allow_outside: bool
    scans_known: dict[tuple[Path, Path | None], Scan] = field(default_factory=dict[tuple[Path, Path | None], Scan])

    @cached_property
    def root(self) -> Path:
        """The dataset's folder, its links followed."""
        return self.file.parent.resolve()

    def missing(self, key: str) -> InputError:
        near = [k for k in self.content if k not in KNOWN and get_close_matches(k, KNOWN, n=1)]
        guess = f"{near[0]!r} may be meant to be {get_close_matches(near[0], KNOWN, n=1)[0]!r}." if near else ""
        return InputError(
            f"{self.file}: {key} is missing or empty.", hint=guess or 'See "describe a dataset" in docs/guide.md.'
        )

    def rows(self, key: str) -> list[dict[str, Any]]:
        found = self.content.get(key, [])
        if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
            raise InputError(f"{self.file}: {key}: a list of objects is needed.")
        return found

    def path(self, row: dict[str, Any], key: str, where: str, *, needed: bool = True) -> Path | None:
        value = row.get(key)
        if value is None:
            if not needed:
                return None
            near = get_close_matches(key, row, n=1)
            guess = f"Did you mean {key!r} instead of {near[0]!r}?" if near else ""
            raise InputError(f"{self.file}: {where}: {key!r} is missing.", hint=guess)
        if not isinstance(value, str):
            raise InputError(f"{self.file}: {where}: {key} is {value!r}; a path is needed.")
        found = self.file.parent / value
        inside = found.resolve().is_relative_to(self.root)
        if not (inside or self.allow_outside):
            raise InputError(f"{self.file}: {where}: {value} lies outside the dataset.", hint="Pass --allow-outside.")
        if not found.exists():
            raise InputError(f"{self.file}: {where}: {found} does not exist.")
        return found

    @cached_property
    def subjects(self) -> dict[str, str]:
        """Whom each file shows, by its path as written: a row of pairs names no subject, other rows of its files may."""
        out: dict[str, str] = {}
        for key in ("training", "validation", "test"):
            for row in self.content.get(key) or ():
                if isinstance(row, dict) and row.get("subject") and isinstance(row.get("image"), str):
                    out[Path(row["image"]).as_posix()] = str(row["subject"])
        return out

    def scan(self, image: Path, labels: Path | None, written: str) -> Scan:
        """The one scan of these files, however often they are named."""
        subject = self.subjects.get(Path(written).as_posix(), "")
        return self.scans_known.setdefault((image, labels), Scan(image=image, labels=labels, subject=subject))

    def scans(self, key: str) -> tuple[Scan, ...]:
        out: list[Scan] = []
        for n, row in enumerate(self.rows(key)):
            image = self.path(row, "image", f"{key}[{n}]")
            assert image is not None
            label = self.path(row, "label", f"{key}[{n}]", needed=False)
            out.append(self.scan(image, label, row["image"]))
        return tuple(out)

    def pairs(self, key: str) -> tuple[tuple[Scan, Scan], ...]:
        out: list[tuple[Scan, Scan]] = []
        for n, row in enumerate(self.rows(key)):
            two: list[Scan] = []
            for side in ("fixed", "moving"):
                image = self.path(row, side, f"{key}[{n}]")
                assert image is not None
                two.append(self.scan(image, self.path(row, f"{side}_label", f"{key}[{n}]", needed=False), row[side]))
            out.append((two[0], two[1]))
        return tuple(out)

    def tested(self) -> tuple[frozenset[Path], frozenset[str]]:
        """Files and people that are kept for a last test; they need not be here, and a row may be a bare path."""
        rows = [row for key in ("test", "registration_test") for row in self.content.get(key) or ()]
        kept = [{"image": row} if isinstance(row, str) else row for row in rows if isinstance(row, str | dict)]
        files = [row[key] for row in kept for key in ("image", "fixed", "moving") if isinstance(row.get(key), str)]
        people = {str(row["subject"]) for row in kept if row.get("subject")}
        people |= {self.subjects[Path(file).as_posix()] for file in files if Path(file).as_posix() in self.subjects}
        return frozenset((self.file.parent / file).resolve() for file in files), frozenset(people)

    def tested_pairs(self) -> tuple[tuple[Scan, Scan], ...]:
        """Pairs for a last test; none where one of their files is kept elsewhere."""
        try:
            return self.pairs("registration_test")
        except InputError:
            return ()

    def whole_keys(self, key: str) -> dict[int, str]:
        found = self.content.get(key, {})
        if not isinstance(found, dict) or not all(str(k).lstrip("-").isdigit() for k in found):
            raise InputError(f"{self.file}: {key}: an object from label values to names is needed.")
        return {int(k): str(v) for k, v in found.items() if int(k) != 0}
