"""What a long computation tells whoever listens: one kind of event for solvers, trainings and searches."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Event:
    """Something that has just happened.

    Attributes:
        stage: where: affine, greedy, train, validation …; note for a mere word.
        step, steps: how far the stage is, and how far it goes at most.
        values: what was measured there by name: energy; loss and its terms; Dice …; lower or higher as the name has it.
        scale: how often images are halved at present, for stages that go from coarse to fine.
        elapsed_s: seconds that the whole run has taken so far, where it counts them.
        best: whether nothing before was as good, for a stage that judges.
        text: for people; the whole of a note.
    """

    stage: str
    step: int = 0
    steps: int = 0
    values: Mapping[str, float] = field(default_factory=dict[str, float])
    scale: int | None = None
    elapsed_s: float = 0.0
    best: bool = False
    text: str = ""

    @property
    def energy(self) -> float:
        """What a solver minimises; NaN where nothing was said of it."""
        return self.values.get("energy", float("nan"))


OnEvent = Callable[[Event], None]


def note(text: str) -> Event:
    """A word to whoever listens."""
    return Event("note", text=text)


def ignore(event: Event) -> None:
    """The callback for those who do not want to know."""
