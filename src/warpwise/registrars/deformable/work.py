"""How a solver moves, and everything that one scale of it needs."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from pydantic import Field

from warpwise.errors import InputError
from warpwise.grid import Grid
from warpwise.objective import SolverTerms
from warpwise.ops import kernels
from warpwise.pair import Pair
from warpwise.registrars.crop import Box, overlap
from warpwise.settings import Settings
from warpwise.shapes import Array, Channels, ChannelsElsewhere, Triple, VectorField, VectorFieldElsewhere
from warpwise.similarity.base import Fused, Similarity
from warpwise.similarity.intensity import MSE
from warpwise.similarity.local import windowed
from warpwise.volume import scale_factors

THICK = 1.5  # times as far apart as voxels of a slice


class ScaleSettings(Settings):
    """One scale of the pyramid.

    Attributes:
        image: how often the images are halved.
        field: how often the field is halved; at least `image`.
        iterations: at most so many.
        radius: of local windows, voxels of this scale, where the similarity itself names none.
        step: length of a typical large step, voxels of the field.
        largest_mm: voxels may be so large at most, else the scale is left out; none: any size.
    """

    image: int = Field(ge=0)
    field: int = Field(ge=0)
    iterations: int = Field(ge=1)
    radius: int = Field(default=2, ge=0)
    step: float = Field(default=0.5, gt=0)
    largest_mm: float | None = Field(default=None, gt=0)


class DescentSettings(Settings):
    """How a solver moves. Lengths are voxels of the field at each scale.

    Attributes:
        scales: coarse to fine.
        momentum: share of the last step that the next one keeps.
        decay: step of a scale's last iteration over that of its first.
        quantile: the share of all force that vectors up to the typical large one make up.
        cap: no step is longer than this.
        tolerance: a scale ends when ten iterations lower the energy by less than this share.
    """

    scales: tuple[ScaleSettings, ...] = Field(min_length=1)
    momentum: float = Field(default=0.6, ge=0, lt=1)
    decay: float = Field(default=1.0, gt=0)
    quantile: float = Field(default=0.9, gt=0, le=1)
    cap: float = Field(default=0.5, gt=0)
    tolerance: float = Field(default=2e-4, ge=0)
    smoothness: ClassVar[str] = "gaussian"
    bytes_a_voxel: ClassVar[int] = 120  # measured, images of unlike contrast; 104 of like


def usable_scales(pair: Pair, scales: tuple[ScaleSettings, ...]) -> list[ScaleSettings]:
    """The scales this grid can have: a small image is halved less often, and never twice to the same size.

    The last scale is always one of them.
    """
    grid = pair.fixed.grid
    out: list[ScaleSettings] = []
    for scale in scales:
        if scale is not scales[-1] and too_coarse(grid, scale):
            continue
        sizes = [(scale_factors(grid, k.image), scale_factors(grid, k.field)) for k in (scale, *out[-1:])]
        if len(sizes) == 2 and sizes[0] == sizes[1]:
            out[-1] = scale.replace(iterations=max(scale.iterations, out[-1].iterations))
        else:
            out.append(scale)
    return out


def too_coarse(grid: Grid, scale: ScaleSettings) -> bool:
    """Whether a scale's voxels would be larger than it wants them."""
    if scale.largest_mm is None:
        return False
    factors = scale_factors(grid, scale.image)
    halved = [s * f for s, f in zip(grid.spacing_mm, factors, strict=True) if f > 1]
    return bool(halved) and max(halved) > scale.largest_mm


