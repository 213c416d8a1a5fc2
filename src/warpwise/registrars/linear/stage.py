"""The linear stage of a registration, whole: what it looks at, where it begins, by what it compares."""

from dataclasses import dataclass

from warpwise.events import OnEvent, ignore
from warpwise.objective import SolverTerms
from warpwise.pair import Pair
from warpwise.registrars.crop import focused
from warpwise.registrars.linear import affine, starts
from warpwise.registrars.linear.affine import LinearSettings, LinearSolution
from warpwise.registrars.linear.contrast import alike
from warpwise.shapes import Matrix4


@dataclass(frozen=True, eq=False)
class Aligned:
    """What the linear stage answers.

    Attributes:
        objects: the two objects alone, at the start.
        measure: by which they were compared; none where nothing moved.
    """

    objects: Pair
    start: starts.Start
    measure: str
    solution: LinearSolution

    @property
    def world(self) -> Matrix4:
        """Fixed mm → moving mm, 4×4."""
        return self.objects.moved(self.solution.to_moving).world

    def applied(self, pair: Pair) -> Pair:
        """A pair of the same images under the map that was found."""
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
    start = (
        starts.given(objects)
        if given
        else starts.choose(objects, terms.labels, sized=settings.transform in ("similarity", "affine"))
    )
    objects = objects.moved(start.to_moving)
    both = terms.leading.linear
    measure = both[0] if both[0] == both[1] or alike(objects) else both[1]
    solution = affine.solve(
        objects, settings, measure=measure, labels=terms.labels, landmarks=terms.landmarks, on_step=on_step
    )
    return Aligned(objects, start, measure, solution)
