"""What is asked of features that are random variables: to agree where they are matched, to stay near a prior, to tell the
images they are of."""

from typing import TYPE_CHECKING, Literal

from warpwise import ops
from warpwise.terms.term import Loss

if TYPE_CHECKING:
    from torch import Tensor

    from warpwise.alignment import Alignment
    from warpwise.prediction import Features


def left(alignment: "Alignment", features: "Features") -> "Tensor":
    """The displacement that brings moving features onto fixed ones."""
    return alignment.displacement if features.left is None else features.left


class FeatureMatch(Loss):
    """Minus the log-likelihood, a dimension, that matched features are equal: ½·(Δμ²/s² + log s²), s² = σ_f² + σ_m².

    Without variances half of the mean squared difference. The displacement counts as given, so this moves features only:
    argmax p(f_s, f_t | φ), the features' own problem in Liu et al., IJCAI 2020. It gives variances their meaning: how far
    apart features of the same place are. 0 where the network tells no features.
    """

    term: Literal["feature-match"] = "feature-match"

    def __call__(self, alignment: "Alignment") -> "Tensor":
        from warpwise.prediction import at_octave  # noqa: PLC0415 - settings are read without torch

        total = alignment.displacement.new_zeros(())
        features = None if alignment.prediction is None else alignment.prediction.features
        if features is None:
            return total
        for octave, fixed, moving in features.octaves:
            warped = ops.warp(moving, at_octave(left(alignment, features).detach(), octave))
            if features.uncertain:
                total = total + unlike(fixed, warped, "overlap").mean()
            else:
                total = total + 0.5 * ops.mse(fixed, warped).mean()
        return total / len(features.octaves)


class FeatureEnergy(Loss):
    """E_D, by which features are registered: how unlike they are where the displacement brings them, a dimension, averaged
    over octaves, and over rounds, each by what it moves. 0 where the network tells no features.

    `mean`: Δ², of their means; `expected`: Δ² + σ_f² + σ_m², the mean over both posteriors; `symmetric_kl`: the mean of
    both divergences, ¼·[σ_f²/σ_m² + σ_m²/σ_f² − 2 + Δ²·(1/σ_f² + 1/σ_m²)], what the solver and the cascade look at, too
    (`ops.symmetric_kl`); `overlap`: Δ²/(2·(σ_f² + σ_m²)) + ½·log(σ_f² + σ_m²), minus the logarithm of the integral of
    their product, less a constant. Log-variances are what is moved, so variances stay positive. Whichever is taken, it is
    this level's objective alone: what is computed inside the network stays as `data` of the network has it.

    Source: Liu et al., IJCAI 2020, for an energy on features.
    """

    term: Literal["feature-energy"] = "feature-energy"
    data: Literal["mean", "expected", "symmetric_kl", "overlap"] = "symmetric_kl"

    def __call__(self, alignment: "Alignment") -> "Tensor":
        from warpwise.prediction import at_octave  # noqa: PLC0415 - settings are read without torch

        total = alignment.displacement.new_zeros(())
        features = None if alignment.prediction is None else alignment.prediction.features
        if features is None:
            return total
        for one in features.rounds:
            moved = left(alignment, one)
            for octave, fixed, moving in one.octaves:
                warped = ops.warp(moving, at_octave(moved, octave))
                each = unlike(fixed, warped, self.data) if one.uncertain else (fixed - warped) ** 2
                total = total + weighted(each, alignment, octave)
        return total / (len(features.octaves) * len(features.rounds))


def weighted(each: "Tensor", alignment: "Alignment", octave: int) -> "Tensor":
    """The mean of values at an octave, over the voxels of it that count."""
    if alignment.mask is None:
        return each.mean()
    every = (slice(None), slice(None), *[slice(None, None, 2**octave)] * (each.dim() - 2))
    weight = alignment.mask[every].expand_as(each)
    return (each * weight).sum() / weight.sum().clamp(min=1)


