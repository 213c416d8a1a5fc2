"""Locks on files, which the system drops when their process ends, whatever ends it."""

import errno
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

# What a file system says that keeps no locks, as some network and user-space ones do.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
_TRIES = 20


@dataclass(frozen=True, eq=False)
class Lock:
    """A lock that is held; its file goes when it is left.

    Attributes:
        path: its file.
        held: the system's lock, None where the file system keeps none: it then keeps nobody out.
    """

    path: Path
    held: BaseFileLock | None

    @classmethod
    def take(cls, path: Path) -> "Lock | None":
        """The lock of this name, without waiting; None where another holds it."""
        for _ in range(_TRIES):
            with path.open("a") as probe:
                lock = FileLock(path, fallback_to_soft=False)
                try:
                    lock.acquire(blocking=False)
                except Timeout:
                    return None
                except OSError as error:
                    if error.errno not in _NO_LOCKS:
                        raise
                    return cls(path, None)
                # Whoever left the lock in this moment took its file away: a lock on that one keeps nobody out.
                if _is_at(path, os.fstat(probe.fileno())):
                    return cls(path, lock)
            lock.release()
        return None

    def leave(self) -> None:
        """Give it back."""
        with suppress(PermissionError):  # Windows keeps a file that is open; filelock removes it once it is not
            self.path.unlink(missing_ok=True)
        if self.held is not None:
            self.held.release()


def _is_at(path: Path, opened: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.stat(), opened)
    except FileNotFoundError:
        return False
