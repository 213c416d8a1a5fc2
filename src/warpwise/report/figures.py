"""The figures of a report, each a function of what there is to show."""

from collections.abc import Callable, Sequence
from functools import wraps
from io import BytesIO
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from warpwise.image import intensity_range
from warpwise.report.material import Material, Volume
from warpwise.report.planes import View, views
from warpwise.transforms.affine import Affine

STYLE: Any = {
    "figure.facecolor": "#101418",
    "axes.facecolor": "#101418",
    "savefig.facecolor": "#101418",
    "text.color": "#e8ecf0",
    "axes.labelcolor": "#c4ccd4",
    "axes.edgecolor": "#4a5560",
    "xtick.color": "#9aa6b2",
    "ytick.color": "#9aa6b2",
    "font.size": 9,
    "axes.titlesize": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "warpwise",  # the same figure is the same file
}
_LINES = 24  # of the deformed grid along the shorter side of a plane
_TILES = 7  # of a checkerboard along the shorter side


Draw = Callable[[Material], Figure | None]


def styled(draw: Draw) -> Draw:
    """A figure function in this style, whatever the style of the program around it."""

    @wraps(draw)
    def drawing(material: Material) -> Figure | None:
        with mpl.rc_context(STYLE):
            return draw(material)

    return drawing


def drawn(name: str, figure: Figure, kind: str) -> bytes:
    """A figure as PNG or SVG."""
    out = BytesIO()
    with mpl.rc_context(STYLE):
        meta = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(out, format=kind, dpi=110, bbox_inches="tight", pad_inches=0.05, metadata={**meta, "Title": name})
    return out.getvalue()


@styled
def before_after(material: Material) -> Figure | None:
    """Fixed, moving before, after the linear stage, and warped, in every plane."""
    named = [
        ("fixed", material.fixed),
        ("moving, before", material.before),
        ("after affine", material.affine),
        ("warped", material.warped),
    ]
    rows = [(title, volume, intensity_range(volume)) for title, volume in named if volume is not None]
    return mosaic(material, rows)


@styled
def checkerboard(material: Material) -> Figure | None:
    """Tiles of the fixed image between tiles of the other, before and after."""
    named = [("fixed | moving, before", material.before), ("fixed | warped", material.warped)]
    fixed = scaled(material.fixed)
    rows = [(title, scaled(volume), (0.0, 1.0)) for title, volume in named if volume is not None]
    return mosaic(material, rows, mix=lambda view, plane: tiles(view.cut(fixed), plane))


@styled
def difference(material: Material) -> Figure | None:
    """Fixed less the other, each scaled to its own range, before and after."""
    named = [("fixed − moving, before", material.before), ("fixed − warped", material.warped)]
    fixed = scaled(material.fixed)
    rows = [(title, fixed - scaled(volume), (-1.0, 1.0)) for title, volume in named if volume is not None]
    return mosaic(material, rows, colours="RdBu_r")


@styled
def deformation(material: Material) -> Figure | None:
    """A regular grid of the fixed image, carried to where the deformable part takes it."""
    nonlinear = material.displacement_mm - Affine(np.array(material.record.affine)).displacement(material.grid)
    if not float(np.abs(nonlinear).max()) > 1e-3:
        return None
    figure, axes, planes = canvas(material, 1)
    for axis, view in zip(axes[0], planes, strict=True):
        show(axis, view, view.cut(material.fixed), intensity_range(material.fixed), "gray")
        draw_grid(axis, view, nonlinear, material)
    axes[0][0].set_ylabel("deformation, without affine")
    return figure


@styled
def evolution(material: Material) -> Figure | None:
    """The warped image and the deformed grid after every scale of a solver, or stage of a network, in one plane.

    Energies are of the images of each scale, and so not of one kind; r is of the plane that is shown.
    """
    steps = material.evolution
    if not steps:
        return None
    shape = steps[0].view.cut(steps[0].fixed).shape
    width = 9.0 / len(steps)
    ratio = shape[0] * steps[0].view.pixel_mm[1] / (shape[1] * steps[0].view.pixel_mm[0])
    figure = Figure(figsize=(9.0, min(2 * width * ratio + 0.6, 9.0)), layout="compressed")
    axes: Any = figure.subplots(2, len(steps), squeeze=False)
    limits = intensity_range(material.warped)
    for column, step in zip(axes.T, steps, strict=True):
        planes = step.view.cut(step.fixed), step.view.cut(step.warped)
        show(column[0], step.view, planes[1], limits, "gray")
        show(column[1], step.view, planes[0], intensity_range(material.fixed), "gray")
        draw_grid(column[1], step.view, step.nonlinear_mm, material)
        words = [] if step.energy is None else [f"energy {step.energy:.3f}"]
        with np.errstate(invalid="ignore", divide="ignore"):
            words.append(f"r {np.corrcoef(planes[0].ravel(), planes[1].ravel())[0, 1]:.3f}")
        column[0].set_title(f"{step.name}\n{', '.join(words)}")
    axes[0][0].set_ylabel("warped")
    axes[1][0].set_ylabel("deformation")
    return figure


