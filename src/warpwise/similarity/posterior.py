"""What is asked of features that are random variables: that they agree where they are matched, and stay near a prior."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from warpwise.terms.term import Loss

if TYPE_CHECKING:
    from torch import Tensor

    from warpwise.alignment import Alignment

FIXED, MOVING, VARIED = "fixed_features_", "moving_features_", "features_have_variance"
"""How a prediction names features: octave by octave, and the mark of those that have a variance."""


def octaves(said: "Mapping[str, Tensor]") -> "list[tuple[int, Tensor, Tensor]]":
    """(octave, fixed features, moving features) of a prediction."""
    return [(int(k.removeprefix(FIXED)), said[k], said[k.replace(FIXED, MOVING)]) for k in said if k.startswith(FIXED)]


def at_octave(displacement: "Tensor", octave: int) -> "Tensor":
    """A displacement at every 2^octave-th voxel, in those."""
    every = (slice(None), slice(None), *[slice(None, None, 2**octave)] * (displacement.dim() - 2))
    return (displacement[every] / 2**octave).contiguous()


def varied(said: "Mapping[str, Tensor]") -> bool:
    """Whether the second half of the features' channels are log-variances."""
    return VARIED in said


class FeatureMatch(Loss):
    """Minus the log-likelihood, a dimension, that matched features are equal: ½·(Δμ²/s² + log s²), s² = σ_f² + σ_m².

    Without variances half of the mean squared difference. The displacement counts as given, so this moves features only:
    the lower level, argmax p(f_s, f_t | φ), of Liu et al., IJCAI 2020. It gives variances their meaning: how far apart
    features of the same place are. 0 where the network tells no features.
    """

    term: Literal["feature-match"] = "feature-match"

    def __call__(self, alignment: "Alignment") -> "Tensor":
        import torch  # noqa: PLC0415 - settings are read without torch

        from warpwise import ops  # noqa: PLC0415

        total = alignment.displacement.new_zeros(())
        found = octaves(alignment.prediction)
        for octave, fixed, moving in found:
            warped = ops.warp(moving, at_octave(alignment.displacement.detach(), octave))
            if not varied(alignment.prediction):
                total = total + 0.5 * ops.mse(fixed, warped).mean()
                continue
            (mf, lf), (mw, lw) = fixed.chunk(2, 1), warped.chunk(2, 1)
            spread = torch.logaddexp(lf, lw)
            total = total + 0.5 * ((mf - mw) ** 2 * (-spread).exp() + spread).mean()
        return total / max(len(found), 1)


class FeaturePrior(Loss):
    """KL divergence of the features' posterior from N(0, I), nats a dimension, both images; its weight is β.

    Source: Liu et al., IJCAI 2020. 0 where features have no variance.
    """

    term: Literal["feature-prior"] = "feature-prior"

    def __call__(self, alignment: "Alignment") -> "Tensor":
        total = alignment.displacement.new_zeros(())
        found = octaves(alignment.prediction)
        if not varied(alignment.prediction):
            return total
        for _, *both in found:
            for features in both:
                mean, log_variance = features.chunk(2, 1)
                total = total + 0.25 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
        return total / max(len(found), 1)
