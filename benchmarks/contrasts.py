"""Across contrasts: overlap between people whose moving image got another contrast, and how far one person's scans, bent
by nothing or by a known smooth field, are moved wrongly.

    python benchmarks/contrasts.py DATA --greedy PYTHON [--ants 4] [--pairs 12] [--methods auto,lncc,mi]

DATA holds oasis-mals, multicontrast, ms-multicontrast and spine-multicontrast; PYTHON is an interpreter with picsl_greedy.
Copies are made of the stored intensities, whatever is compared; label maps only measure. Rows carry commit, load and seed;
those of methods that are not run again stay.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, markdown_table
from scipy.ndimage import gaussian_filter

import warpwise as ww
from warpwise.evaluation.metrics import dice as overlap
from warpwise.evaluation.metrics import label_overlap, regularity, shared_labels
from warpwise.image import Image
from warpwise.io.datasets import read_dataset
from warpwise.io.images import read_image, write_image
from warpwise.methods import Method
from warpwise.resampling import resample
from warpwise.transforms.base import Composite, Transform
from warpwise.transforms.displacement import DisplacementField

HERE = Path(__file__).parent
SEED = 0
# Share of the 99.5th percentile → intensity: a smooth curve that neither rises nor falls throughout, as PD has of T1.
PD_CURVE = ([0, 0.15, 0.35, 0.55, 0.75, 0.9, 1], [0.9, 0.95, 0.7, 0.62, 0.75, 0.35, 0.25])
UNBENT = {
    "T1 ← PD": ("multicontrast/chris_t1.nii.gz", "multicontrast/chris_PD.nii.gz", 2.4),
    "T1 ← FLAIR": ("ms-multicontrast/images/t1.nii.gz", "ms-multicontrast/images/flair.nii.gz", 3.0),
    "FLAIR ← T1": ("ms-multicontrast/images/flair.nii.gz", "ms-multicontrast/images/t1.nii.gz", 3.0),
    "neck, T1 ← T2": ("spine-multicontrast/images/t1.nii.gz", "spine-multicontrast/images/t2.nii.gz", 1.0),
}
BENDS_MM, BEND_SIGMA_MM = (0.0, 2.0, 4.0, 6.0), 20.0


def shares(image: Image) -> tuple[np.ndarray, np.ndarray]:
    """Intensities over their 99.5th percentile, 0 … 1, and where there is an object."""
    data = image.data.astype(np.float32)
    inside = data > 0
    return np.clip(data / np.percentile(data[inside], 99.5), 0, 1), inside


def inverted(image: Image) -> Image:
    """Dark for bright, air left dark."""
    share, inside = shares(image)
    return Image(np.where(inside, 1.05 - share, 0).astype(np.float32), image.grid, name=image.name)


def pd_like(image: Image) -> Image:
    """`PD_CURVE` and a little noise."""
    share, inside = shares(image)
    noise = np.random.default_rng(SEED).normal(0, 0.01, share.shape)
    value = np.interp(share, *PD_CURVE) + noise
    return Image(np.where(inside, value, 0).astype(np.float32), image.grid, name=image.name)


COPIES: dict[str, Callable[[Image], Image]] = {"unchanged": lambda image: image, "inverted": inverted, "PD-like": pd_like}


def chosen(name: str) -> Method:
    """`balanced`, with a similarity of this name."""
    return Method.named("balanced").changed({"objective.similarity.term": name})


def greedy(
    python: str,
    fixed: Image,
    moving: Image,
    labels: Image,
    *,
    measure: str = "NMI",
    width: float = 0.707,
    keep: Path | None = None,
) -> tuple[Image, float, float]:
    """greedy with one measure in both stages, a width of its field in voxels and its defaults else: labels moved, CPU
    seconds, wall seconds; its warp is kept where that is wanted."""
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        for name, image in (("f", fixed), ("m", moving), ("l", labels)):
            write_image(at / f"{name}.nii.gz", image)
        options = f"-threads 2 -m {measure} -n 100x50x10"
        lines = [
            f"{options} -i {at}/f.nii.gz {at}/m.nii.gz -a -dof 12 -ia-image-centers -o {at}/a.mat",
            f"{options} -i {at}/f.nii.gz {at}/m.nii.gz -it {at}/a.mat -s 1.732vox {width}vox -o {at}/w.nii.gz",
            f"-threads 2 -rf {at}/f.nii.gz -ri NN -rm {at}/l.nii.gz {at}/o.nii.gz -r {at}/w.nii.gz {at}/a.mat",
        ]
        program = f"from picsl_greedy import Greedy3D\ng = Greedy3D()\nfor line in {lines!r}: g.execute(line)"
        before, began = os.times(), time.perf_counter()
        subprocess.run([python, "-c", program], check=True, capture_output=True)
        after = os.times()
        if keep is not None:
            shutil.copy(at / "w.nii.gz", keep)
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        return read_image(at / "o.nii.gz", kind="labels"), cpu, time.perf_counter() - began


def syn_quick(fixed: Image, moving: Image, labels: Image) -> tuple[Image, float, float]:
    """antsRegistrationSyNQuick with its defaults: labels moved, CPU seconds, wall seconds."""
    worker = [sys.executable, str(HERE / "peer_worker.py"), "ants-synquick"]
    environment = {**os.environ, "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "2"}
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        for name, image in (("f", fixed), ("m", moving), ("l", labels)):
            write_image(at / f"{name}.nii.gz", image)
        before, began = os.times(), time.perf_counter()
        command = [*worker, f"{at}/f.nii.gz", f"{at}/m.nii.gz", str(at)]
        subprocess.run(command, check=True, capture_output=True, env=environment)
        after, wall = os.times(), time.perf_counter() - began
        command = [*command, f"{at}/l.nii.gz", f"{at}/o.nii.gz", "full"]
        subprocess.run(command, check=True, capture_output=True, env=environment)
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        return read_image(at / "o.nii.gz", kind="labels"), cpu, wall


def between_people(data: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Every copy of every pair by every method."""
    dataset = read_dataset(data / "oasis-mals" / "dataset.json")
    rows: list[dict[str, Any]] = []
    for number, (fixed, moving) in enumerate(dataset.validation_pairs[: options.pairs]):
        images = [read_image(scan.image) for scan in (fixed, moving)]
        maps = [read_image(scan.labels, kind="labels") for scan in (fixed, moving)]
        for copy, change in COPIES.items():
            changed = change(images[1])
            for name in options.methods.split(","):
                began, cpu = time.perf_counter(), time.process_time()
                result = ww.register(images[0], changed, method=chosen(name))
                spent = (time.perf_counter() - began, time.process_time() - cpu)
                dice = label_overlap(*maps, result.transform, labels=dataset.averaged)
                shape = regularity(result.transform, maps[0].grid, maps[0].data[0] > 0)
                rows.append(
                    row(fixed, moving, copy, f"balanced, {name}", dice, spent)
                    | {
                        "sd_log_jacobian": shape.sd_log_jacobian,
                        "percent_folded": shape.percent_folded,
                        "similarity": result.choices.similarity,
                        "agreement": result.choices.contrast_agreement,
                        "evidence": result.choices.evidence,
                    }
                )
            peers: dict[str, Callable[[], tuple[Image, float, float]]] = {}
            if options.greedy and copy != "unchanged":
                peers["greedy, NMI"] = partial(greedy, options.greedy, images[0], changed, maps[1])
            if number < options.ants and copy != "unchanged":
                peers[f"ANTs SyNQuick, {options.ants} pairs"] = partial(syn_quick, images[0], changed, maps[1])
            for name, peer in peers.items():
                warped, cpu_s, wall_s = peer()
                wanted = shared_labels(maps[0].data, maps[1].data, dataset.averaged)
                dice = overlap(maps[0].data[0], warped.data[0], labels=wanted)
                rows.append(row(fixed, moving, copy, name, dice, (wall_s, cpu_s)))
            print(
                f"{fixed.title} ← {moving.title}, {copy}", {r["method"]: round(r["dice"], 4) for r in rows[-4:]}, flush=True
            )
    return rows