@styled
def jacobian(material: Material) -> Figure | None:
    """Logarithm of the Jacobian determinant: red where the moving image is larger."""
    values = material.log_jacobian
    reach = max(float(np.percentile(np.abs(values), 99)), 0.05)
    figure, axes, planes = canvas(material, 1)
    picture: Any = None
    for axis, view in zip(axes[0], planes, strict=True):
        picture = show(axis, view, view.cut(values), (-reach, reach), "RdBu_r")
    figure.colorbar(picture, ax=[*axes[0]], shrink=0.7, pad=0.02)
    axes[0][0].set_ylabel("log Jacobian")
    return figure


@styled
def uncertainty(material: Material) -> Figure | None:
    """How surely each voxel goes where it goes, and how sure the learned features are of themselves."""
    named = [("where a voxel goes, ± mm", material.uncertainty), ("features, ± prior's σ", material.feature_uncertainty)]
    rows = [(title, volume) for title, volume in named if volume is not None]
    if not rows:
        return None
    figure, axes, planes = canvas(material, len(rows))
    for row, (title, volume) in zip(axes, rows, strict=True):
        low, high = (float(v) for v in np.percentile(volume, (1, 99)))
        picture: Any = None
        for axis, view in zip(row, planes, strict=True):
            picture = show(axis, view, view.cut(volume), (low, max(high, low + 1e-6)), "magma")
        figure.colorbar(picture, ax=[*row], shrink=0.7, pad=0.02)
        row[0].set_ylabel(title)
    return figure


@styled
def convergence(material: Material) -> Figure | None:
    """The energy over the iterations of every scale, stages side by side."""
    steps = material.record.energies
    stages = list(dict.fromkeys(step.stage for step in steps))
    if not stages:
        return None
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    for axis, stage in zip(np.atleast_1d(figure.subplots(1, len(stages))), stages, strict=True):
        mine = [step for step in steps if step.stage == stage]
        at = np.arange(1, len(mine) + 1)
        first = [n for n, step in enumerate(mine) if step.iteration == 1]
        for n, start in enumerate(first):
            end = [*first, len(mine)][n + 1]
            label = f"scale {mine[start].scale}"
            axis.plot(at[start:end], [step.energy for step in mine[start:end]], ".-", label=label, lw=1.2, ms=3)
        axis.set(title=stage, xlabel="iteration", ylabel="energy" if stage == stages[0] else "")
        axis.legend(frameon=False, fontsize=7)
    return figure


@styled
def labels(material: Material) -> Figure | None:
    """Dice of every label before and after; a box plot where there are many."""
    scores = material.record.scores.get("dice")
    return None if not scores else paired(scores, "Dice", "label")


@styled
def landmarks(material: Material) -> Figure | None:
    """Error of every landmark before and after."""
    scores = material.record.scores.get("tre_mm")
    return None if not scores else paired(scores, "registration error, mm", "landmark")


def paired(scores: dict[str, Any], unit: str, what: str, *, most: int = 40) -> Figure:
    """Values before and after, by name."""
    names = [*scores["after"]]
    before = np.array([scores["before"].get(name, np.nan) for name in names])
    after = np.array([scores["after"][name] for name in names])
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    axis = figure.subplots()
    if len(names) > most:
        lines = {"color": "#9aa6b2"}
        axis.boxplot(
            [before[np.isfinite(before)], after],
            orientation="horizontal", tick_labels=["before", "after"], widths=0.5,
            boxprops=lines, whiskerprops=lines, capprops=lines, medianprops={"color": "#4db6ac", "linewidth": 2},
            flierprops={"markeredgecolor": "#9aa6b2", "markersize": 3},
        )  # fmt: skip
        axis.set(xlabel=f"{unit}, {len(names)} {what}s")
    else:
        at = np.arange(len(names))
        axis.bar(at - 0.2, before, 0.4, label="before", color="#7a8794")
        axis.bar(at + 0.2, after, 0.4, label="after", color="#4db6ac")
        axis.set_xticks(at, [escaped(name) for name in names], rotation=60 if len(names) > 12 else 0)
        axis.set(ylabel=unit, xlabel=what)
        axis.legend(frameon=False)
    return figure


