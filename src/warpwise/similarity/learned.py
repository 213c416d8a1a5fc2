"""What a network sees of an image, compared by solvers beside intensities."""

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field, NonNegativeFloat

from warpwise.errors import InputError
from warpwise.ops import kernels
from warpwise.settings import AnyModel
from warpwise.shapes import Array, Channels
from warpwise.similarity.base import LinearMeasure
from warpwise.similarity.intensity import SquaredDifference
from warpwise.volume import Volume

if TYPE_CHECKING:
    from torch import Tensor

    from warpwise.alignment import Alignment


class LearnedFeatures(SquaredDifference):
    """Mean squared difference of learned features: an encoder's (`features`, `cascade`), or soft maps of a `segmentation`.

    Both images go through the network once, at its own spacing; at each of its scales a solver compares the octave of
    features whose nodes are about as far apart as its voxels, the finest one where voxels are finer. Features are brought
    to mean 0 and variance 1 over both objects, channel by channel, so that a weight means the same for every model; soft
    maps stay as they are, and count by the square root of the inverse of a structure's size, as Dice does.

    Attributes:
        model: an installed model's name, the folder of one or of a training run; in memory a `Model`.
        octaves: weight of each octave, fine to coarse, beside `weight`; the last one stands for all that are coarser, and
            1 where none is given.
        trusted: divide squared differences by the variances that the model tells of both images' features, averaged over
            each channel, in place of their spread: what it is unsure of counts less.
        least_mm: at scales whose voxels are smaller than this the term does not take part.

    Sources: Liu et al., IJCAI 2020, for features that are registered; here they are one term among others.
    """

    term: Literal["features"] = "features"
    model: AnyModel
    octaves: tuple[NonNegativeFloat, ...] = ()
    trusted: bool = False
    least_mm: float = Field(default=0.0, ge=0)
    linear: ClassVar[tuple[LinearMeasure, LinearMeasure]] = ("lncc", "mi")

    @property
    def key(self) -> str:
        """Under which a volume holds what this term compares."""
        name = str(self.model) if isinstance(self.model, str | Path) else f"model {id(self.model)}"
        return f"{name}{', trusted' if self.trusted else ''}"

    @property
    def trains(self) -> bool:
        return False

    def used_at(self, spacing_mm: float) -> bool:
        return spacing_mm >= self.least_mm

    def __call__(self, alignment: "Alignment") -> "Tensor":  # noqa: ARG002 - `trains` is false
        raise InputError("Features of a model are for solvers alone; nothing can be trained by them.")

    def channels(self, image: Channels) -> Array:  # noqa: ARG002 - see `channels_of`
        raise InputError("Features of a model come with a volume that it described, not with an image.")

    def channels_of(self, volume: Volume) -> Array:
        maps = volume.features.get(self.key, ())
        if not maps:
            raise InputError(f"The volume {volume.name or 'given'} holds no features of {self.key}.")
        several = [n > 1 for n in volume.shape]
        spacing = float(np.exp(np.mean(np.log(np.array(volume.grid.spacing_mm)[several]))))
        n = int(np.argmin([abs(np.log(found.spacing_mm / spacing)) for found in maps]))
        out = np.empty((len(maps[n].data), *volume.shape), np.float32)
        kernels.warp_affine(maps[n].data, (np.linalg.inv(maps[n].affine) @ volume.grid.affine)[:3], out=out)
        weight = self.octaves[min(n, len(self.octaves) - 1)] if self.octaves else 1.0
        out *= np.float32(np.sqrt(weight))
        return out

    @staticmethod
    def shared(shares: Array, channels: int) -> Array:
        """All features alike: none belongs to one channel of the image."""
        return np.full(channels, float(np.sum(shares)) / channels, np.float32)
