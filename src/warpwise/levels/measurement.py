"""What a method does with a pair, in figures; every comparison and every search measures by this."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from warpwise.data.people import person
from warpwise.errors import InputError
from warpwise.evaluation.metrics import label_overlap, regularity
from warpwise.image import Image
from warpwise.io.scan import Scan, read_both
from warpwise.methods import Method
from warpwise.registrars.base import Registrar
from warpwise.registration.linear_stages import LinearStages
from warpwise.registration.register import register_scans


@dataclass(frozen=True)
class Row:
    """One method on one pair.

    Attributes:
        people: whom the fixed and the moving image show.
        dice: of each label that both maps hold; moved by nearest neighbour in one resampling.
        seconds: of the registration, files apart.
    """

    method: str
    pair: str
    people: tuple[str, str]
    dice: dict[int, float]
    sd_log_jacobian: float
    percent_folded: float
    percent_ndv: float
    seconds: float
    warnings: tuple[str, ...] = ()

    @property
    def mean_dice(self) -> float:
        """Over labels."""
        return float(np.mean([*self.dice.values()])) if self.dice else float("nan")


Change = Callable[[Image], Image]


def as_it_is(image: Image) -> Image:
    """The change that changes nothing."""
    return image


def run_method(
    name: str,
    method: Method,
    pair: tuple[Scan, Scan],
    labels: Sequence[int],
    *,
    registrar: Registrar | None = None,
    change: Change = as_it_is,
    linear_stages: LinearStages | None = None,
) -> Row:
    """Register one pair and measure it; label maps only measure.

    Args:
        name: what the row is called; method: how to register.
        pair: fixed and moving.
        labels: over which overlap is measured.
        registrar: what `method.build()` gives, where it is at hand.
        change: what is done to both images first, such as noise.
        linear_stages: where linear stages are kept (`register_scans`); of images as they are, alone.

    Raises:
        InputError: an image cannot be used, or a label map is missing.
    """
    fixed, moving = pair
    if fixed.labels is None or moving.labels is None:
        raise InputError(f"{fixed.title} ← {moving.title}: there are no label maps to measure overlap by.")
    scans = read_both(fixed, moving)
    blind = [scan.replaced(image=change(scan.image), labels=None, landmarks=None) for scan in scans]
    kept = linear_stages if change is as_it_is else None
    result = register_scans((blind[0], blind[1]), method, registrar or method.build(), linear_stages=kept)
    maps = [scan.labels for scan in scans]
    assert maps[0] is not None
    assert maps[1] is not None
    shape = regularity(result.transform, maps[0].grid, maps[0].data[0] > 0)
    return Row(
        name,
        f"{fixed.title} ← {moving.title}",
        (person(fixed), person(moving)),
        label_overlap(maps[0], maps[1], result.transform, labels=labels),
        shape.sd_log_jacobian,
        shape.percent_folded,
        shape.percent_ndv,
        float(sum(result.timings_s.values())),
        result.warnings,
    )
