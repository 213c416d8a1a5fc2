"""Comparison of feature maps."""

from collections.abc import Sequence

import numpy as np

from warpwise.ops.cpu import launch
from warpwise.ops.cpu.bridges.arrays import triple, volumes
from warpwise.ops.cpu.launch.arrays import Array


class CostVolume:
    """Products of features with those of neighbours."""

    @staticmethod
    def forward(fixed: Array, moving: Array, *, radius: Sequence[int]) -> tuple[Array, None]:
        pairs, box = zip(volumes(fixed), volumes(moving), strict=True), triple(radius, 0)
        out = np.stack([launch.cost_volume(f, m, radius=box) for f, m in pairs])
        return out.reshape(len(fixed), -1, *fixed.shape[2:]), None

    @staticmethod
    def backward(
        fixed: Array, moving: Array, *, gradient: Array, needs: Sequence[bool], radius: Sequence[int], **_: object
    ) -> tuple[Array | None, Array | None]:
        box = triple(radius, 0)

        def by(other: Array, *, by_fixed: bool) -> Array:
            pairs = zip(volumes(gradient), volumes(other), strict=True)
            parts = [launch.cost_volume_gradient(d, o, radius=box, by_fixed=by_fixed) for d, o in pairs]
            return np.stack(parts).reshape(other.shape)

        return by(moving, by_fixed=True) if needs[0] else None, by(fixed, by_fixed=False) if needs[1] else None