def row(
    fixed: Any, moving: Any, copy: str, method: str, dice: dict[int, float], spent: tuple[float, float]
) -> dict[str, Any]:
    """One method on one pair."""
    return {
        "pair": f"{fixed.title} ← {moving.title}",
        "copy": copy,
        "method": method,
        "dice": float(np.mean([*dice.values()])),
        "seconds": round(spent[0], 2),
        "cpu_s": round(spent[1], 2),
        "load": round(os.getloadavg()[0], 2),
        "seed": SEED,
        "commit": machine()["commit"],
    }


def bend(image: Image, largest_mm: float) -> Transform:
    """A known smooth displacement, its longest vector `largest_mm`."""
    grid, rng = image.grid, np.random.default_rng(SEED)
    widths = [BEND_SIGMA_MM / s for s in grid.spacing_mm]
    noise = np.stack([gaussian_filter(rng.normal(size=grid.shape), widths) for _ in range(3)])
    noise *= largest_mm / np.sqrt((noise**2).sum(0)).max()
    return DisplacementField(noise.astype(np.float32), grid)


def one_person(data: Path) -> list[dict[str, Any]]:
    """Distance from the truth over the fixed foreground: the known bend, then the rigid answer of the scans as they are."""
    rows: list[dict[str, Any]] = []
    for name, (one, other, slice_mm) in UNBENT.items():
        fixed, moving = (read_image(data / path) for path in (one, other))
        rigid = ww.register(fixed, moving, method="rigid").transform
        for largest in BENDS_MM:
            field = bend(fixed, largest)
            bent = resample(fixed, fixed.grid, field)
            truth = Composite((field, rigid)).displacement(fixed.grid)
            bright = bent.data[0] > 0.1 * np.percentile(bent.data[0], 99.5)
            for method in ("affine", "balanced"):
                result = ww.register(bent, moving, method=method)
                error = np.sqrt(((result.displacement_mm - truth) ** 2).sum(0))[bright]
                rows.append({
                    "scans": name,
                    "slice_mm": slice_mm,
                    "bend_mm": largest,
                    "method": method,
                    "mean_mm": round(float(error.mean()), 3),
                    "p99_mm": round(float(np.percentile(error, 99)), 3),
                    "largest_mm": round(float(error.max()), 3),
                    "evidence": result.choices.evidence,
                    "cautious": result.choices.cautious,
                    "warnings": list(result.warnings),
                    "load": round(os.getloadavg()[0], 2),
                    "seed": SEED,
                })
            print(name, largest, {r["method"]: (r["mean_mm"], r["largest_mm"]) for r in rows[-2:]}, flush=True)
    return rows


