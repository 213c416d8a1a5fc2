"""What learned features say besides a displacement: how sure they are of themselves and of their match; the features."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from warpwise import ops
from warpwise.errors import InputError
from warpwise.grid import Grid
from warpwise.image import Image
from warpwise.networks.blocks import smoothed
from warpwise.networks.heads import VelocityDecoder, sample
from warpwise.networks.model import Model
from warpwise.networks.probabilistic import FeatureEncoder
from warpwise.ops.nodes import doubled
from warpwise.prediction import Posterior, Prediction, at_octave
from warpwise.registrars.learned.working import array, tensor, working_image

SEED = 0  # of the noise that certainty is measured with
# Share of the solver's diffusion that counts for certainty: with all of it, neighbours lend each other so much that every
# voxel seems as certain (rank correlation with the true error 0.25; 0.31 with a tenth, on known bends in 0.1).
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
    features = prediction.features
    if features is None or prediction.diffusion is None:
        return None
    octave, *both = features.octaves[0]
    fixed, moving = (one.detach().float() for one in both)
    displacement = prediction.displacement.detach()
    left = displacement if features.left is None else features.left.detach()
    warped = ops.warp(moving, at_octave(left, octave))
    generator = torch.Generator().manual_seed(SEED)
    data = "kl" if features.uncertain else "means"
    diffusion = RELAXED * prediction.diffusion.detach()
    match = ops.match_deviation(fixed, warped, diffusion, generator, data=data, samples=samples)
    match = ops.gaussian(match, sigma_voxels=[1.0 if n > 1 else 0.0 for n in match.shape[2:]]) * 2**octave
    spread = (0.5 * fixed.chunk(2, 1)[1]).exp().mean(1, keepdim=True) if features.uncertain else None
    space = displacement.shape[2:]
    return Certainty(doubled(match, space, times=octave), None if spread is None else doubled(spread, space, times=octave))


def deviation(
    model: Model,
    fixed: Tensor,
    moving: Tensor,
    prediction: Prediction,
    *,
    voxel_mm: NDArray[np.float64],
    samples: int,
    seed: int = SEED,
) -> NDArray[np.float32]:
    """Standard deviation (1, X, Y, Z), mm, of where a voxel goes, over samples of the prediction's posterior.

    Args:
        model: what predicted; fixed, moving: of these images (1, C, *space).
        prediction: what it predicted, with a posterior.
        voxel_mm: size of a voxel along three axes.
        samples: draws; seed: of them.
    """
    first = second = np.zeros(1)
    draws = drawn(model, fixed, moving, prediction, torch.Generator().manual_seed(seed))
    for _ in range(samples):
        mm = array(next(draws)[0]) * voxel_mm[:, None, None, None]
        first, second = first + mm, second + mm.astype(np.float64) ** 2
    variance = second / samples - (first / samples) ** 2
    return np.sqrt(np.maximum(variance, 0).sum(0, keepdims=True)).astype(np.float32)


def drawn(
    model: Model, fixed: Tensor, moving: Tensor, prediction: Prediction, generator: torch.Generator
) -> Iterator[Tensor]:
    """Displacements (1, D, *space) by a network's posterior, without end.

    Only the velocity is drawn again where the displacement is its exponential; where the posterior is that of the last
    update, what was before it changes what it is composed on, and the whole network runs again.
    """
    decoder = next((part for part in model.network.modules() if isinstance(part, VelocityDecoder)), None)
    posterior: Posterior | None = prediction.posterior
    while True:
        if decoder is None or prediction.velocity is None or posterior is None:
            yield model(fixed, moving, generator).displacement
        else:
            with torch.no_grad():
                velocity = smoothed(sample(posterior, generator), decoder.fluid)
                displacement = decoder.displacement(velocity, tuple(fixed.shape[2:]))
            yield displacement


def features_of(image: Image, model: Model) -> list[Image]:
    """An image's features at every octave, fine to coarse, in float32 on upright grids of their own.

    Channels are means, then log-variances where the model's features are random variables.

    Raises:
        InputError: the model has no encoder, or is for other images.
    """
    encoder = next((part for part in model.network.modules() if isinstance(part, FeatureEncoder)), None)
    if encoder is None:
        raise InputError(
            f"The model {model.card.name or model.path} ({model.card.network.kind}) learns no features.",
            hint="Train the network `features` or `cascade`.",
        )
    working, grid = working_image(image, model.card)
    with torch.no_grad():
        octaves = encoder(tensor(working, model.card.dim))
    dim = image.grid.dim
    affine = (grid if dim == 3 else grid.flat()).affine
    out: list[Image] = []
    for octave, features in enumerate(octaves, start=encoder.finest):
        data = features[0].float().numpy()
        own = Grid(data.shape[1:], affine @ np.diag([*[2.0**octave] * dim, 1.0]))
        out.append(Image(data, own, name=f"{image.name}, octave {octave}"))
    return out
