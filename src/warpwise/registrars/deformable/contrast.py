"""Whether a pair shows tissue alike, and its channels in the contrast of either image where it does not."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from warpwise.image import normalised
from warpwise.objective import SolverTerms
from warpwise.ops import kernels
from warpwise.pair import Pair
from warpwise.registrars.crop import focused, overlap
from warpwise.registrars.linear.contrast import ALIKE as SIGNED
from warpwise.registrars.linear.contrast import agreement
from warpwise.registrars.linear.shading import STRONG, gains, strength
from warpwise.registrars.linear.starts import coarsest
from warpwise.shapes import Matrix4, Triple, VectorField
from warpwise.similarity.mapping import DEPTH, Mapping, mapping
from warpwise.volume import Volume

ALIKE = 0.88  # of `Mapping.likeness`: below, images are compared in both contrasts
FAINT = 0.1  # of the variance: what is explained by less may be chance
EVIDENT = 0.35  # of `evidence`: 0.41 and more in recoloured phantoms and training brains, 0.2 where nothing is bent
SLIGHT = 0.1  # of `shading.strength`: less is not looked at
RISE = 0.03  # of likeness, without shading: 0.03 to 0.3 where there is some, 0.013 where anatomy looks like it
DEEP = 2  # voxels from the rim: skull and scalp make contrasts look alike
VOXELS = 600_000  # at most so many are looked at to decide that


class Seen(NamedTuple):
    """How a pair shows tissue where it lies.

    Attributes:
        alike: whether so that intensities may be compared.
        agreement: how much so: `Mapping.likeness`, averaged over channels; where intensities tell too little of each other
            for that, the sign of local correlations (`linear.contrast`).
        uneven: whether shading that the images do not share is in the way, and should be divided out.
    """

    alike: bool
    agreement: float
    uneven: bool = False


def seen(pair: Pair) -> Seen:
    """How a pair shows tissue where it lies; shading makes like look unlike, never the reverse."""
    small = coarsest(focused(pair), VOXELS)
    alike, value = _judged(small)
    shading = strength(small)
    if alike and shading < SLIGHT:
        return Seen(alike, value)
    even, again = _judged(without_shading(small))
    needed = shading > STRONG or again > value + RISE
    return Seen(even, again, uneven=True) if even and (needed or not alike) else Seen(alike, value)


def _judged(pair: Pair) -> tuple[bool, float]:
    every = mappings(pair, depth=DEEP)
    told = float(np.average([max(curves.explained) for curves in every], weights=pair.weights))
    if told < FAINT:
        value = agreement(pair)
        return value > SIGNED, value
    value = float(np.average([curves.likeness for curves in every], weights=pair.weights))
    return value > ALIKE, value


def without_shading(pair: Pair) -> Pair:
    """The pair with the slow gain that one image has over the other, where they lie, divided out: half of it in each.

    A ramp of brightness in one image correlates with whatever lies along it in the other.
    """
    grid, seen_gains = gains(focused(pair))
    half = np.stack([gain for gain, _ in seen_gains]) * np.float32(0.5)

    def divided(volume: Volume, to_fixed: Matrix4, sign: float) -> Volume:
        to_small = grid.inverse_affine @ pair.fixed.grid.affine @ to_fixed
        factor = kernels.warp_affine(half, to_small, out=np.empty_like(volume.data))
        np.exp(factor * np.float32(sign), out=factor)
        factor *= volume.data
        return replace(volume, data=np.stack([normalised(channel) for channel in factor]))

    return replace(
        pair,
        fixed=divided(pair.fixed, np.eye(4), -1.0),
        moving=divided(pair.moving, np.asarray(np.linalg.inv(pair.to_moving), np.float64), 1.0),
    )


def evidence(pair: Pair, field: VectorField) -> float:
    """By how much a field (3, X, Y, Z) raises the share of variance that one image's intensities explain in the other's, in
    the direction in which it does so less, averaged over channels."""
    before, after = mappings(pair), mappings(pair, field)
    rises = [np.subtract(b.explained, a.explained).min() for a, b in zip(before, after, strict=True)]
    return float(np.average(rises, weights=pair.weights))


def mappings(
    pair: Pair, field: VectorField | None = None, reach: Triple = (1, 1, 1), *, depth: int = DEPTH
) -> list[Mapping]:
    """How the intensities of each channel belong together where a pair lies.

    Args:
        pair: the images, at full resolution: at a coarse one, thin structures and rims are mixtures.
        field: (3, *nodes), voxels of the nodes, which moves fixed points before `pair.to_moving`.
        reach: voxels of the pair a node.
        depth: voxels from either object's rim that count for nothing.
    """
    warped = np.empty((len(pair.moving.data), *pair.fixed.shape), np.float32)
    if field is None:
        kernels.warp_affine(pair.moving.data, pair.to_moving, out=warped)
    else:
        finer = np.hstack([np.diag([1 / r for r in reach]), np.zeros((3, 1))])
        voxels = kernels.warp_affine(field, finer, out=np.empty((3, *pair.fixed.shape), np.float32))
        voxels *= np.array(reach, np.float32)[:, None, None, None]
        kernels.warp(pair.moving.data, voxels, pair.to_moving, out=warped)
    weight = overlap(pair)
    count = None if weight is None else weight[0]
    return [mapping(f, w, count, depth=depth) for f, w in zip(pair.fixed.data, warped, strict=True)]


def mapped_for(terms: SolverTerms, pair: Pair, field: VectorField | None, reach: Triple) -> Pair | None:
    """`in_both_contrasts` where a similarity compares so, else nothing."""
    wanted = any(term.both_contrasts for term in terms.similarities)
    return in_both_contrasts(pair, field, reach) if wanted else None


def in_both_contrasts(pair: Pair, field: VectorField | None, reach: Triple) -> Pair:
    """The pair with two channels for each of its own (`Mapping.of_pair`)."""
    sides = [
        curves.of_pair(f, m)
        for curves, f, m in zip(mappings(pair, field, reach), pair.fixed.data, pair.moving.data, strict=True)
    ]
    fixed, moving = (np.concatenate([side[n] for side in sides]) for n in (0, 1))
    return replace(
        pair, fixed=replace(pair.fixed, data=fixed), moving=replace(pair.moving, data=moving), channel_weights=None
    )
