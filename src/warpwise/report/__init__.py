"""A page to look at: what was aligned, how well, and whether to trust it. Needs the `report` extra."""

from warpwise.extras import need
from warpwise.tables import Table

FIGURES = Table(
    "figure",
    {
        "before_after": "warpwise.report.figures:before_after",
        "checkerboard": "warpwise.report.figures:checkerboard",
        "difference": "warpwise.report.figures:difference",
        "deformation": "warpwise.report.figures:deformation",
        "evolution": "warpwise.report.figures:evolution",
        "jacobian": "warpwise.report.figures:jacobian",
        "uncertainty": "warpwise.report.figures:uncertainty",
        "convergence": "warpwise.report.figures:convergence",
        "labels": "warpwise.report.figures:labels",
        "landmarks": "warpwise.report.figures:landmarks",
    },
)
"""Each is a function of a `Material` that gives a figure, or None where it has nothing to show."""


def available() -> None:
    """Refuse a report that could not be drawn, before any work is done.

    Raises:
        InputError: matplotlib or Jinja2 is not installed.
    """
    need("matplotlib", "jinja2", what="A report")
