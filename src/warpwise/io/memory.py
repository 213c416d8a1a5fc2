"""Memory of this process and its machine, as far as the system tells."""

import sys
from pathlib import Path


def peak_memory_mb() -> float:
    """The most memory this process has held; 0 where the system does not say."""
    try:
        # The kernel's own mark of this program; the one of getrusage is inherited from whoever started it.
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return round(float(line.split()[1]) * 1024 / 1e6, 1)
    except OSError:
        pass
    try:
        import resource  # noqa: PLC0415 - not on every system
    except ImportError:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6, 1)


def free_memory() -> float:
    """Bytes that can be used now: what the system, the process's limit and its container leave; infinite if none says."""
    return min(_system_memory(), _limit_of_process(), _limit_of_container())


def _system_memory() -> float:
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        line = next(row for row in text.splitlines() if row.startswith("MemAvailable"))
        return float(line.split()[1]) * 1024
    except (OSError, StopIteration):
        return float("inf")


def _limit_of_process() -> float:
    try:
        import resource  # noqa: PLC0415 - not on every system

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    except (ImportError, OSError, ValueError):
        return float("inf")
    return float("inf") if limit == resource.RLIM_INFINITY else max(float(limit - used), 0.0)


def _limit_of_container() -> float:
    try:
        folder = Path("/sys/fs/cgroup")
        limit = (folder / "memory.max").read_text(encoding="ascii").strip()
        used = float((folder / "memory.current").read_text(encoding="ascii"))
        return float("inf") if limit == "max" else max(float(limit) - used, 0.0)
    except (OSError, ValueError):
        return float("inf")