def interval(values: dict[str, list[float]]) -> str:
    """Mean and its 95 % interval by bootstrap over fixed people."""
    people = [np.array(v) for v in values.values()]
    rng = np.random.default_rng(SEED)
    draws = [np.concatenate([people[k] for k in rng.integers(0, len(people), len(people))]).mean() for _ in range(2000)]
    low, high = np.percentile(draws, [2.5, 97.5])
    return f"{np.concatenate(people).mean():.3f} ({low:.3f}–{high:.3f})"


def kept(path: Path, again: set[str]) -> list[dict[str, Any]]:
    """Rows of an earlier run by methods that were not run again, each with its commit."""
    if not path.exists():
        return []
    earlier = json.loads(path.read_text(encoding="utf-8"))
    rows = [r for r in earlier["between_people"] if r["method"] not in again]
    return [{"commit": earlier["commit"], **r} for r in rows]


def report(content: dict[str, Any]) -> str:
    """Both tables as Markdown."""
    lines = [f"# Across contrasts\n\n`{content['command']}`, commit {content['commit']}, {content['cpu']}.\n"]
    rows = content["between_people"]
    methods = list(dict.fromkeys(r["method"] for r in rows))
    table: list[list[str]] = []
    for method in methods:
        commits = dict.fromkeys(r.get("commit", content["commit"]) for r in rows if r["method"] == method)
        cells = [f"{method} ({', '.join(commits)})"]
        for copy in COPIES:
            mine = [r for r in rows if r["method"] == method and r["copy"] == copy]
            by: dict[str, list[float]] = {}
            for r in mine:
                by.setdefault(r["pair"].split(" ")[0], []).append(r["dice"])
            cells.append(interval(by) if mine else "–")
        mine = [r for r in rows if r["method"] == method]
        rough = [r["sd_log_jacobian"] for r in mine if "sd_log_jacobian" in r and r["copy"] != "unchanged"]
        cells += [f"{np.mean(rough):.2f}" if rough else "not measured", f"{np.median([r['cpu_s'] for r in mine]):.1f}"]
        table.append(cells)
    lines += markdown_table(["mean Dice (95 % interval, fixed people drawn)", *COPIES, "SDlogJ, changed", "CPU s"], table)
    lines += ["", "One person's scans, distance from the truth (mean, largest), mm:", ""]
    people = content["one_person"]
    table = []
    for name in UNBENT:
        for largest in BENDS_MM:
            mine = {r["method"]: r for r in people if r["scans"] == name and r["bend_mm"] == largest}
            cells = [f"{mine[m]['mean_mm']:.2f}, {mine[m]['largest_mm']:.1f}" for m in ("affine", "balanced")]
            table.append([name, f"{largest:g}", *cells, "yes" if mine["balanced"]["cautious"] else "no"])
    lines += markdown_table(["scans", "known bend, mm at most", "affine", "balanced", "cautious"], table)
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--greedy", default="")
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--methods", default="auto,lncc,mi")
    parser.add_argument("--ants", type=int, default=0, help="of so many pairs; antspyx must be installed")
    options = parser.parse_args()
    content: dict[str, Any] = machine()
    told = f"--pairs {options.pairs} --methods {options.methods} --greedy PYTHON --ants {options.ants}"
    content["command"] = f"python benchmarks/contrasts.py DATA {told}"
    content["one_person"] = one_person(options.data)
    results = HERE / "results"
    found = between_people(options.data, options)
    content["between_people"] = found + kept(results / "contrasts.json", {r["method"] for r in found})
    (results / "contrasts.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (results / "contrasts.md").write_text(report(content), encoding="utf-8")


if __name__ == "__main__":
    main()