@dataclass(frozen=True, eq=False)
class ScaleWork:
    """Everything one scale needs, allocated once.

    Attributes:
        reach: voxels of the full grid a node of the field.
        factors: voxels of this scale's image a node.
        fixed, moving: the channels that are compared: those of every similarity, then codes of labels.
        counts: how many channels each similarity has.
        taper: weights of the nodes along each axis.
        thick: whether slices of the full grid are (`THICK`).
    """

    pair: Pair
    settings: ScaleSettings
    terms: SolverTerms
    reach: Triple
    factors: Triple
    nodes: Triple
    fixed: Channels
    moving: ChannelsElsewhere
    counts: tuple[int, ...]
    weight: Array | None
    taper: tuple[Array, Array, Array]
    thick: bool = False

    @classmethod
    def build(
        cls,
        full: Pair,
        scale: ScaleSettings,
        terms: SolverTerms,
        box: Box,
        mapped: Pair | None = None,
        *,
        resampled: bool = False,
    ) -> "ScaleWork":
        """The work of one scale of a cropped pair.

        Args:
            full: at full resolution; scale: of what; terms: what is minimised; box: where the pair lies in its grid.
            mapped: the same pair, each channel in both contrasts, where a term wants that.
            resampled: whether the moving image is brought onto the fixed grid first.
        """
        pair = full.at_scale(scale.image)
        image, field = (scale_factors(full.fixed.grid, k) for k in (scale.image, scale.field))
        factors = (max(field[0] // image[0], 1), max(field[1] // image[1], 1), max(field[2] // image[2], 1))
        reach = (image[0] * factors[0], image[1] * factors[1], image[2] * factors[2])
        nodes = kernels.coarse_shape(pair.fixed.shape, factors)
        weight = overlap(pair)
        spacing = typical(pair.fixed.grid)
        terms = replace(terms, similarities=tuple(term for term in terms.similarities if term.used_at(spacing)))
        if not terms.similarities:
            raise InputError(f"No similarity takes part at the scale of {spacing:.3g} mm.", hint="Lower least_mm.")
        directed = resampled or any(term.directed for term in terms.similarities)
        pair = on_fixed_grid(pair) if directed else pair
        other = pair if mapped is None else mapped.at_scale(scale.image)
        other = on_fixed_grid(other) if directed and mapped is not None else other
        sides: list[list[Array]] = [[], []]
        for n, channels in enumerate(sides):
            plain, both = ((of.fixed, of.moving)[n] for of in (pair, other))
            channels.extend(term.channels_of(both if term.both_contrasts else plain) for term in terms.similarities)
        counts = tuple(len(channels) for channels in sides[0])
        if terms.labels is not None and pair.fixed.codes is not None and pair.moving.codes is not None:
            sides[0].append(pair.fixed.codes)
            sides[1].append(pair.moving.codes)
        fixed, moving = (channels[0] if len(channels) == 1 else np.concatenate(channels) for channels in sides)
        taper, thick = box.taper(nodes, reach), full.fixed.grid.anisotropy > THICK
        return cls(pair, scale, terms, reach, factors, nodes, fixed, moving, counts, weight, taper, thick)

    def adopt(self, field: VectorField | None, reach: Triple) -> VectorFieldElsewhere:
        """A coarser scale's field (voxels of its own nodes) on this scale's nodes; zero where there is none."""
        if field is None:
            return np.zeros((3, *self.nodes), np.float32)
        if reach == self.reach and field.shape[1:] == self.nodes:
            return field
        ratio = [new / old for new, old in zip(self.reach, reach, strict=True)]
        matrix = np.hstack([np.diag(ratio), np.zeros((3, 1))])
        out = kernels.warp_affine(field, matrix, out=np.empty((3, *self.nodes), np.float32))
        out *= np.array([1 / r for r in ratio], np.float32)[:, None, None, None]
        return out

    def parts(self) -> list[tuple[slice, Similarity, Array]]:
        """What is compared: channels, by which similarity, and their shares in the value."""
        out: list[tuple[slice, Similarity, Array]] = []
        first = 0
        for term, count in zip(self.terms.similarities, self.counts, strict=True):
            shares = self.pair.weights * np.float32(term.weight)
            shares = np.repeat(shares, 2) / np.float32(2) if term.both_contrasts else shares
            out.append((slice(first, first + count), windowed(term, self.settings.radius), shares))
            first += count
        codes = self.pair.fixed.codes
        if self.terms.labels is not None and codes is not None and first < len(self.fixed):
            voxels = (
                float(np.prod(self.fixed.shape[1:])) if self.weight is None else float(self.weight.sum(dtype=np.float64))
            )
            shares = np.full(len(codes), self.terms.labels.share(codes) * voxels, np.float32)
            out.append((slice(first, len(self.fixed)), MSE(), shares))
        return out

    def fused(self, fixed: Channels) -> Fused:
        """The weighted sum of all terms of the images, against fixed channels which are read at every call."""
        parts = [(at, term.fused(fixed[at], self.weight, shares)) for at, term, shares in self.parts()]
        if len(parts) == 1:
            return parts[0][1]

        def total(warped: Channels, gradient: Channels) -> float:
            return sum(part(warped[at], gradient[at]) for at, part in parts)

        return total

    def curvature(self, warped: Channels) -> Channels:
        """Second derivative of that sum by each intensity, about."""
        out = np.empty_like(warped)
        for at, term, shares in self.parts():
            curved = term.curvature(warped[at], self.weight, shares)
            assert curved is not None  # refused when the registrar was built
            out[at] = curved
        return out

    def blank(self) -> Channels:
        """A buffer for compared channels on the fixed grid."""
        return np.empty(self.fixed.shape, np.float32)

    def in_voxels(self, field: VectorField, out: VectorField) -> VectorField:
        """A field in voxels of the image rather than of its nodes; itself where these are the same."""
        if self.factors == (1, 1, 1):
            return field
        return np.multiply(field, np.array(self.factors, np.float32)[:, None, None, None], out=out)

    def rested(self, field: VectorField) -> VectorField:
        """The field faded to 0 at sides that were cut: smoothing spreads a little motion to where steps are 0."""
        x, y, z = self.taper
        return np.multiply(field, x[:, None, None] * y[:, None] * z, dtype=np.float32)

    def metric(self) -> Array | None:
        """What shortens steps across thick slices, (3, 1, 1, 1): the smallest distance of nodes over that of each axis;
        None where slices are not thick.

        An image changes as much from slice to slice as from voxel to voxel, however thick the slices: by voxels, most of
        a step would go across them, and overshoot. This brings forces to slopes by mm; steps by mm as well, the square of
        it, leave too little across slices, and smoothing then undoes more than they do.
        """
        if not self.thick:
            return None
        spacing = np.array(self.pair.fixed.grid.spacing_mm) * self.factors
        several = np.array(self.nodes) > 1
        spacing[~several] = spacing[several].min(initial=np.inf)
        return (spacing.min() / spacing).astype(np.float32)[:, None, None, None]

    def sigmas(self) -> tuple[list[float], list[float]]:
        """Widths per axis of the Gaussians of the force and of the field: none along an axis of one node."""
        both = self.terms.gaussian.update_sigma, self.terms.gaussian.field_sigma
        update, field = ([sigma if n > 1 else 0.0 for n in self.nodes] for sigma in both)
        return update, field


def typical(grid: Grid) -> float:
    """Distance of voxels, mm: the geometric mean over axes of several."""
    return float(np.exp(np.mean([np.log(s) for s, n in zip(grid.spacing_mm, grid.shape, strict=True) if n > 1] or [0.0])))


def on_fixed_grid(pair: Pair) -> Pair:
    """The pair with its moving image resampled under `to_moving`: only for the eyes of a similarity."""
    fixed, moving = pair.fixed, pair.moving
    data = kernels.warp_affine(moving.data, pair.to_moving, out=np.empty_like(fixed.data))
    back = np.linalg.inv(pair.to_moving)
    points, codes = moving.points, moving.codes
    if points is not None:
        points = points @ back[:3, :3].T + back[:3, 3]
    if codes is not None and fixed.codes is not None:
        codes = kernels.warp_affine(codes, pair.to_moving, out=np.empty_like(fixed.codes))
    home = np.linalg.inv(pair.world)  # features stay on their nodes, which are said to lie elsewhere
    features = {
        key: tuple(replace(found, affine=home @ found.affine) for found in maps) for key, maps in moving.features.items()
    }
    resampled = replace(moving, data=data, grid=fixed.grid, mask=None, points=points, codes=codes, features=features)
    return replace(pair, moving=resampled, to_moving=np.eye(4))
