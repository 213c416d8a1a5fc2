"""The loop that deformable solvers share: levels, steps of bounded length, and when to stop."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from warpwise.errors import RunError
from warpwise.ops import kernels
from warpwise.pair import Pair, Triple, level_factors, pyramid_level
from warpwise.registrars.base import OnStep, Recorder, Solution
from warpwise.registrars.crop import Box, anchored, foreground
from warpwise.registrars.deformable import fold
from warpwise.registrars.deformable.landmarks import Pull
from warpwise.settings import Settings
from warpwise.similarity import SIMILARITIES, Fused, Similarity
from warpwise.similarity.intensity import MSE

Array = NDArray[np.float32]


class LevelSettings(Settings):
    """One level of the pyramid.

    Attributes:
        image: how often the images are halved.
        field: how often the field is halved; at least `image`.
        iterations: at most so many.
        radius: of the local window, voxels of this level (similarities without a window ignore it).
        step: length of a typical large step, voxels of the field.
        sigma: update_sigma and field_sigma of this level, where they differ from those of the whole.
    """

    image: int
    field: int
    iterations: int
    radius: int = 2
    step: float = 0.5
    sigma: tuple[float, float] | None = None


class DescentSettings(Settings):
    """How a solver moves. Lengths are voxels of the field at each level.

    Attributes:
        update_sigma: Gaussian of the force before a step (fluid-like).
        field_sigma: Gaussian of the field after it (elastic-like).
        momentum: share of the last step that the next one keeps.
        decay: step of a level's last iteration over that of its first.
        quantile: the share of all force that vectors up to the typical large one make up.
        cap: no step is longer than this.
        tolerance: a level ends when ten iterations lower the energy by less than this share.
    """

    levels: tuple[LevelSettings, ...]
    update_sigma: float = 0.85
    field_sigma: float = 0.5
    momentum: float = 0.6
    decay: float = 1.0
    quantile: float = 0.9
    cap: float = 0.5
    tolerance: float = 2e-4


def usable_levels(pair: Pair, levels: tuple[LevelSettings, ...]) -> list[LevelSettings]:
    """The levels this grid can have: a small image is halved less often, and never twice to the same size."""
    out: list[LevelSettings] = []
    for level in levels:
        sizes = [(level_factors(pair.grid, k.image), level_factors(pair.grid, k.field)) for k in (level, *out[-1:])]
        if len(sizes) == 2 and sizes[0] == sizes[1]:
            out[-1] = level.replace(iterations=max(level.iterations, out[-1].iterations))
        else:
            out.append(level)
    return out


@dataclass(frozen=True, eq=False)
class LevelWork:
    """Everything one level needs, allocated once.

    Attributes:
        reach: voxels of the full grid a node of the field.
        factors: voxels of this level's image a node.
        fixed, moving: the channels that are compared, label maps after the images.
        taper: weights of the nodes along each axis.
    """

    pair: Pair
    number: int
    settings: LevelSettings
    reach: Triple
    factors: Triple
    nodes: Triple
    similarity: Similarity
    fixed: Array
    moving: Array
    weight: Array | None
    taper: tuple[Array, Array, Array]

    @classmethod
    def build(cls, full: Pair, level: LevelSettings, similarity: str, box: Box) -> "LevelWork":
        """The work of one level of a cropped pair."""
        pair = pyramid_level(full, level.image)
        image, field = level_factors(full.grid, level.image), level_factors(full.grid, level.field)
        factors = (max(field[0] // image[0], 1), max(field[1] // image[1], 1), max(field[2] // image[2], 1))
        reach = (image[0] * factors[0], image[1] * factors[1], image[2] * factors[2])
        nodes = kernels.coarse_shape(pair.fixed.shape[1:], factors)
        kind = SIMILARITIES[similarity]
        term: Similarity = kind(radius=level.radius) if similarity == "lncc" else kind()
        weight = overlap(pair)
        pair = on_fixed_grid(pair) if term.directed else pair
        fixed, moving = term.channels(pair.fixed), term.channels(pair.moving)
        if pair.labels is not None:
            fixed = np.concatenate([fixed, pair.labels.fixed])
            moving = np.concatenate([moving, pair.labels.moving])
        return cls(
            pair, level.image, level, reach, factors, nodes, term, fixed, moving, weight, box.taper(nodes, reach)
        )  # fmt: skip

    def adopt(self, field: Array | None, reach: Triple) -> Array:
        """A coarser level's field (voxels of its own nodes) on this level's nodes; zero where there is none."""
        if field is None:
            return np.zeros((3, *self.nodes), np.float32)
        if reach == self.reach and field.shape[1:] == self.nodes:
            return field
        ratio = [new / old for new, old in zip(self.reach, reach, strict=True)]
        matrix = np.hstack([np.diag(ratio), np.zeros((3, 1))])
        out = kernels.warp_affine(field, matrix, out=np.empty((3, *self.nodes), np.float32))
        out *= np.array([1 / r for r in ratio], np.float32)[:, None, None, None]
        return out

    def fused(self, fixed: Array) -> Fused:
        """The similarity to an image on this level's grid, which is read at every call."""
        labels = self.pair.labels
        if labels is None:
            return self.similarity.fused(fixed, self.weight, self.pair.weights)
        count = len(fixed) - len(labels.fixed)
        images = self.similarity.fused(fixed[:count], self.weight, self.pair.weights)
        voxels = float(np.prod(fixed.shape[1:])) if self.weight is None else float(self.weight.sum(dtype=np.float64))
        shares = np.full(len(labels.fixed), labels.share() * voxels, np.float32)
        overlap = MSE().fused(fixed[count:], self.weight, shares)

        def both(warped: Array, gradient: Array) -> float:
            return images(warped[:count], gradient[:count]) + overlap(warped[count:], gradient[count:])

        return both

    def blank(self) -> Array:
        """A buffer for compared channels on the fixed grid."""
        return np.empty(self.fixed.shape, np.float32)

    def in_voxels(self, field: Array, out: Array) -> Array:
        """A field in voxels of the image rather than of its nodes; itself where these are the same."""
        if self.factors == (1, 1, 1):
            return field
        return np.multiply(field, np.array(self.factors, np.float32)[:, None, None, None], out=out)

    def rested(self, field: Array) -> Array:
        """The field faded to 0 at sides that were cut: smoothing spreads a little motion to where steps are 0."""
        x, y, z = self.taper
        return np.multiply(field, x[:, None, None] * y[:, None] * z, dtype=np.float32)

    def sigmas(self, settings: DescentSettings) -> tuple[list[float], list[float]]:
        """Widths per axis of the Gaussians of the force and of the field: none along an axis of one node."""
        both = self.settings.sigma or (settings.update_sigma, settings.field_sigma)
        update, field = ([sigma if n > 1 else 0.0 for n in self.nodes] for sigma in both)
        return update, field


