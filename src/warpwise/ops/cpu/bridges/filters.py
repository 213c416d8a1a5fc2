"""Gaussian and box, an axis at a time; `backward` is of stride 1."""

from collections.abc import Sequence

from warpwise.ops.cpu import launch
from warpwise.ops.cpu.bridges.arrays import stacked, triple
from warpwise.ops.cpu.launch.arrays import Array

Kinds = list[tuple[str, float]]


class Gaussian:
    """Gaussian of σ voxels an axis, every stride-th voxel kept."""

    @staticmethod
    def forward(image: Array, *, sigma: Sequence[float], stride: Sequence[int]) -> tuple[Array, None]:
        return filtered(image, kinds("gaussian", sigma), stride), None

    @staticmethod
    def backward(image: Array, *, gradient: Array, sigma: Sequence[float], **_: object) -> tuple[Array]:
        return (launch.separable_adjoint(stacked(gradient), kinds("gaussian", sigma)).reshape(image.shape),)


class Box:
    """Mean over windows of 2·radius + 1 voxels an axis."""

    @staticmethod
    def forward(image: Array, *, radius: Sequence[int]) -> tuple[Array, None]:
        return filtered(image, kinds("box", radius), [1] * len(radius)), None

    @staticmethod
    def backward(image: Array, *, gradient: Array, radius: Sequence[int], **_: object) -> tuple[Array]:
        return (launch.separable_adjoint(stacked(gradient), kinds("box", radius)).reshape(image.shape),)


def kinds(name: str, sizes: Sequence[float]) -> Kinds:
    """The filters of three axes, as kernels name them."""
    return [(name, float(size)) for size in triple([float(s) for s in sizes], 0.0)]


def filtered(image: Array, of_axes: Kinds, stride: Sequence[int]) -> Array:
    """image (B, C, *space) filtered."""
    out = launch.separable(stacked(image), of_axes, stride=triple(stride, 1))
    space = out.shape[1:] if image.ndim == 5 else (out.shape[1], out.shape[3])
    return out.reshape(*image.shape[:2], *space)
