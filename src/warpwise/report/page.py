"""The page itself: one file that opens from disk and asks nothing of any network."""

import base64
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.image import imsave

from warpwise.registration.record import Record
from warpwise.report import FIGURES
from warpwise.report.figures import drawn
from warpwise.report.material import Material
from warpwise.report.planes import grey, views
from warpwise.report.rendering import address, rendered, text_of
from warpwise.report.viewer import bundle, layers

CAPTIONS = {
    "before_after": "Before and after",
    "checkerboard": "Checkerboard",
    "difference": "Difference",
    "deformation": "Deformation grid",
    "evolution": "On the way",
    "jacobian": "Volume change (log Jacobian)",
    "uncertainty": "Uncertainty",
    "convergence": "Convergence",
    "labels": "Overlap of labels",
    "landmarks": "Landmarks",
}
SVG = ("convergence", "labels", "landmarks")  # lines and words; the others are pictures


def page(material: Material) -> str:
    """report.html as text."""
    module, volumes = bundle(), layers(material)
    return rendered(
        "report.html.j2",
        flicker_js=text_of("flicker.js"),
        viewer_js=text_of("viewer.js"),
        title=f"{named(material.record.moving, 'moving')} → {named(material.record.fixed, 'fixed')}",
        verdict=verdict(material.record),
        warnings=[*material.record.warnings, *material.notes],
        tables=[(title, rows) for title, rows in tables(material) if rows],
        flicker=flicker(material),
        shifted=material.shifted,
        figures=[(CAPTIONS[name], data) for name, data in figures(material)],
        module=module if volumes else None,
        layers=[{"name": v.name, "colours": v.colours, "low": v.low, "high": v.high} for v in volumes],
        volumes=[v.file for v in volumes] if module else [],
        planar=material.grid.dim == 2,
        settings=material.record.method.yaml(),
    )


def figures(material: Material) -> list[tuple[str, str]]:
    """Names and data addresses of the figures that have something to show."""
    out: list[tuple[str, str]] = []
    for name in FIGURES:
        figure = FIGURES[name](material)
        if figure is not None:
            out.append((name, address(name, figure, "svg" if name in SVG else "png")))
    return out


def write_figures(folder: Path, material: Material) -> list[Path]:
    """Every figure as PNG and SVG in a folder; the files written."""
    folder.mkdir(parents=True, exist_ok=True)
    out: list[Path] = []
    for name in FIGURES:
        figure = FIGURES[name](material)
        if figure is None:
            continue
        for kind in ("png", "svg"):
            out.append(folder / f"{name}.{kind}")
            out[-1].write_bytes(drawn(name, figure, kind))
    return out


def flicker(material: Material) -> list[dict[str, Any]]:
    """For each plane, the same slice of every image, to be shown in turn."""
    named = [
        ("fixed", material.fixed),
        ("moving, before", material.before),
        ("after affine", material.affine),
        ("warped", material.warped),
    ]
    shown = [(name, volume) for name, volume in named if volume is not None]
    limits = {name: (float(np.percentile(v, 0.5)), float(np.percentile(v, 99.7))) for name, v in shown}
    out: list[dict[str, Any]] = []
    for view in views(material.grid, material.fixed):
        pictures = {name: _png(grey(view.cut(volume), limits[name])) for name, volume in shown}
        height, width = view.cut(material.fixed).shape
        out.append({
            "name": view.name,
            "pictures": pictures,
            "aspect": round(width * view.pixel_mm[0] / (height * view.pixel_mm[1]), 4),
            "letters": dict(zip(("left", "right", "bottom", "top"), view.letters, strict=True)),
        })
    return out


def _png(levels: Any) -> str:
    out = BytesIO()
    imsave(out, levels, cmap="gray", vmin=0, vmax=255, format="png")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode('ascii')}"


def named(path: str, role: str) -> str:
    """A file's name; an image in memory is called by its role."""
    return Path(path).name or role


def verdict(record: Record) -> tuple[str, str]:
    """A word and a colour for the whole."""
    if record.certificate["percent_folded"] or record.certificate["percent_ndv"]:
        return "folded", "bad"
    return ("look closely", "doubt") if record.warnings else ("nothing suspicious", "good")


Rows = Sequence[tuple[str, str]]


def tables(material: Material) -> list[tuple[str, Rows]]:
    """What is worth reading of result.json, in words."""
    record = material.record
    c, scores = record.certificate, record.scores
    spacing = "×".join(f"{v:.3g}" for v in material.grid.spacing_mm)
    length = np.sqrt(np.square(material.displacement_mm).sum(0))
    images: Rows = [
        ("fixed", named(record.fixed, "fixed")),
        ("moving", named(record.moving, "moving")),
        ("fixed grid", f"{'×'.join(map(str, material.grid.shape))} voxels of {spacing} mm"),
        ("displacement", f"{float(length.mean()):.1f} mm on average, {float(length.max()):.1f} mm at most"),
    ]
    quality: list[tuple[str, str]] = [
        ("folded voxels (det J ≤ 0)", f"{c['percent_folded']:g} %"),
        ("non-diffeomorphic volume", f"{c['percent_ndv']:g} %"),
        (
            "forward and inverse agree to",
            f"{c['forward_inverse_mean']:.1g} voxel (mean), {c['forward_inverse_max']:.1g} (largest)",
        ),
    ]
    for name, title, unit in (("dice", "mean Dice", ""), ("tre_mm", "mean landmark error", " mm")):
        if name in scores:
            quality.append((title, f"{scores[name]['mean_before']:.3f} → {scores[name]['mean_after']:.3f}{unit}"))
    for stage in dict.fromkeys(step.stage for step in record.energies):
        energy = record.similarity
        if f"{stage}_before" in energy:
            quality.append((f"energy, {stage}", f"{energy[f'{stage}_before']:.4f} → {energy[f'{stage}_after']:.4f}"))
    registrar = record.method.registrar
    linear = record.method.linear
    kind = ("none" if linear is None else linear.transform) if registrar is None else registrar.kind
    choices = [(name.replace("_", " "), shown(value)) for name, value in record.choices if value not in ({}, "")]
    timings: Rows = [(name, f"{value:.2f} s") for name, value in record.timings_s.items() if name != "report"]
    peak = record.memory_mb.get("peak")
    timings = timings if not peak else [*timings, ("memory at most", f"{peak:.0f} MB")]
    used: Rows = [("deformation", kind), *choices]
    return [("Images", images), ("Quality", quality), ("Settings", used), ("Time", timings)]


def shown(value: object) -> str:
    """A value for people: a mapping as a list of what is in it."""
    return ", ".join(f"{k} ({v:g})" for k, v in value.items()) if isinstance(value, dict) else str(value)
