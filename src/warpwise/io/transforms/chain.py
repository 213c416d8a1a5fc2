"""A chain of transform files, each of which may be turned round."""

from collections.abc import Sequence
from functools import reduce
from pathlib import Path

from warpwise.errors import InputError
from warpwise.io.images import read_geometry
from warpwise.io.transforms import NOWHERE, Space, Spaces, read_transform
from warpwise.transforms.base import Transform


def parse(word: str) -> tuple[Path, bool]:
    """A file, and whether it is to be inverted."""
    if word.startswith("[") and word.endswith("]") and "," in word:
        name, flag = word[1:-1].rsplit(",", 1)
        if flag.strip() in ("0", "1"):
            return Path(name.strip()), flag.strip() == "1"
    if word.startswith("inverse:"):
        return Path(word.removeprefix("inverse:")), True
    return Path(word), False


def spaces_of(fixed: Path | None, moving: Path | None) -> Spaces:
    """Where the two images lie, for formats that measure from their corners."""
    geometries = [None if path is None else read_geometry(path) for path in (fixed, moving)]
    return Spaces(*[None if g is None else Space(g.shape, g.affine, g.name) for g in geometries])


def read_chain(words: Sequence[str], *, kind: str | None = None, spaces: Spaces = NOWHERE) -> Transform:
    """The transform of a chain of files: fixed mm → moving mm.

    Raises:
        InputError: one cannot be read, or they differ in dimension.
    """
    parts: list[Transform] = []
    for word in words:
        path, turned = parse(word)
        part = read_transform(path, kind=kind, spaces=spaces)
        if parts and part.dim != parts[0].dim:
            raise InputError(f"{path}: is {part.dim}-D; the transforms before it are {parts[0].dim}-D.")
        parts.append(part.inverse() if turned else part)
    return reduce(lambda first, later: first.then(later), parts)
