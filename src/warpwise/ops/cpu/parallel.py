"""Run a compiled loop over slabs on a few threads, with a result that does not depend on how many.

A kernel is a numba function that releases the GIL and whose last two arguments are the first slab
and the slab after the last. It may write only to its own slabs; a reduction writes one partial sum
a slab, and the caller adds them up in order. So the split into ranges cannot change a bit.

Plain threads instead of numba's `prange`: they compile three times faster, are safe under
concurrent callers, and need no OpenMP runtime beside PyTorch's.
"""

import ctypes
import os
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numba

# Loops over many arrays vectorise only if LLVM may check at run time that they do not overlap; its default of
# 8 checks is too few for our sums of products (LNCC: 2.4 times slower).
llvm.set_option("warpwise", "-runtime-memory-check-threshold=200")
llvm.set_option("warpwise", "-memory-check-merge-threshold=200")

# Sums may be reordered and multiply-adds contracted, so that loops vectorise; NaN and infinity keep
# their meaning, because a diverging step must be seen.
FAST = {"reassoc", "contract", "arcp", "nsz"}

SMALL = 20_000  # numbers; below, handing work to another thread takes longer than the work

_lock = threading.Lock()
_libc = ctypes.CDLL(None) if os.name == "posix" else None
_pool: ThreadPoolExecutor | None = None
_threads = max(1, min(16, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1))


def kernel(function: Callable[..., Any]) -> Any:
    """Compile `function` on first use, without the GIL, and keep the machine code on disk."""
    return numba.njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")(function)


def helper(function: Callable[..., Any]) -> Any:
    """Compile a piece that is merged into every kernel that calls it.

    Merged always, not where LLVM finds it worth while: a call that stays goes to a symbol that kernels share, and which of
    its definitions answers, each optimised in another place, depends on what this process compiled and what it loaded from
    disk. The first run then differed from the second in the last bits.
    """
    return numba.njit(nogil=True, fastmath=FAST, error_model="numpy", forceinline=True)(function)


def compiled() -> bool:
    """Whether machine code of these kernels is on disk already."""
    folder = Path(numba.config.CACHE_DIR) if numba.config.CACHE_DIR else Path(__file__).parent / "__pycache__"
    return any(folder.rglob("*.nbi"))


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _cache_folder() -> str:
    """Where machine code cannot be kept, keep it in a temporary folder; what to say about it."""
    home = Path.home() / ".cache"
    places = [Path(__file__).parent, home if home.exists() else home.parent]
    if numba.config.CACHE_DIR:
        places = [Path(numba.config.CACHE_DIR)]
    if any(_writable(place) for place in places):
        return ""
    numba.config.CACHE_DIR = tempfile.mkdtemp(prefix="warpwise-numba-")
    return f"{places[0]} cannot be written to; compiled kernels are kept in {numba.config.CACHE_DIR} for this run."


_note = _cache_folder()


def cache_note() -> str:
    """A line about where machine code is kept, if it is not where it should be."""
    return _note


def release_memory() -> None:
    """Give freed memory back to the system where the C library can: many runs in one process then stay as small as one."""
    trim = getattr(_libc, "malloc_trim", None)
    if trim is not None:
        trim(0)


def set_threads(number: int) -> None:
    """Use this many threads from now on."""
    global _threads, _pool
    with _lock:
        _threads = max(1, number)
        if _pool is not None:
            _pool.shutdown()
            _pool = None


def get_threads() -> int:
    """How many threads kernels use."""
    return _threads


def _executor() -> ThreadPoolExecutor:
    global _pool
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(_threads, thread_name_prefix="warpwise")
        return _pool


def run(loop: Callable[..., Any], slabs: int, *arguments: Any) -> None:
    """Call `loop(*arguments, start, stop)` so that the ranges cover 0 … slabs."""
    threads = min(_threads, slabs)
    if threads <= 1 or max(getattr(a, "size", 0) for a in arguments) < SMALL:
        loop(*arguments, 0, slabs)
        return
    # Whoever is free takes the next range, so that a core that is busy elsewhere holds nobody up.
    parts = min(slabs, 4 * threads)
    edges = [slabs * part // parts for part in range(parts + 1)]
    turns = count()

    def work() -> None:
        while (part := next(turns)) < parts:
            loop(*arguments, edges[part], edges[part + 1])

    executor = _executor()
    helpers = [executor.submit(work) for _ in range(threads - 1)]
    work()
    for helping in helpers:
        if not helping.cancel():
            helping.result()