def escaped(text: str) -> str:
    """Text that matplotlib must not take for a formula, cut where it is long."""
    return (text[:16] + "…" if len(text) > 17 else text).replace("$", r"\$")


def scaled(volume: Volume) -> Volume:
    """Robust range brought to 0 … 1."""
    low, high = intensity_range(volume)
    return np.clip((volume - np.float32(low)) / np.float32(max(high - low, 1e-12)), 0, 1)


def tiles(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """A checkerboard of two planes."""
    size = max(min(one.shape) // _TILES, 2)
    y, x = np.indices(one.shape) // size
    return np.where((x + y) % 2 == 0, one, other)


def canvas(material: Material, rows: int) -> tuple[Figure, Any, list[View]]:
    """A figure with a row of planes for each of `rows`."""
    planes = views(material.grid, material.fixed)
    sizes = [view.cut(material.fixed).shape for view in planes]
    widths = [size[1] * view.pixel_mm[0] for view, size in zip(planes, sizes, strict=True)]
    heights = [size[0] * view.pixel_mm[1] for view, size in zip(planes, sizes, strict=True)]
    width = 9.0 if len(planes) > 1 else 5.0
    height = rows * min(max(heights) / max(sum(widths), 1e-9) * width + 0.1, 6.0)
    figure = Figure(figsize=(width, height), layout="compressed")
    axes = figure.subplots(rows, len(planes), squeeze=False, width_ratios=widths)
    return figure, axes, planes


def show(axis: Any, view: View, plane: NDArray[np.float32], limits: tuple[float, float], colours: str) -> Any:
    """One plane on one axis, with its edges named."""
    picture = axis.imshow(
        plane, origin="lower", aspect=view.aspect, cmap=colours, vmin=limits[0], vmax=limits[1], interpolation="nearest"
    )
    axis.set(xticks=[], yticks=[])
    left, right, bottom, top = view.letters
    for at, text in (((0.02, 0.5), left), ((0.98, 0.5), right), ((0.5, 0.03), bottom), ((0.5, 0.97), top)):
        axis.text(*at, text, transform=axis.transAxes, ha="center", va="center", color="#ffb74d", fontsize=7)
    return picture


def mosaic(
    material: Material,
    rows: Sequence[tuple[str, Volume, tuple[float, float]]],
    *,
    colours: str = "gray",
    mix: Any = None,
) -> Figure:
    """Rows of planes, one volume a row."""
    figure, axes, planes = canvas(material, len(rows))
    for row, (title, volume, limits) in zip(axes, rows, strict=True):
        for axis, view in zip(row, planes, strict=True):
            plane = view.cut(volume)
            show(axis, view, plane if mix is None else mix(view, plane), limits, colours)
        row[0].set_ylabel(title)
    return figure


def draw_grid(axis: Any, view: View, displacement_mm: NDArray[np.float32], material: Material) -> None:
    """Lines of constant position, carried along by the in-plane part of a displacement."""
    grid = material.grid
    voxels = np.einsum("ij,j...->i...", grid.inverse_affine[:-1, :-1], displacement_mm).astype(np.float32)
    across, up = (
        (-1 if turned else 1) * view.cut(voxels[axis_])
        for axis_, turned in zip(view.axes[:2], view.turned[:2], strict=True)
    )
    height, width = across.shape
    step = max(min(height * view.pixel_mm[1], width * view.pixel_mm[0]) / _LINES, 1e-9)
    y, x = np.indices(across.shape)
    # Whole steps: those of fractions may round to one line too many.
    for at in range(0, width, max(int(step / view.pixel_mm[0]), 1)):
        axis.plot((x + across)[:, at], (y + up)[:, at], color="#4dd0e1", lw=0.6)
    for at in range(0, height, max(int(step / view.pixel_mm[1]), 1)):
        axis.plot((x + across)[at], (y + up)[at], color="#4dd0e1", lw=0.6)
    axis.set(xlim=(-0.5, width - 0.5), ylim=(-0.5, height - 0.5))
