"""What networks see of both images of a pair, for solvers that compare it (`similarity.learned`)."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from warpwise import ops
from warpwise.errors import InputError
from warpwise.networks.model import Model
from warpwise.networks.probabilistic import FeatureEncoder
from warpwise.networks.segmentation import Segmentation
from warpwise.pair import Pair
from warpwise.registrars.crop import around
from warpwise.registrars.learned.working import scalars, tensor
from warpwise.shapes import Array
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
        octaves = [of_volume(volume, model) for volume in (pair.fixed, pair.moving)]
        sides: tuple[list[FeatureMap], list[FeatureMap]] = ([], [])
        for both in zip(*octaves, strict=True):
            for side, found in zip(sides, common(both, model, trusted=term.trusted), strict=True):
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


def of_volume(volume: Volume, model: Model) -> list[tuple[FeatureMap, Array]]:
    """Features of one image at every octave, fine to coarse, each with the mean variance of every channel (1 where the
    model tells none).

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
    out: list[tuple[FeatureMap, Array]] = []
    with torch.no_grad():
        if isinstance(encoder, Segmentation):
            shares = model.network(shown, shown).labels.softmax(1)[:, 1:]
            octaves, first = ops.pyramid(shares, octaves=SCALES), 0
        else:
            octaves, first = encoder(shown), encoder.finest
    for octave, features in enumerate(octaves, start=first):
        data = scalars(features)
        spread = np.ones(len(data), np.float32)
        if isinstance(encoder, FeatureEncoder) and encoder.uncertain:
            data, log_variance = np.split(data, 2)
            spread = np.exp(log_variance).mean((1, 2, 3))
        step = np.diag([*[2.0**octave if wide else 1.0 for wide in several], 1.0])
        affine = grid.affine @ step
        lengths = np.linalg.norm(affine[:3, :3], axis=0)[several]
        found = FeatureMap(np.ascontiguousarray(data, np.float32), affine, float(np.exp(np.log(lengths).mean())))
        out.append((found, spread))
    return out


def common(both: Sequence[tuple[FeatureMap, Array]], model: Model, *, trusted: bool) -> list[FeatureMap]:
    """Features of two images on one scale of numbers, the same for both.

    Learned ones at mean 0 and variance 1 over all nodes of both; or, where variances are trusted, over the root of the sum
    of what the model tells of either's, averaged over nodes, so that a channel it is unsure of counts less. Soft maps over
    the root of their mean size.

    Args:
        both: each with the mean variances of its channels (K,).
    """
    maps = [found for found, _ in both]
    whole = np.concatenate([found.data.reshape(len(found.data), -1) for found in maps], axis=1)
    middle, scale = whole.mean(1), whole.std(1) + 1e-6
    if model.card.network.kind == "segmentation":
        middle, scale = np.zeros(len(whole)), np.sqrt(np.maximum(whole.mean(1), 1e-4))
    elif trusted:
        scale = np.sqrt(np.sum([spread for _, spread in both], axis=0))
    shift, factor = (np.asarray(v, np.float32)[:, None, None, None] for v in (middle, 1 / scale))
    return [replace(found, data=(found.data - shift) * factor) for found in maps]
