"""A bound on roughness: what an objective is allowed to pay for what it gets."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from warpwise.terms.term import Loss

if TYPE_CHECKING:
    from torch import Tensor

    from warpwise.alignment import Alignment

LEAST = 0.02  # of a determinant in a logarithm


class Budget(Loss):
    """A hinge: 0 up to the bound, beyond it the squared share by which it is exceeded.

    Attributes:
        measure: sd_log_jacobian, as evaluations report it: over the voxels of those of the fixed image's labels that take
            part, where labels are known, else over all that both images show; where det J < 0.02 its logarithm goes on
            straight, so that folds can be undone; diffusion, mean ‖∇u‖²; or folded, the mean of max(0, −det J).
        at_most: the bound.
    """

    term: Literal["budget"] = "budget"
    measure: Literal["sd_log_jacobian", "diffusion", "folded"] = "sd_log_jacobian"
    at_most: float = Field(default=0.5, gt=0)

    def __call__(self, alignment: "Alignment") -> "Tensor":
        return (self.measured(alignment) / self.at_most - 1).clamp(min=0) ** 2

    def measured(self, alignment: "Alignment") -> "Tensor":
        """What is bounded, 0-dim, of all pairs together."""
        from warpwise import ops  # noqa: PLC0415 - settings are read without torch

        if self.measure == "diffusion":
            return ops.diffusion(alignment.displacement).mean()
        determinant = ops.jacobian_determinant(alignment.displacement)
        if self.measure == "folded":
            return (-determinant).clamp(min=0).mean()
        least = determinant.clamp(min=LEAST)
        logarithm = least.log() + (determinant - least) / LEAST
        weight = logarithm.new_ones(()) if alignment.mask is None else alignment.mask[:, 0]
        weight = weight.expand_as(logarithm)
        if alignment.fixed_labels is not None:
            inside = weight * alignment.fixed_labels.abs().sum(1).clamp(max=1)
            some = inside.flatten(1).sum(1) >= 1  # a window may show none of them
            weight = inside.where(some.reshape(-1, *[1] * (inside.dim() - 1)), weight)
        total = weight.flatten(1).sum(1).clamp(min=1)
        shape = (-1, *[1] * (logarithm.dim() - 1))
        centred = logarithm - ((weight * logarithm).flatten(1).sum(1) / total).reshape(shape)
        return ((weight * centred**2).flatten(1).sum(1) / total).clamp(min=1e-12).sqrt().mean()