def overlap(pair: Pair) -> Array | None:
    """Weight (1, X, Y, Z) of the voxels that count: fixed mask, moving field of view and mask; None where all do."""
    out = np.empty(pair.fixed.shape[1:], np.float32)
    kernels.overlap_weight(pair.fixed_mask, pair.moving.shape[1:], pair.to_moving, out=out)
    if pair.moving_mask is not None:
        warped = np.empty((1, *out.shape), np.float32)
        out *= kernels.warp_affine(pair.moving_mask[None], pair.to_moving, out=warped)[0]
    elif pair.fixed_mask is None and float(out.min()) == 1.0:
        return None
    return out[None]


def on_fixed_grid(pair: Pair) -> Pair:
    """The pair with its moving image resampled under `to_moving`: only for the eyes of a similarity."""
    moved = kernels.warp_affine(pair.moving, pair.to_moving, out=np.empty_like(pair.fixed))
    back = np.linalg.inv(pair.to_moving)
    marks, labels = pair.landmarks, pair.labels
    if marks is not None:
        marks = replace(marks, moving=marks.moving @ back[:3, :3].T + back[:3, 3])
    if labels is not None:
        codes = kernels.warp_affine(labels.moving, pair.to_moving, out=np.empty_like(labels.fixed))
        labels = replace(labels, moving=codes)
    return replace(
        pair, moving=moved, moving_grid=pair.grid, to_moving=np.eye(4), moving_mask=None, landmarks=marks, labels=labels
    )


class Motion(ABC):
    """What is moved at one level: how a field deforms the images, and how a step changes it."""

    @abstractmethod
    def energy_and_force(self, field: Array, force: Array) -> float:
        """Energy at a field; force becomes the derivative by a small displacement composed on the right."""

    @abstractmethod
    def stepped(self, field: Array, step: Array, spare: Array) -> None:
        """Change the field, in place, by a step (both in voxels of its nodes)."""

    @abstractmethod
    def displacement(self, field: Array) -> Array:
        """The displacement that the field stands for, voxels of the nodes."""

    @staticmethod
    @abstractmethod
    def field_of(displacement: Array) -> Array:
        """The field that stands for a displacement."""


