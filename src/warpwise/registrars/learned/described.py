"""What networks see of both images of a pair, for solvers that compare it (`similarity.learned`)."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from warpwise.errors import InputError
from warpwise.networks.model import Model
from warpwise.networks.probabilistic import FeatureEncoder
from warpwise.networks.segmentation import Segmentation
from warpwise.pair import Pair
from warpwise.registrars.crop import around
from warpwise.registrars.learned.working import scalars, tensor
from warpwise.similarity.learned import LearnedFeatures
from warpwise.spacing import at_spacing, embedded_spacing
from warpwise.volume import FeatureMap, Volume

SCALES = 4  # of soft maps, halved from the network's own


def described(pair: Pair, terms: Sequence[LearnedFeatures]) -> Pair:
    """The pair with what each term compares.

    Raises:
        InputError: a model cannot be loaded, tells nothing of an image, or is for other images.
    """
    for term in terms:
        model = loaded(term.model)
        model.card.fits(len(pair.fixed.data), dim=2 if pair.planar else 3)
        octaves = [of_volume(volume, model, trusted=term.trusted) for volume in (pair.fixed, pair.moving)]
        sides: tuple[list[FeatureMap], list[FeatureMap]] = ([], [])
        for both in zip(*octaves, strict=True):
            for side, found in zip(sides, common(both, model), strict=True):
                side.append(found)
        fixed, moving = (
            replace(volume, features={**volume.features, term.key: tuple(side)})
            for volume, side in zip((pair.fixed, pair.moving), sides, strict=True)
        )
        pair = replace(pair, fixed=fixed, moving=moving)
    return pair


def loaded(model: Any) -> Model:
    """A model, read once as long as its files stay as they are."""
    if isinstance(model, Model):
        return model
    path = Path(model)
    state = tuple(sorted(file.stat().st_mtime_ns for file in path.rglob("model.json"))) if path.exists() else ()
    return _loaded(str(model), state)


@lru_cache(4)
def _loaded(model: str, state: tuple[int, ...]) -> Model:  # noqa: ARG001 - the state is part of the key
    return Model.load(model)


def of_volume(volume: Volume, model: Model, *, trusted: bool) -> list[FeatureMap]:
    """Features of one image at every octave, fine to coarse.

    Raises:
        InputError: the model tells none.
    """
    part = volume.cropped(*around(volume.object))  # as in training
    image, grid = at_spacing(part.shown, part.grid, embedded_spacing(model.card.spacing_mm))
    encoder = next((part for part in model.network.modules() if isinstance(part, FeatureEncoder | Segmentation)), None)
    if encoder is None:
        raise InputError(
            f"The model {model.card.name or model.path} ({model.card.network.kind}) tells no features of an image.",
            hint="Train the network `features`, `cascade` or `segmentation`.",
        )
    shown = tensor(image, model.card.dim)
    several = [n > 1 for n in grid.shape]
    out: list[FeatureMap] = []
    with torch.no_grad():
        if isinstance(encoder, Segmentation):
            shares = model.network(shown, shown).labels.softmax(1)[:, 1:]
            octaves = [shares, *halved(shares, SCALES - 1)]
            first = 0
        else:
            octaves, first = encoder(shown), encoder.finest
    for octave, features in enumerate(octaves, start=first):
        data = scalars(features)
        if isinstance(encoder, FeatureEncoder) and encoder.uncertain:
            data, log_variance = np.split(data, 2)
            if trusted:
                spread = np.exp(log_variance).mean((1, 2, 3), keepdims=True)
                data = data / np.sqrt(2 * spread)
        step = np.diag([*[2.0**octave if wide else 1.0 for wide in several], 1.0])
        affine = grid.affine @ step
        lengths = np.linalg.norm(affine[:3, :3], axis=0)[several]
        out.append(FeatureMap(np.ascontiguousarray(data, np.float32), affine, float(np.exp(np.log(lengths).mean()))))
    return out


def halved(shares: torch.Tensor, times: int) -> list[torch.Tensor]:
    """Soft maps at every second, fourth … voxel."""
    from warpwise import ops  # noqa: PLC0415 - with the rest of torch

    return ops.pyramid(shares, octaves=times + 1)[1:]


def common(both: tuple[FeatureMap, FeatureMap], model: Model) -> list[FeatureMap]:
    """Features of two images on one scale of numbers.

    Learned ones at mean 0 and variance 1 over all nodes of both, unless variances that the model tells stand for that;
    soft maps over the root of their mean size.
    """
    whole = np.concatenate([found.data.reshape(len(found.data), -1) for found in both], axis=1)
    if model.card.network.kind == "segmentation":
        sizes = np.maximum(whole.mean(1), 1e-4)
        middle, scale = np.zeros(len(whole)), np.sqrt(sizes)
    else:
        middle, scale = whole.mean(1), whole.std(1) + 1e-6
    shift, factor = (np.asarray(v, np.float32)[:, None, None, None] for v in (middle, 1 / scale))
    return [replace(found, data=(found.data - shift) * factor) for found in both]
