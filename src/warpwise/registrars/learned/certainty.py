"""What learned features say besides a displacement: how sure they are of themselves and of their match; the features."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from warpwise import ops
from warpwise.errors import InputError
from warpwise.grid import Grid
from warpwise.image import Image, normalised, upright
from warpwise.networks.base import Prediction
from warpwise.networks.blocks import doubled
from warpwise.networks.model import Model
from warpwise.networks.probabilistic import FeatureEncoder
from warpwise.registrars.learned.working import at_spacing, spacing_of, tensor
from warpwise.similarity.posterior import at_octave, octaves, varied

SEED = 0  # of the noise that certainty is measured with
# Share of the solver's stiffness that counts for certainty: with all of it, neighbours lend each other so much that every
# voxel seems as certain (rank correlation with the true error 0.25; 0.31 with a tenth: benchmarks/features.py).
RELAXED = 0.1


@dataclass(frozen=True, eq=False)
class Certainty:
    """Maps (B, 1, *space) on the images' grid.

    Attributes:
        match: how far a voxel may be from where it should be, root mean square, voxels (`ops.match_deviation`).
        features: standard deviation of the fixed image's features, mean over channels, or None where they have none: 0
            (certain) to about 1 (the prior: nothing is known).
    """

    match: Tensor
    features: Tensor | None


def certainty(prediction: Prediction, *, samples: int = 16) -> Certainty | None:
    """From a network's prediction, at its finest octave; None where it tells no features."""
    found = octaves(prediction)
    if not found:
        return None
    octave, *both = min(found, key=lambda one: one[0])
    fixed, moving = (features.detach().float() for features in both)
    displacement = prediction["displacement"].detach()
    uncertain = varied(prediction)
    warped = ops.warp(moving, at_octave(displacement, octave))
    generator = torch.Generator().manual_seed(SEED)
    data = "kl" if uncertain else "means"
    stiffness = RELAXED * prediction["stiffness"].detach()
    match = ops.match_deviation(fixed, warped, stiffness, generator, data=data, samples=samples)
    match = ops.gaussian(match, sigma_voxels=[1.0 if n > 1 else 0.0 for n in match.shape[2:]]) * 2**octave
    spread = (0.5 * fixed.chunk(2, 1)[1]).exp().mean(1, keepdim=True) if uncertain else None
    space = displacement.shape[2:]
    return Certainty(doubled(match, space, times=octave), None if spread is None else doubled(spread, space, times=octave))


def features_of(image: Image, model: Model) -> list[Image]:
    """An image's features at every octave, fine to coarse, in float32 on upright grids of their own.

    Channels are means, then log-variances where the model's features are random variables.

    Raises:
        InputError: the model has no encoder, or is for other images.
    """
    encoder = next((part for part in model.network.modules() if isinstance(part, FeatureEncoder)), None)
    if encoder is None:
        raise InputError(
            f"The model {model.card.name or model.path} ({model.card.network}) learns no features.",
            hint="Train the network `features` or `cascade`.",
        )
    model.card.fits(len(image.data), dim=image.grid.dim)
    image = upright(image)
    grid = image.grid.embedded()
    channels = np.stack([normalised(channel, None, model.card.percentiles) for channel in image.data])
    working, grid = at_spacing(channels.reshape(len(channels), *grid.shape), grid, spacing_of(model.card))
    with torch.no_grad():
        found = encoder(tensor(working, model.card.dim))
    dim = image.grid.dim
    affine = (grid if dim == 3 else grid.flat()).affine
    out: list[Image] = []
    for octave, features in enumerate(found, start=encoder.finest):
        data = features[0].float().numpy()
        own = Grid(data.shape[1:], affine @ np.diag([*[2.0**octave] * dim, 1.0]))
        out.append(Image(data, own, name=f"{image.name}, octave {octave}"))
    return out
