"""Output folders whose files appear whole or not at all."""

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from warpwise.errors import InputError

LOCK = ".warpwise.lock"
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
def appearing(folder: Path, *, last: str = "") -> Generator[Path, None, None]:
    """A scratch folder beside the final place; at the end its files are renamed into `folder`, one by one.

    If anything fails, the scratch folder goes and what was in `folder` stays as it was. What a killed process left is
    cleared away. The file named `last` appears after all others: where it is, the rest is complete.
    """
    existed = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    clear_remains(folder)
    scratch = Path(tempfile.mkdtemp(prefix=f"{_SCRATCH}{_host()}-{os.getpid()}-", dir=folder))
    try:
        yield scratch
        for file in sorted(scratch.rglob("*"), key=lambda file: (file.name == last, file.name)):
            if file.is_file():
                place = folder / file.relative_to(scratch)
                place.parent.mkdir(exist_ok=True)
                file.replace(place)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if not existed and not any(folder.iterdir()):
            folder.rmdir()


def clear_remains(folder: Path) -> None:
    """Remove the scratch folders of processes of this machine that are no more."""
    for left in folder.glob(f"{_SCRATCH}{_host()}-*"):
        pid = left.name.removeprefix(f"{_SCRATCH}{_host()}-").split("-")[0]
        if pid.isdigit() and not _alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def locked(folder: Path) -> Generator[None, None, None]:
    """Keep a run folder for this process; the lock of a process that is no more counts for nothing.

    Raises:
        InputError: another process works there.
    """
    existed = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / LOCK
    mine = json.dumps({"pid": os.getpid(), "host": _host(), "began": _began(os.getpid())})
    for _ in range(2):
        try:
            with lock.open("x", encoding="utf-8") as file:
                file.write(mine)
            break
        except FileExistsError:
            if _held(lock):
                raise InputError(
                    f"{folder}: another process works here ({_owner(lock)}).",
                    hint=f"Wait for it, choose another folder, or delete {LOCK} if that process is gone.",
                ) from None
            lock.unlink(missing_ok=True)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        if not existed and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _host() -> str:
    return socket.gethostname() or "localhost"


def _content(lock: Path) -> dict[str, object]:
    try:
        found = json.loads(lock.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}  # type: ignore[reportUnknownVariableType]


def _owner(lock: Path) -> str:
    found = _content(lock)
    return f"process {found.get('pid')} on {found.get('host')}"


def _held(lock: Path) -> bool:
    """Whether the lock's owner is at work, as far as can be told: of other machines it is believed."""
    found = _content(lock)
    pid, host = found.get("pid"), found.get("host")
    if not isinstance(pid, int):
        return False
    if host != _host():
        return True
    # A number is given out again: the process is the same only if it began at the same moment.
    return _alive(pid) and found.get("began") == _began(pid)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _began(pid: int) -> str:
    """When a process began, in ticks since the system did; empty where the system does not say."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return ""
