"""The prior of a network's posterior."""

from typing import TYPE_CHECKING, Literal

from warpwise import ops
from warpwise.terms.term import Loss

if TYPE_CHECKING:
    from torch import Tensor

    from warpwise.alignment import Alignment


class KullbackLeibler(Loss):
    """KL divergence of N(μ, σ²) from a prior whose precision is λ times the grid's graph Laplacian, a node and axis.

    ½·(λ·degree·σ² − log σ²) + ½·λ·Σ over edges (μ_i − μ_j)²; constants are left out. 0 where there is no posterior.

    Source: Dalca et al., Medical Image Analysis 2019, with λ 10 … 25.
    """

    term: Literal["kl"] = "kl"
    precision: float = 10.0

    def __call__(self, alignment: "Alignment") -> "Tensor":
        prediction = alignment.prediction
        if prediction is None or prediction.posterior is None:
            return alignment.displacement.new_zeros(())
        mean, log_variance = prediction.posterior
        dim = mean.shape[1]
        spread = self.precision * 2 * dim * log_variance.exp() - log_variance
        return 0.5 * spread.mean() + 0.5 * self.precision * ops.diffusion(mean).mean() / dim
