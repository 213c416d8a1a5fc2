"""What is asked of features that are random variables: that they agree where they are matched, and stay near a prior."""

from typing import TYPE_CHECKING, Literal

from warpwise import ops
from warpwise.terms.term import Loss

if TYPE_CHECKING:
    from torch import Tensor

    from warpwise.alignment import Alignment


class FeatureMatch(Loss):
    """Minus the log-likelihood, a dimension, that matched features are equal: ½·(Δμ²/s² + log s²), s² = σ_f² + σ_m².

    Without variances half of the mean squared difference. The displacement counts as given, so this moves features only:
    argmax p(f_s, f_t | φ), the features' own problem in Liu et al., IJCAI 2020. It gives variances their meaning: how far
    apart features of the same place are. 0 where the network tells no features.
    """

    term: Literal["feature-match"] = "feature-match"

    def __call__(self, alignment: "Alignment") -> "Tensor":
        import torch  # noqa: PLC0415 - settings are read without torch

        from warpwise.prediction import at_octave  # noqa: PLC0415 - likewise

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


class FeaturePrior(Loss):
    """KL divergence of the features' posterior from N(0, I), nats a dimension, both images; its weight is β.

    Source: Liu et al., IJCAI 2020. 0 where features have no variance.
    """

    term: Literal["feature-prior"] = "feature-prior"

    def __call__(self, alignment: "Alignment") -> "Tensor":
        total = alignment.displacement.new_zeros(())
        features = None if alignment.prediction is None else alignment.prediction.features
        if features is None or not features.uncertain:
            return total
        for _, *both in features.octaves:
            for one in both:
                mean, log_variance = one.chunk(2, 1)
                total = total + 0.25 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
        return total / len(features.octaves)