def solve(
    pair: Pair,
    settings: DescentSettings,
    *,
    similarity: str,
    motion: type[Motion],
    stage: str,
    on_step: OnStep,
    start: Solution | None = None,
) -> Solution:
    """Coarse to fine over the box of both foregrounds, from a start where one is given, else from rest; the field is kept
    free of folds at every level."""
    recorder = Recorder(on_step, stage, settings.tolerance)
    stops: list[str] = []
    field: Array | None = None
    reach: Triple = (1, 1, 1)
    levels = usable_levels(pair, settings.levels)
    box = foreground(pair)
    part = anchored(pair.cropped(box.start, box.shape))
    moved: Array | None = None
    if start is not None:
        inside = tuple(slice(s, s + n) for s, n in zip(box.start, box.shape, strict=True))
        field = motion.field_of(start.field[(slice(None), *inside)])
    for level in levels:
        work = LevelWork.build(part, level, similarity, box)
        field = work.adopt(field, reach)
        reach = work.reach
        moves = motion(work, settings)  # type: ignore[call-arg] - every Motion is built from these two
        field, stop = descend(work, field, moves, settings, recorder)
        stops.append(stop)
        field, moved = unfold(work.rested(field), moves)
    assert field is not None
    assert moved is not None
    x, y, z = pair.grid.shape

    def whole(part: Array) -> Array:
        """In voxels of the full grid, on all of them."""
        scaled = part if reach == (1, 1, 1) else part * np.array(reach, np.float32)[:, None, None, None]
        fine = scaled if reach == (1, 1, 1) else kernels.upsample(scaled, box.shape, reach)
        return box.embed(fine, (x, y, z))

    velocity = None if moved is field else whole(field)
    found = Solution(whole(moved), velocity, history=tuple(recorder.steps), stops=tuple(stops))
    if start is None:
        return found
    return replace(found, uncertainty=start.uncertainty, feature_uncertainty=start.feature_uncertainty)


def unfold(field: Array, moves: Motion) -> tuple[Array, Array]:
    """A field and its displacement, with no folded cell between the nodes; the full grid is checked at the end."""
    x, y, z = field.shape[1:]
    moved = moves.displacement(field)
    if moved is field:
        field, _ = fold.repair(field, (1, 1, 1), (x, y, z))
        return field, field
    field = field.copy()
    for attempt in range(fold.LOCAL_ROUNDS):
        nodes, count = fold.folded_nodes(moved, (1, 1, 1), (x, y, z), fold.FLOOR)
        if count == 0:
            return field, moved
        # A velocity carries a fold along its path: calm it where it starts and where it arrives, wider every time.
        for part in fold.clusters(np.unique(np.concatenate([nodes, arrivals(nodes, moved)]), axis=0)):
            fold.soften(field, part, width=1.0 + 0.1 * attempt)
        moved = moves.displacement(field)
    raise RunError("A velocity field kept folding.", hint="Use --transform greedy.")


def arrivals(nodes: NDArray[np.int64], moved: Array) -> NDArray[np.int64]:
    """The nodes nearest to where these nodes are moved."""
    at = nodes + moved[(slice(None), *nodes.T)].T
    return np.clip(np.rint(at), 0, np.array(moved.shape[1:]) - 1).astype(np.int64)


def descend(
    work: LevelWork, field: Array, moves: Motion, settings: DescentSettings, recorder: Recorder
) -> tuple[Array, str]:
    """Run one level; if the energy rises or stops being finite, begin the level again with half the step.

    Raises:
        RunError: the energy is not finite however short the steps are.
    """
    energy = 0.0
    for retry in range(4):
        recorder.begin()
        found, stop, energy = _descend(work, field.copy(), moves, settings, recorder, work.settings.step * 0.5**retry)
        if stop != ROSE:
            return found, stop
    if not np.isfinite(energy):
        raise RunError(f"Registration diverged at level {work.number} with steps of {work.settings.step} voxels.")
    return field, "no better step"


ROSE = "the energy rose"
PATIENCE = 3  # iterations until the energy must be below the first: smoothing of an inherited field may cost a little


def _descend(
    work: LevelWork, field: Array, moves: Motion, settings: DescentSettings, recorder: Recorder, step: float
) -> tuple[Array, str, float]:
    iterations = work.settings.iterations
    sigma, _ = work.sigmas(settings)
    force, spare, momentum = np.empty_like(field), np.empty_like(field), np.zeros_like(field)
    pull = None if work.pair.landmarks is None else Pull(work.pair, work.pair.landmarks, work.factors)
    first = np.inf
    for iteration in range(iterations):
        energy = moves.energy_and_force(field, force)
        if pull is not None:
            energy += pull.look(moves.displacement(field))
        first = energy if iteration == 0 else first
        worse = iteration >= min(PATIENCE, iterations - 1) and energy > first
        if worse or not np.isfinite(energy):
            return field, ROSE, energy
        if recorder.add(work.number, iterations, energy):
            return field, "converged", energy
        kernels.gaussian(force, sigma, out=spare)
        typical = kernels.typical_length(spare, settings.quantile)
        if typical == 0.0 and pull is None:
            return field, "no force", energy
        length = step * (1 - (1 - settings.decay) * iteration / max(iterations - 1, 1))
        gain = -(1 - settings.momentum) * length / max(typical, 1e-30)
        kernels.momentum_step(
            spare, momentum, keep=settings.momentum, gain=gain, cap=settings.cap, taper=work.taper, out=force
        )
        if pull is not None:
            pull.add(force, cap=settings.cap)
        moves.stepped(field, force, spare)
    return field, "all iterations", first
