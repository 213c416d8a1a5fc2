"""The linear stage of a registration, whole: what it looks at, where it begins, by what it compares."""

from dataclasses import dataclass, replace

from warpwise.events import OnEvent, ignore
from warpwise.objective import SolverTerms
from warpwise.pair import Pair
from warpwise.registrars.crop import focused
from warpwise.registrars.linear import affine, shading, starts, stripped
from warpwise.registrars.linear.affine import LinearSettings, LinearSolution
from warpwise.registrars.linear.contrast import alike
from warpwise.registrars.linear.gauss_newton import Problem
from warpwise.shapes import Matrix4

NEARLY = 0.95  # times the local correlation: a map seen through a mask may be so much worse


@dataclass(frozen=True, eq=False)
class Aligned:
    """What the linear stage answers.

    Attributes:
        objects: the two objects alone, at the start.
        measure: by which they were compared; none where nothing moved.
        cut_out: which image shows a part of what the other shows, so that its blank background counts as a mask, if any.
        shading: how strong the shading is that they do not share (`shading.relative`); flattened: whether they were
            compared without it.
    """

    objects: Pair
    start: starts.Start
    measure: str
    solution: LinearSolution
    cut_out: stripped.Side | None = None
    shading: float = 0.0
    flattened: bool = False

    @property
    def world(self) -> Matrix4:
        """Fixed mm → moving mm, 4×4."""
        return self.objects.moved(self.solution.to_moving).world

    def agreement(self, matrix: Matrix4 | None = None, *, objects: Pair | None = None) -> float:
        """Mean squared local correlation, which shading does not touch: under the map that was found or another (fixed
        index → moving index), of these objects or of others that see the same images otherwise."""
        pair = self.objects if objects is None else objects
        small = starts.coarsest(pair.moved(self.solution.to_moving if matrix is None else matrix), shading.VOXELS)
        return -Problem(small, "lncc").value(small.to_moving)

    def applied(self, pair: Pair) -> Pair:
        """A pair of the same images under the map that was found, and with the mask."""
        pair = pair if self.cut_out is None else stripped.masked(pair, self.cut_out)
        return pair.moved(affine.lift(self.solution.to_moving, self.objects, pair))


@dataclass(frozen=True)
class _Aligner:
    """Start and linear registration of two objects, however they are seen."""

    settings: LinearSettings
    terms: SolverTerms
    given: bool
    on_step: OnEvent

    def __call__(self, objects: Pair) -> Aligned:
        """As they are."""
        freedom, labels = self.settings.transform, self.terms.labels
        start = starts.given(objects) if self.given else starts.choose(objects, labels, freedom=freedom)
        objects = objects.moved(start.to_moving)
        both = self.terms.leading.linear
        measure = both[0] if both[0] == both[1] or alike(objects) else both[1]
        solution = affine.solve(
            objects,
            self.settings,
            measure=measure,
            labels=labels,
            landmarks=self.terms.landmarks,
            on_step=self.on_step,
        )
        return Aligned(objects, start, measure, solution)

    def masked(self, plain: Aligned, objects: Pair) -> Aligned | None:
        """With the mask of an image that was cut out, where the other one goes on beyond; how they lie without is given."""
        side = stripped.suspect(objects, sized=self.settings.transform in ("similarity", "affine"))
        if side is None:
            return None
        within = stripped.masked(objects, side)
        found = self(within)
        no_worse = found.agreement() > NEARLY * plain.agreement(objects=within)
        goes_on = stripped.beyond(within.moved(found.solution.to_moving), side) > stripped.GOES_ON
        return replace(found, cut_out=side) if no_worse and goes_on else None

    def flattened(self, objects: Pair) -> Aligned:
        """Without shading; start and objects are told of the images as they are."""
        found = self(shading.flattened(objects))
        objects = objects.moved(found.start.to_moving)
        start = replace(starts.given(objects), name=found.start.name)
        return replace(found, objects=objects, start=start, flattened=True)


def align(
    pair: Pair, settings: LinearSettings | None, terms: SolverTerms, *, given: bool = False, on_step: OnEvent = ignore
) -> Aligned:
    """Search a start (unless one is given in `pair.to_moving`) and register linearly from there.

    Only the two objects are looked at, so that empty space round them does not matter. Without settings the images stay
    as `pair.to_moving` has them.
    """
    objects = focused(pair)
    if settings is None:
        start = starts.given(objects)
        solution = LinearSolution(objects.to_moving, -start.correlation, (), ())
        return Aligned(objects, start, "none", solution)
    aligner = _Aligner(settings, terms, given, on_step)
    plain = aligner(objects)
    best = aligner.masked(plain, objects) or plain
    objects = best.objects.moved(objects.to_moving)  # with the mask, where there is one
    uneven = shading.strength(objects.moved(best.solution.to_moving))
    turned = starts.rotation_degrees(best.world[:3, :3]) > starts.TURNED
    if uneven > shading.STRONG or turned:
        # Shading misleads all that looks far, and may have turned the images: once more without it, and the better of both.
        # Of images that show tissue differently that is not known: contrast looks like shading, and agrees by chance.
        other = replace(aligner.flattened(objects), cut_out=best.cut_out)
        there = objects.moved(other.solution.to_moving)
        if other.agreement() > best.agreement() and alike(there):
            best, uneven = other, shading.strength(there)
    return replace(best, shading=uneven)
