"""Machine code that was just compiled and machine code that was loaded from disk compute the same bits."""

import os
import subprocess
import sys
from pathlib import Path

# Kernels whose helpers are too long for LLVM to merge them unasked.
SCRIPT = """
import hashlib
import numpy as np
from warpwise.ops import kernels
draw = np.random.default_rng(0)
fixed, moving = (draw.random((2, 61, 1, 73), np.float32) for _ in range(2))
u, v = (draw.random((3, 61, 1, 73), np.float32) for _ in range(2))
weight = draw.random((1, 61, 1, 73), np.float32)
slopes = kernels.match_gradient(fixed, moving, weight, (u[:2], v[:2]), u, v, probabilistic=True)
sums = kernels.normal_equations(fixed[0], moving[0], weight[0])
print(*[hashlib.sha256(array.tobytes()).hexdigest() for array in (*sums, *slopes)])
"""


def hashes(cache: Path) -> list[str]:
    """What a new process computes with machine code kept in `cache`."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_the_first_process_computes_the_same_bits_as_the_second(tmp_path: Path):
    first = hashes(tmp_path)
    assert list(tmp_path.rglob("*.nbi"))
    assert hashes(tmp_path) == first
