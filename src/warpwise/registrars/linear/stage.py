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
        uneven: how strong the shading is that they do not share (`shading.relative`), where that matters, else 0.
        cut_out: whether the blank background of one image counts as a mask, since the other image goes on beyond.
    """

    objects: Pair
    start: starts.Start
    measure: str
    solution: LinearSolution
    uneven: float = 0.0
    cut_out: bool = False

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
        pair = (stripped.cut_out(pair) or pair) if self.cut_out else pair
        return pair.moved(affine.lift(self.solution.to_moving, self.objects, pair))


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
    aligned = _aligned(objects, settings, terms, given=given, on_step=on_step)
    masked = stripped.cut_out(objects)
    if masked is not None:
        other = _aligned(masked, settings, terms, given=given, on_step=on_step)
        no_worse = other.agreement() > NEARLY * aligned.agreement(objects=masked)
        if no_worse and stripped.beyond(masked.moved(other.solution.to_moving)) > stripped.GOES_ON:
            return replace(other, cut_out=True)
    turned = starts.rotation_degrees(aligned.world[:3, :3]) > starts.TURNED
    if not turned and shading.strength(aligned.applied(objects)) < shading.STRONG:
        return aligned
    # Shading misleads all that looks far, and may have turned the images: once more without it, and the better of both.
    other = _aligned(shading.flattened(objects), settings, terms, given=given, on_step=on_step)
    other = replace(other, objects=objects.moved(other.start.to_moving))
    best = other if other.agreement() > aligned.agreement() else aligned
    uneven = shading.strength(best.applied(objects))
    return replace(best, uneven=uneven if uneven > shading.STRONG else 0.0)


def _aligned(objects: Pair, settings: LinearSettings, terms: SolverTerms, *, given: bool, on_step: OnEvent) -> Aligned:
    """Start and linear registration of two objects."""
    sized = settings.transform in ("similarity", "affine")
    start = starts.given(objects) if given else starts.choose(objects, terms.labels, sized=sized)
    objects = objects.moved(start.to_moving)
    both = terms.leading.linear
    measure = both[0] if both[0] == both[1] or alike(objects) else both[1]
    solution = affine.solve(
        objects, settings, measure=measure, labels=terms.labels, landmarks=terms.landmarks, on_step=on_step
    )
    return Aligned(objects, start, measure, solution)
