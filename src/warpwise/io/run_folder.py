"""Output folders whose files appear whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from warpwise.errors import InputError


def claim(path: Path, *, overwrite: bool) -> None:
    """Refuse a file that must not be written, before any work is done.

    Raises:
        InputError: it exists and `overwrite` is off, or its folder cannot hold it.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder; a file name is needed.")
    if path.exists() and not overwrite:
        raise InputError(f"{path}: exists already.", hint="Pass --overwrite to replace it.")
    _writable(path.parent)


def claim_folder(folder: Path, names: Sequence[str], *, overwrite: bool) -> None:
    """Refuse a folder in which one of the files exists, or that cannot be written to.

    Raises:
        InputError: see `claim`.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; a folder is needed.")
    taken = [name for name in names if (folder / name).exists()]
    if taken and not overwrite:
        raise InputError(f"{folder}: {', '.join(taken)} exists already.", hint="Pass --overwrite to replace it.")
    _writable(folder)


def _writable(folder: Path) -> None:
    here = folder
    while not here.exists() and here != here.parent:
        here = here.parent
    if not here.is_dir():
        raise InputError(f"{folder}: {here} is a file, not a folder.")
    if not os.access(here, os.W_OK | os.X_OK):
        raise InputError(f"{folder}: no permission to write in {here}.")


@contextmanager
def appearing(folder: Path) -> Generator[Path, None, None]:
    """A scratch folder beside the final place; at the end its files are renamed into `folder`, one by one.

    If anything fails, the scratch folder goes and what was in `folder` stays as it was.
    """
    existed = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".warpwise-", dir=folder))
    try:
        yield scratch
        for file in sorted(scratch.iterdir()):
            file.replace(folder / file.name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if not existed and not any(folder.iterdir()):
            folder.rmdir()
