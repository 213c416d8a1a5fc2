"""What is asked of features that are random variables: that they agree where they are matched, and stay near a prior."""

from dataclasses import dataclass

import torch
from torch import Tensor

from warpwise import ops
from warpwise.alignment import Alignment
from warpwise.prediction import at_octave


@dataclass(frozen=True)
class FeatureMatch:
    """Minus the log-likelihood, a dimension, that matched features are equal: ½·(Δμ²/s² + log s²), s² = σ_f² + σ_m².

    Without variances half of the mean squared difference. The displacement counts as given, so this moves features only:
    the lower level, argmax p(f_s, f_t | φ), of Liu et al., IJCAI 2020. It gives variances their meaning: how far apart
    features of the same place are. 0 where the network tells no features.
    """

    def __call__(self, alignment: Alignment) -> Tensor:
        """0-dim tensor, nats."""
        total = alignment.displacement.new_zeros(())
        features = None if alignment.prediction is None else alignment.prediction.features
        if features is None:
            return total
        for octave, fixed, moving in features.octaves:
            warped = ops.warp(moving, at_octave(alignment.displacement.detach(), octave))
            if not features.uncertain:
                total = total + 0.5 * ops.mse(fixed, warped).mean()
                continue
            (mf, lf), (mw, lw) = fixed.chunk(2, 1), warped.chunk(2, 1)
            spread = torch.logaddexp(lf, lw)
            total = total + 0.5 * ((mf - mw) ** 2 * (-spread).exp() + spread).mean()
        return total / len(features.octaves)


@dataclass(frozen=True)
class FeaturePrior:
    """KL divergence of the features' posterior from N(0, I), nats a dimension, both images; its weight is β.

    Source: Liu et al., IJCAI 2020. 0 where features have no variance.
    """

    def __call__(self, alignment: Alignment) -> Tensor:
        """0-dim tensor."""
        total = alignment.displacement.new_zeros(())
        features = None if alignment.prediction is None else alignment.prediction.features
        if features is None or not features.uncertain:
            return total
        for _, *both in features.octaves:
            for one in both:
                mean, log_variance = one.chunk(2, 1)
                total = total + 0.25 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
        return total / len(features.octaves)
