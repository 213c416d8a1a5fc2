"""How landmarks pull at a field: smooth steps that bring points together, bounded like every other step."""

import numpy as np
from numpy.typing import NDArray

from warpwise.pair import Pair
from warpwise.shapes import Points, Triple, VectorField
from warpwise.similarity.landmarks import Landmarks, residuals
from warpwise.transforms.displacement import interpolated

WIDTH = 4.0  # nodes: standard deviation of the Gaussian by which a point takes its surroundings along
RIDGE = 0.3  # on the kernel's diagonal of 1: points that contradict each other meet half-way
REACH = 3.0  # standard deviations until a Gaussian counts as 0


class Pull:
    """The landmark term at one scale.

    A step is the smoothest field (in the space of Gaussian kernels) that closes a share of every gap: a Gauss-Newton
    step in that space, where the plain gradient would move single voxels.
    """

    def __init__(self, pair: Pair, landmarks: Landmarks, factors: Triple) -> None:
        assert pair.fixed.points is not None
        self.pair, self.landmarks = pair, landmarks
        self.factors = np.array(factors, np.float64)
        self.nodes = pair.fixed.points / self.factors
        apart = np.square(self.nodes[:, None] - self.nodes).sum(-1)
        self.kernel = np.exp(-apart / (2 * WIDTH**2)) + RIDGE * np.eye(len(apart))
        self.share = landmarks.weight / (1 + landmarks.weight)
        self._wanted = np.zeros_like(self.nodes)

    def look(self, displacement: VectorField) -> float:
        """Judge a displacement (3, x, y, z; voxels of the nodes): its energy."""
        pair = self.pair
        assert pair.fixed.points is not None
        moved = pair.fixed.points + interpolated(displacement, self.nodes) * self.factors
        off = residuals(pair, moved, pair.to_moving)
        self._wanted = -np.linalg.solve(pair.to_moving[:3, :3], off.T).T / self.factors
        return self.landmarks.energy(pair, off)

    def add(self, step: VectorField, *, cap: float) -> None:
        """Add to a step, in place, what closes the gaps last looked at; no part of it is longer than `cap`."""
        weights = np.linalg.solve(self.kernel, self.share * self._wanted)
        pulled = np.zeros_like(step)
        for at, weight in zip(self.nodes, weights, strict=True):
            box, kernel = patch(at, step.shape[1:])
            pulled[(slice(None), *box)] += (weight[:, None, None, None] * kernel).astype(np.float32)
        longest = float(np.sqrt(np.square(pulled).sum(0).max()))
        step += pulled * np.float32(min(1.0, cap / max(longest, 1e-12)))


def patch(centre: Points, shape: tuple[int, ...]) -> tuple[tuple[slice, ...], NDArray[np.float64]]:
    """The nodes round a point that a Gaussian reaches, and its values there."""
    boxes: list[slice] = []
    rows: list[NDArray[np.float64]] = []
    for c, n in zip(centre, shape, strict=True):
        low = int(np.clip(np.floor(c - REACH * WIDTH), 0, n - 1))
        high = int(np.clip(np.ceil(c + REACH * WIDTH) + 1, low + 1, n))
        boxes.append(slice(low, high))
        rows.append(np.exp(-((np.arange(low, high) - c) ** 2) / (2 * WIDTH**2)) if n > 1 else np.ones(1))
    return tuple(boxes), rows[0][:, None, None] * rows[1][:, None] * rows[2]
