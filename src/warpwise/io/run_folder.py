"""Output folders whose files appear whole or not at all."""

import json
import os
import secrets
import shutil
import socket
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from warpwise.errors import InputError
from warpwise.io.locks import Lock

LOCK, OWNER = ".warpwise.lock", ".warpwise.owner"
_SCRATCH = ".warpwise-"


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


def room_on_disk(folder: Path, needed: float) -> None:
    """Refuse a folder whose disk cannot hold the results.

    Args:
        folder: where they go; it need not exist yet.
        needed: bytes that the results take at least.

    Raises:
        InputError: less is free.
    """
    here = folder
    while not here.exists() and here != here.parent:
        here = here.parent
    free = shutil.disk_usage(here).free
    if free < needed:
        raise InputError(
            f"{folder}: the results need about {needed / 1e6:.0f} MB and {free / 1e6:.0f} MB are free on its disk."
        )


@contextmanager
def appearing(folder: Path, *, last: str = "", without: Sequence[str] = ()) -> Generator[Path, None, None]:
    """A scratch folder beside the final place; at the end its files are renamed into `folder`, one by one.

    If anything fails, the scratch folder goes and what was in `folder` stays as it was. What a killed process left is
    cleared away. The file named `last` appears after all others: where it is, the rest is complete;
    what is named in `without` and was not written anew is of an earlier run, and goes.
    """
    existed = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    clear_remains(folder)
    scratch, lock = _scratch(folder)
    try:
        yield scratch
        for name in without:
            if not (scratch / name).exists():
                remove(folder / name)
        for file in sorted(scratch.rglob("*"), key=lambda file: (file.name == last, file.name)):
            if file.is_file():
                place = folder / file.relative_to(scratch)
                place.parent.mkdir(exist_ok=True)
                file.replace(place)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        lock.leave()
        if not existed and not any(folder.iterdir()):
            folder.rmdir()


def remove(path: Path) -> None:
    """A file or a folder, where it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _scratch(folder: Path) -> tuple[Path, Lock]:
    """A new scratch folder, and the lock beside it that tells others that its process lives."""
    while True:
        scratch = folder / f"{_SCRATCH}{_host()}-{secrets.token_hex(6)}"
        # The lock comes first: a scratch folder without one is what a killed process left.
        lock = Lock.take(_lock_of(scratch))
        if lock is not None:
            scratch.mkdir()
            return scratch, lock


def _lock_of(scratch: Path) -> Path:
    return scratch.with_name(f"{scratch.name}.lock")


def clear_remains(folder: Path) -> None:
    """Remove the scratch folders of processes of this machine that are no more."""
    for left in {path.with_name(path.name.removesuffix(".lock")) for path in folder.glob(f"{_SCRATCH}{_host()}-*")}:
        lock = Lock.take(_lock_of(left))
        if lock is not None:
            if lock.held is not None:
                shutil.rmtree(left, ignore_errors=True)
            lock.leave()


@contextmanager
def locked(folder: Path) -> Generator[None, None, None]:
    """Keep a run folder for this process; the lock of a process of this machine that is no more counts for nothing.

    Raises:
        InputError: another process works there.
    """
    existed = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / OWNER
    lock = Lock.take(folder / LOCK)
    if lock is None:
        raise InputError(f"{folder}: another process works here ({_owner(note)}).", hint="Wait, or choose another folder.")
    # The locks of other machines do not always reach this one: where one left its name, it is believed.
    if note.exists() and (lock.held is None or _noted(note).get("host", _host()) != _host()):
        lock.leave()
        raise InputError(
            f"{folder}: another process works here ({_owner(note)}).",
            hint=f"Wait for it, choose another folder, or delete {OWNER} if that process is gone.",
        )
    try:
        note.write_text(json.dumps({"pid": os.getpid(), "host": _host()}), encoding="utf-8")
        yield
    finally:
        note.unlink(missing_ok=True)
        lock.leave()
        if not existed and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _host() -> str:
    return socket.gethostname() or "localhost"


def _noted(note: Path) -> dict[str, object]:
    try:
        content = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}  # type: ignore[reportUnknownVariableType]


def _owner(note: Path) -> str:
    content = _noted(note)
    return f"process {content['pid']} on {content['host']}" if {"pid", "host"} <= content.keys() else "which left no name"
