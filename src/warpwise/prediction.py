"""What a network says of a fixed and a moving image, field by field.

Named tuples rather than dataclasses: Fabric, DDP and `torch.export` take them apart and put them together again, and
Fabric refuses frozen dataclasses.
"""

from typing import NamedTuple

from torch import Tensor
from torch.utils import _pytree


class Posterior(NamedTuple):
    """A diagonal Gaussian of the velocity, or of the last update: (B, D, *nodes) each."""

    mean: Tensor
    log_variance: Tensor


class FeatureOctave(NamedTuple):
    """Features of both images (B, C, *nodes) at every 2^octave-th voxel."""

    octave: int
    fixed: Tensor
    moving: Tensor


class Features(NamedTuple):
    """Features that were registered, fine to coarse.

    Attributes:
        octaves: one after the other, the finest first.
        uncertain: whether the first half of the channels are means and the second their log-variances.
        left: (B, D, *space), voxels: the displacement that brings *these* moving features onto the fixed ones, where they
            are of a moving image that was moved before; None: the whole displacement.
        unexplained: what a decoder of the features leaves of both images, at each octave (2B, C, *nodes).
        before: features of the rounds before, first to last, and what was left then.
    """

    octaves: tuple[FeatureOctave, ...]
    uncertain: bool
    left: Tensor | None = None
    unexplained: tuple[Tensor, ...] = ()
    before: tuple["Features", ...] = ()

    @property
    def rounds(self) -> tuple["Features", ...]:
        """The features of every round."""
        return (*self.before, self)


class Stage(NamedTuple):
    """What is known after a stage of a network that registers in several: at every 2^octave-th voxel, in those.

    Attributes:
        displacement: (B, D, *nodes), all of it so far.
        velocity: (B, D, *nodes), whose exponential the stage brought, or all of it where that is one exponential.
    """

    octave: int
    displacement: Tensor
    velocity: Tensor


class Prediction(NamedTuple):
    """What a network predicts; None where it does not.

    Attributes:
        displacement: (B, D, *space), voxels.
        inverse: (B, D, *space), the displacement of the inverse map, of networks that cannot but make one.
        velocity: (B, D, *nodes), whose exponential is the displacement at those nodes, in voxels of theirs.
        posterior: of the velocity; where there is no velocity, of the last update.
        labels: (B, K, *space), logits of the fixed image's labels, background first.
        features: of both images.
        diffusion: 0-dim, weight of the diffusion energy in the registration of the finest octave of features.
        stiffness: (B, 1, *space), the map w(x) that weighs smoothness.
        stages: what was known after each, first to last, of networks that register in several; of one round alone.
    """

    displacement: Tensor
    inverse: Tensor | None = None
    velocity: Tensor | None = None
    posterior: Posterior | None = None
    labels: Tensor | None = None
    features: Features | None = None
    diffusion: Tensor | None = None
    stiffness: Tensor | None = None
    stages: tuple[Stage, ...] = ()


def at_octave(displacement: Tensor, octave: int) -> Tensor:
    """A displacement at every 2^octave-th voxel, in those."""
    every = (slice(None), slice(None), *[slice(None, None, 2**octave)] * (displacement.dim() - 2))
    return (displacement[every] / 2**octave).contiguous()


def octave_of(nodes: int, voxels: int) -> int:
    """The octave at which an axis of so many voxels has so many nodes.

    Example:
        >>> octave_of(4, 13)
        2
    """
    octave = 0
    while -(-voxels // 2**octave) > nodes:
        octave += 1
    return octave


for _kind in (Posterior, FeatureOctave, Features, Stage, Prediction):
    # PyTorch knows every named tuple; a name lets an exported program that returns one be written to a file.
    _pytree._register_namedtuple(_kind, serialized_type_name=f"warpwise.{_kind.__name__}")  # pyright: ignore[reportPrivateUsage]