def unlike(fixed: "Tensor", warped: "Tensor", data: str) -> "Tensor":
    """How unlike Gaussians (B, 2C, *space) of each voxel are, dimension by dimension; see `FeatureEnergy`."""
    import torch  # noqa: PLC0415 - settings are read without torch

    from warpwise.ops.reference.matching import divergence  # noqa: PLC0415 - likewise

    if data == "symmetric_kl":
        return divergence(fixed, warped)
    (mf, lf), (mw, lw) = fixed.chunk(2, 1), warped.chunk(2, 1)
    square = (mf - mw) ** 2
    if data == "mean":
        return square
    if data == "expected":
        return square + lf.exp() + lw.exp()
    spread = torch.logaddexp(lf, lw)
    return 0.5 * (square * (-spread).exp() + spread)


class Reconstruction(Loss):
    """Mean squared difference of the images at each octave and what a decoder tells of their features, over octaves and
    rounds: minus the log-likelihood of a voxel under noise of variance ½. 0 where there is no decoder.

    It is a mean over channels of the image, the prior one over dimensions of the features: with K of these beside one
    channel, a weight β/K of the prior makes both one bound with the β of the paper.
    """

    term: Literal["reconstruction"] = "reconstruction"

    def __call__(self, alignment: "Alignment") -> "Tensor":
        total = alignment.displacement.new_zeros(())
        features = None if alignment.prediction is None else alignment.prediction.features
        if features is None or not features.unexplained:
            return total
        for one in features.rounds:
            for rest in one.unexplained:
                total = total + (rest**2).mean()
        return total / (len(features.unexplained) * len(features.rounds))


def from_prior(one: "Tensor") -> "Tensor":
    """KL divergence of Gaussians (B, 2C, *space) from N(0, I) at each voxel, dimension by dimension, nats."""
    mean, log_variance = one.chunk(2, 1)
    return 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance)


def divergences(features: "Features") -> "dict[str, Tensor]":
    """KL divergence from N(0, I) of each channel of each octave, nats, both images: by `octave.channel`, 0-dim each."""
    out: dict[str, Tensor] = {}
    rounds = features.rounds if features.uncertain else ()
    for octave, *both in (octave for one in rounds for octave in one.octaves):
        for one in both:
            each = from_prior(one.detach().float()) / (2 * len(rounds))
            for n, value in enumerate(each.transpose(0, 1).flatten(1).mean(1)):
                name = f"{octave}.{n}"
                out[name] = out[name] + value if name in out else value
    return out


def told(features: "Features") -> "dict[str, Tensor]":
    """What each channel of each octave tells of where it is, nats: by `octave.channel`, 0-dim each.

    ½·log(1 + variance of the mean from voxel to voxel / mean of the variance), the information of a Gaussian channel; in
    the last round. It is 0 of features that are the same everywhere, whatever their divergence from the prior.
    """
    import torch  # noqa: PLC0415 - solvers read this module without it

    out: dict[str, Tensor] = {}
    for octave, *both in features.octaves if features.uncertain else ():
        mean, log_variance = torch.cat([one.detach().float() for one in both]).chunk(2, 1)
        spread = mean.transpose(0, 1).flatten(1).var(1)
        noise = log_variance.exp().transpose(0, 1).flatten(1).mean(1)
        out |= {f"{octave}.{n}": value for n, value in enumerate(0.5 * torch.log1p(spread / noise))}
    return out


class FeaturePrior(Loss):
    """KL divergence of the features' posterior from N(0, I), nats a dimension, both images, every round; its weight is β.

    Source: Liu et al., IJCAI 2020. 0 where features have no variance.
    """

    term: Literal["feature-prior"] = "feature-prior"

    def __call__(self, alignment: "Alignment") -> "Tensor":
        total = alignment.displacement.new_zeros(())
        features = None if alignment.prediction is None else alignment.prediction.features
        if features is None or not features.uncertain:
            return total
        for _, *both in (octave for one in features.rounds for octave in one.octaves):
            for one in both:
                total = total + 0.5 * from_prior(one).mean()
        return total / (len(features.octaves) * len(features.rounds))
