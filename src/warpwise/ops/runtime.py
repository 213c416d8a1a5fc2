"""How kernels run: threads, compiled code, memory."""

from warpwise.ops.cpu.parallel import cache_note, compiled, get_threads, release_memory, set_threads

__all__ = ["cache_note", "compiled", "get_threads", "release_memory", "set_threads"]
