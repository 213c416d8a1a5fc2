"""The deformable stage of a registration, whole: what it looks at, by what it compares, and whether to believe it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from warpwise.events import Event, OnEvent, ignore
from warpwise.methods import Method
from warpwise.objective import SolverTerms
from warpwise.pair import Pair
from warpwise.registrars.base import PREDICTED, Registrar, Solution
from warpwise.registrars.deformable.contrast import EVIDENT, Seen, evidence, seen, without_shading
from warpwise.registrars.deformable.work import typical
from warpwise.registrars.learned.settings import Network, Refined
from warpwise.similarity.auto import Auto
from warpwise.similarity.learned import LearnedFeatures
from warpwise.volume import scale_factors


@dataclass(frozen=True, eq=False)
class Deformed:
    """What the deformable stage answers.

    Attributes:
        solution: None where the method has no registrar.
        stage: what it is called; terms: what it minimised.
        agreement: of the images' contrast, 1 is the same.
        evidence: what the field explained more than none, where contrasts differ; cautious: whether that was too little.
        even: whether shading that the images do not share was divided out first.
        idle: a word for each term that no scale is coarse enough for.
    """

    solution: Solution | None
    stage: str
    terms: SolverTerms
    agreement: float
    evidence: float | None = None
    cautious: bool = False
    even: bool = False
    idle: tuple[str, ...] = ()

    @property
    def doubtful(self) -> bool:
        """Whether the evidence for the field is weak."""
        return self.evidence is not None and self.evidence < EVIDENT

    @property
    def words(self) -> tuple[str, ...]:
        """What should be said."""
        if self.evidence is None or not self.doubtful:
            return self.idle
        taken = "a smoother deformation was taken" if self.cautious else "it may be wrong; similarity auto is more careful"
        return (
            f"The images show tissue differently, and deforming raises what one explains of the other by "
            f"{100 * self.evidence:.0f} % of its variance: little evidence, so {taken}.",
            *self.idle,
        )

    @property
    def history(self) -> tuple[Event, ...]:
        """Every step."""
        return () if self.solution is None else self.solution.history

    @property
    def stops(self) -> dict[str, tuple[str, ...]]:
        """Why each scale ended."""
        return {} if self.solution is None else {self.stage: self.solution.stops}


def deform(pair: Pair, method: Method, registrar: Registrar | None = None, *, on_step: OnEvent = ignore) -> Deformed:
    """Deform a pair that was brought together linearly, by what a method says for images of such contrast.

    Args:
        pair: under the linear map; method: how to deform.
        registrar: what `method.build()` gives, where it is at hand.
        on_step: told of every iteration.
    """
    asked = method.terms()
    wanted = [term for term in asked.similarities if isinstance(term, LearnedFeatures)]
    pair, (alike, agreement, uneven) = comparable(pair, asked)
    terms = asked.settled(alike=alike)
    if registrar is None or (not alike and registrar.stage != PREDICTED):
        registrar = method.build(alike=alike)
    if registrar is None:
        return Deformed(None, "", terms, agreement)
    predicted = registrar.stage == PREDICTED
    even = uneven and not predicted
    pair = without_shading(pair) if even else pair
    idle = () if predicted else unused(pair, method, wanted)
    found = Deformed(registrar.solve(pair, on_step=on_step), registrar.stage, terms, agreement, even=even, idle=idle)
    led = terms.landmarks is not None and pair.fixed.points is not None  # points are evidence of their own
    if alike or led or method.cautious is None or predicted or found.solution is None:
        return found
    found = replace(found, evidence=evidence(pair, found.solution.field))
    # Who names a similarity gets it, and is told.
    if not found.doubtful or not isinstance(asked.leading, Auto):
        return found
    registrar = method.cautious.build(terms)
    return replace(found, solution=registrar.solve(pair, on_step=on_step), stage=registrar.stage, cautious=True)


def comparable(pair: Pair, terms: SolverTerms) -> tuple[Pair, Seen]:
    """A pair with what its similarities look at beside intensities, and how it shows tissue."""
    wanted = [term for term in terms.similarities if isinstance(term, LearnedFeatures)]
    if wanted:
        from warpwise.registrars.learned.described import described  # noqa: PLC0415 - imports torch

        pair = described(pair, wanted)
    return pair, seen(pair)


def unused(pair: Pair, method: Method, terms: Sequence[LearnedFeatures]) -> tuple[str, ...]:
    """A word for each term of features that takes part at no scale of the method's solver."""
    registrar = method.registrar
    solver = registrar.solver if isinstance(registrar, Refined) else registrar
    if solver is None or isinstance(solver, Network):
        return ()
    grid = pair.fixed.grid
    spacings = [typical(grid.strided(scale_factors(grid, scale.image))) for scale in solver.scales]
    return tuple(
        f"Features of {term.model} took no part: no scale has voxels of {term.least_mm:g} mm, the coarsest "
        f"{max(spacings):.3g} mm. Lower least_mm."
        for term in terms
        if max(spacings) < term.least_mm
    )
