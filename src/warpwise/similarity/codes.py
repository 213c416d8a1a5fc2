"""Labels as channels that may be interpolated: one each, or a direction each in few dimensions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Codes:
    """What stands for each label.

    Attributes:
        values: (n,), labels in rising order; rows: (n, K), their codes. Every other label is coded by zeros.
    """

    values: NDArray[np.integer]
    rows: NDArray[np.float32]

    @classmethod
    def apart(cls, values: Sequence[int]) -> "Codes":
        """A channel for each of these labels, in their order."""
        order = np.argsort(np.asarray(values, np.int64))
        return cls(np.asarray(values, np.int64)[order], np.eye(len(values), dtype=np.float32)[order])

    @classmethod
    def grouped(cls, groups: Sequence[Sequence[int]]) -> "Codes":
        """A channel for each group of labels, in their order."""
        numbers = {int(value): n for n, group in enumerate(groups) for value in group}
        values = sorted(numbers)
        return cls(np.array(values, np.int64), np.eye(len(groups), dtype=np.float32)[[numbers[v] for v in values]])

    @classmethod
    def signed(cls, shares: dict[int, float], *, channels: int) -> "Codes":
        """Signs in so many channels, drawn for each label, at right angles on average: the squared distance of two labels
        is about as large as with a channel each (Johnson and Lindenstrauss, 1984).

        A code is as long as the root of the median size over the label's own, so that in a mean over voxels small
        structures count as much as large ones, as they do in Dice.

        Args:
            shares: mean voxels of each label.
        """
        values = sorted(shares)
        signs = np.random.default_rng(0).integers(0, 2, (len(values), channels)) * 2.0 - 1.0
        sizes = np.array([max(shares[k], 1.0) for k in values])
        lengths = np.sqrt(np.median(sizes) / sizes) if values else sizes
        return cls(np.array(values, np.int64), (signs * lengths[:, None] / np.sqrt(channels)).astype(np.float32))

    def numbers(self, labels: NDArray[np.integer]) -> NDArray[np.int64]:
        """The channel of each label of a map, counted from 1; 0 where it has none. For codes of a channel each."""
        channels = self.of(labels)
        return np.where(channels.any(0), channels.argmax(0) + 1, 0)

    def of(self, labels: NDArray[np.integer]) -> NDArray[np.float32]:
        """(K, …) of a map (…)."""
        if not len(self.values):
            return np.zeros((self.rows.shape[1], *labels.shape), np.float32)
        table = np.concatenate([np.zeros((1, self.rows.shape[1]), np.float32), self.rows])
        at = np.minimum(np.searchsorted(self.values, labels), len(self.values) - 1)
        at = np.where(self.values[at] == labels, at + 1, 0)
        return np.ascontiguousarray(np.moveaxis(table[at], -1, 0))


def encoded(
    fixed: NDArray[np.integer], moving: NDArray[np.integer], *, channels: int = 8
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Codes (K, …) of the labels that both maps (X, Y, Z) hold, 0 left out.

    Few labels get a channel each; many get directions in `channels` dimensions, at a fraction of the cost.
    """
    shared = np.intersect1d(np.unique(fixed), np.unique(moving))
    shared = shared[shared != 0]
    if len(shared) <= channels:
        rows = np.eye(max(len(shared), 1), dtype=np.float32)[: len(shared)]
    else:
        rows = np.random.default_rng(0).normal(size=(len(shared), channels)).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    codes = Codes(shared, rows)
    return codes.of(fixed), codes.of(moving)
