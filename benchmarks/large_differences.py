"""Large differences: sizes, shading, cut-out backgrounds, orientations, padding, atrophy, and warnings that are none.

    python benchmarks/large_differences.py DATA --as after --cache FOLDER [--greedy PYTHON]

DATA holds oasis-mals and hippocampus-msd. Phantoms and their faults are drawn here, from seeds that nothing was chosen on;
brains grow old by `warpwise.synthetic.atrophy` (kept in the cache, so that an older checkout can be given the same ones:
PYTHONPATH=OLD/src … --as before). Every row carries commit, load and seed.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, markdown_table
from contrasts import greedy
from scipy.ndimage import binary_dilation, distance_transform_edt, gaussian_filter

import warpwise as ww
from warpwise.evaluation.metrics import dice as overlap
from warpwise.evaluation.metrics import label_overlap, regularity, shared_labels
from warpwise.grid import Grid
from warpwise.image import Image
from warpwise.io.datasets import read_dataset
from warpwise.io.images import read_image, write_image
from warpwise.io.transforms import read_transform
from warpwise.resampling import resample
from warpwise.synthetic.deformations import small_rotation
from warpwise.synthetic.phantoms import KnownPair, brain_pair

HERE = Path(__file__).parent
SEEDS = (20, 21, 22, 23)
LATER_SEEDS = tuple(range(30, 42))
SHAPE = (64, 76, 60)
STILL = np.eye(4)
VENTRICLES = (4, 11, 49, 50, 51, 52)
DEEP_GREY = (31, 32, 36, 37, 47, 48, 57, 58, 59, 60)
SUBCORTICAL = (*DEEP_GREY, 23, 30, 55, 56)
GROWTHS = (3.0, 4.0, 5.0)  # asked of the ventricles; what they do is a column, less, since rims are part tissue


def of(image: Image, data: np.ndarray) -> Image:
    return Image(np.ascontiguousarray(data[None]), image.grid, name=image.name)


def gained(image: Image, times: float, axis: int) -> Image:
    """A gain that runs over so many times from one side to the other."""
    ramp = np.exp(np.linspace(-0.5, 0.5, image.grid.shape[axis]) * np.log(times))
    return of(image, np.rint(image.data[0] * ramp.reshape([-1 if a == axis else 1 for a in range(3)])).astype(np.int32))


def shaded(image: Image, sd: float, seed: int) -> Image:
    """A smooth random gain whose logarithm has this standard deviation."""
    noise = np.random.default_rng(seed).normal(size=image.grid.shape)
    field = gaussian_filter(noise, [n / 6 for n in image.grid.shape])
    field *= sd / field.std()
    return of(image, np.rint(image.data[0].astype(np.float64) * np.exp(field - field.mean()) * 4).astype(np.int32))


def posed(image: Image, matrix: np.ndarray) -> Image:
    return Image(image.data, Grid(image.grid.shape, matrix @ image.grid.affine), name=image.name)


def half_turn(axis: int) -> np.ndarray:
    return np.diag([1.0 if a in (axis, 3) else -1.0 for a in range(4)])


def scaled(times: float) -> np.ndarray:
    return np.diag([times, times, times, 1.0])


def stripped(image: Image, labels: Image) -> Image:
    return of(image, image.data[0] * (labels.data[0] > 0))


def headed(image: Image, labels: Image, seed: int) -> Image:
    """The brain in a dark skull and a bright scalp, on noisy air."""
    pad = 12
    brain, inside = (np.pad(x.data[0], pad) for x in (image, labels))
    affine = image.grid.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ np.full(3, pad)
    away = distance_transform_edt(inside == 0, sampling=image.grid.spacing_mm)
    rng = np.random.default_rng(seed)
    scalp = (away > 8) & (away < 16)
    head = np.where(scalp, 900 + 50 * rng.standard_normal(brain.shape), np.where(inside > 0, brain, 0))
    data = np.rint(head + np.abs(10 * rng.standard_normal(brain.shape))).astype(np.int16)
    return Image(data[None], Grid(data.shape, affine), name="head")


def on_a_table(image: Image) -> Image:
    data = image.data[0].copy()
    data[:, 10:-10, 2:6] = 900
    return of(image, data)


def as_ct(image: Image, padding: int, seed: int) -> Image:
    """Hounsfield units, and what scanners write where nothing was measured."""
    data = image.data[0].astype(np.int16) * 2 - 1000
    low, high = np.random.default_rng(seed).integers(8, 14, 2)
    data[:low, :high] = padding
    data[-low:, :, -high:] = padding
    return of(image, data)


def coarse_mask(labels: Image, step: int) -> Image:
    grown = binary_dilation(labels.data[0] > 0, iterations=2)[::step, ::step, ::step]
    return Image(grown[None].astype(np.uint8), labels.grid.strided((step,) * 3), "mask")


Case = tuple[str, Any, Any, np.ndarray]
"""Name, fixed, moving, and where the moving image was put after the truth."""


def phantoms(pair: KnownPair, seed: int) -> Iterator[Case]:
    """Every fault on one phantom."""
    fixed, moving = pair.fixed, pair.moving
    maps = pair.fixed_labels, pair.moving_labels
    yield "as it is", fixed, moving, STILL
    for size in (0.7, 1.4, 1.6, 2.0):
        yield f"× {size} in size", fixed, posed(moving, scaled(size)), scaled(size)
    for times in (4.0, 8.0):
        yield f"gain × {times:g}", fixed, gained(moving, times, seed % 3), STILL
    yield "shading, SD 0.3", shaded(fixed, 0.3, seed), shaded(moving, 0.3, seed + 100), STILL
    for name, axis in (("x", 0), ("z", 2)):
        yield f"turned 180° about {name}", fixed, posed(moving, half_turn(axis)), half_turn(axis)
    yield "stripped ← head", stripped(fixed, maps[0]), headed(moving, maps[1], seed), STILL
    yield "head ← stripped", headed(fixed, maps[0], seed), stripped(moving, maps[1]), STILL
    for padding in (-2000, -3024):
        yield f"CT, padding {padding}", as_ct(fixed, padding, seed), as_ct(moving, padding, seed + 1), STILL
    masks = [ww.Scan(image=i, mask=coarse_mask(m, 3)) for i, m in zip((fixed, moving), maps, strict=True)]
    yield "masks of a coarser grid", *masks, STILL
    yield "a table in both", on_a_table(fixed), on_a_table(moving), STILL
    rng = np.random.default_rng(seed)
    for degrees in (70, 110, 150):
        pose = STILL.copy()
        pose[:3, :3] = small_rotation(rng, degrees=degrees)
        pose[:3, 3] = rng.uniform(-50, 50, 3)
        yield f"head turned by {degrees}°", headed(fixed, maps[0], seed), posed(headed(moving, maps[1], seed), pose), pose


def error_mm(pair: KnownPair, result: ww.Result, pose: np.ndarray) -> float:
    """Mean distance from the truth over the brain, in mm of the fixed image."""
    grid = pair.fixed.grid
    at = np.indices(grid.shape).reshape(3, -1)[:, pair.fixed_labels.data[0].ravel() > 0]
    points = (grid.affine[:3, :3] @ at + grid.affine[:3, 3:]).T
    truth = pair.truth.points(points) @ pose[:3, :3].T + pose[:3, 3]
    size = abs(np.linalg.det(pose[:3, :3])) ** (1 / 3)
    return float(np.linalg.norm(result.transform.points(points) - truth, axis=1).mean() / size)


def row(kind: str, case: str, method: str, began: tuple[float, float], **more: Any) -> dict[str, Any]:
    spent = {"seconds": round(time.perf_counter() - began[0], 2), "cpu_s": round(time.process_time() - began[1], 2)}
    return {"kind": kind, "case": case, "method": method, **more, **spent, "load": round(os.getloadavg()[0], 2)}


def now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def on_phantoms() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for seed in SEEDS:
        pair = brain_pair(SHAPE, seed=seed)
        for case, fixed, moving, pose in phantoms(pair, seed):
            for method in ("affine", "balanced"):
                began = now()
                result = ww.register(fixed, moving, method=method)
                told = {"error_mm": round(error_mm(pair, result, pose), 3), "warnings": list(result.warnings), "seed": seed}
                rows.append(row("phantom", case, method, began, **told))
        print(seed, {r["case"]: r["error_mm"] for r in rows if r["seed"] == seed and r["method"] == "balanced"}, flush=True)
    return rows


def on_turned() -> list[dict[str, Any]]:
    """Half turns of phantoms that were drawn after the search for a start was mended, which failed on one of `SEEDS`."""
    rows: list[dict[str, Any]] = []
    for seed in LATER_SEEDS:
        pair = brain_pair(SHAPE, seed=seed)
        for name, axis in (("x", 0), ("z", 2)):
            began, pose = now(), half_turn(axis)
            result = ww.register(pair.fixed, posed(pair.moving, pose), method="balanced")
            told = {"error_mm": round(error_mm(pair, result, pose), 3), "warnings": list(result.warnings), "seed": seed}
            rows.append(row("phantom", f"turned 180° about {name}, later seeds", "balanced", began, **told))
            rows[-1]["commit"] = machine()["commit"]
    print([r["error_mm"] for r in rows], flush=True)
    return rows


def on_hippocampi(data: Path) -> list[dict[str, Any]]:
    """Validation pairs, as they are and with shading."""
    dataset = read_dataset(data / "hippocampus-msd")
    rows: list[dict[str, Any]] = []
    for number, (fixed, moving) in enumerate(dataset.validation_pairs):
        images = [read_image(scan.image) for scan in (fixed, moving)]
        maps = [read_image(scan.labels, kind="labels") for scan in (fixed, moving)]
        for case, change in (("as it is", lambda i, _: i), ("shading, SD 0.3", lambda i, s: shaded(i, 0.3, s))):
            shown = [change(image, 2 * number + k) for k, image in enumerate(images)]
            for method in ("affine", "balanced"):
                began = now()
                result = ww.register(*shown, method=method)
                values = label_overlap(*maps, result.transform, labels=dataset.averaged)
                told = {
                    "pair": f"{fixed.title} ← {moving.title}",
                    "dice": float(np.mean([*values.values()])),
                    "seed": number,
                }
                rows.append(row("hippocampus", case, method, began, **told))
    print({r["case"]: r["dice"] for r in rows[-4:]}, flush=True)
    return rows


def grown_old(image: Image, labels: Image, times: float) -> tuple[Image, Image]:
    """The same person with ventricles of about so many times the volume, a thinner cortex, and CSF where tissue was."""
    from warpwise.synthetic.atrophy import changed_in_size

    pad = 6
    map_, values = np.pad(labels.data[0], pad), np.pad(image.data[0].astype(np.float32), pad)
    affine = image.grid.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ np.full(3, pad)
    grid, brain = Grid(map_.shape, affine), values > 0
    shell = binary_dilation(brain, iterations=2) & ~brain
    fluid = float(np.median(values[np.isin(map_, (51, 52))]))
    filled = values.copy()
    filled[shell] = fluid * (1 + 0.1 * np.random.default_rng(0).standard_normal(int(shell.sum())))
    growth = np.ones(map_.shape)
    growth[map_ >= 100], growth[np.isin(map_, (44, 45))], growth[np.isin(map_, DEEP_GREY)] = 0.82, 0.93, 0.85
    growth[np.isin(map_, VENTRICLES)] = times
    dark = brain & (map_ == 0) & (values < 0.5 * np.percentile(values[brain], 90))
    csf = shell | dark | (map_ == 46)
    # What tissue loses inside the skull, fluid gains.
    growth[csf] = np.exp(np.clip(-np.log(growth[brain | shell]).sum() / csf.sum(), -0.5, 2))
    there = changed_in_size(growth, grid)
    old = resample(Image(filled[None], grid), grid, there)
    return (
        Image(np.rint(old.data).astype(np.int16), grid, name=f"{image.name}, aged"),
        resample(Image(map_[None], grid, "labels"), grid, there, interpolation="nearest"),
    )


def aged(scan: Any, times: float, cache: Path) -> tuple[Image, Image]:
    """From the cache, or made for it."""
    paths = [cache / f"{scan.title}-{times:g}-{what}.nii.gz" for what in ("image", "labels")]
    if not all(path.exists() for path in paths):
        made = grown_old(read_image(scan.image), read_image(scan.labels, kind="labels"), times)
        for path, image in zip(paths, made, strict=True):
            write_image(path, image)
    return read_image(paths[0]), read_image(paths[1], kind="labels")


def on_old_brains(data: Path, cache: Path, python: str, methods: list[str]) -> list[dict[str, Any]]:
    """Validation pairs, one of the two grown old, in turns the fixed and the moving one."""
    dataset = read_dataset(data / "oasis-mals")
    rows: list[dict[str, Any]] = []
    for number, pair in enumerate(dataset.validation_pairs):
        times, which = GROWTHS[number % 3], (number // 3) % 2
        sides = [(read_image(s.image), read_image(s.labels, kind="labels")) for s in pair]
        young = np.isin(sides[which][1].data, VENTRICLES).sum()
        sides[which] = aged(pair[which], times, cache)
        told = {
            "pair": f"{pair[0].title} ← {pair[1].title}",
            "old": ("fixed", "moving")[which],
            "ventricles": round(float(np.isin(sides[which][1].data, VENTRICLES).sum() / young), 2),
            "seed": 0,
        }
        (fixed, fixed_map), (moving, moving_map) = sides
        wanted = shared_labels(fixed_map.data, moving_map.data, dataset.averaged)

        def measured(values: dict[int, float]) -> dict[str, float]:
            deep = [values[k] for k in SUBCORTICAL if k in values]
            return {"dice": float(np.mean([*values.values()])), "subcortical": float(np.mean(deep))}

        for method in methods:
            began = now()
            result = ww.register(fixed, moving, method=method)
            rows.append(row("old brain", "old", method, began, **told))
            shape = regularity(result.transform, fixed_map.grid, fixed_map.data[0] > 0)
            values = label_overlap(fixed_map, moving_map, result.transform, labels=wanted)
            rows[-1] |= measured(values) | {"sd_log_jacobian": shape.sd_log_jacobian, "folded": shape.percent_folded}
        if python:
            began, kept = now(), cache / "warp.nii.gz"
            warped, cpu, wall = greedy(python, fixed, moving, moving_map, measure="NCC 2x2x2", keep=kept)
            rows.append(row("old brain", "old", "greedy, NCC", began, **told))
            shape = regularity(read_transform(kept, kind="displacement"), fixed_map.grid, fixed_map.data[0] > 0)
            values = overlap(fixed_map.data[0], warped.data[0], labels=wanted)
            rows[-1] |= {"cpu_s": round(cpu, 2), "seconds": round(wall, 2)} | measured(values)
            rows[-1] |= {"sd_log_jacobian": shape.sd_log_jacobian, "folded": shape.percent_folded}
        print(told, {r["method"]: round(r["dice"], 4) for r in rows if r["pair"] == told["pair"]}, flush=True)
    return rows


def means(rows: list[dict[str, Any]], kind: str, show: Callable[[list[dict[str, Any]]], str]) -> dict[str, str]:
    """What to show of every case and method of a kind."""
    cases = dict.fromkeys((r["case"], r["method"]) for r in rows if r["kind"] == kind)
    return {
        f"{case}, {method}": show([r for r in rows if (r["kind"], r["case"], r["method"]) == (kind, case, method)])
        for case, method in cases
    }


def phantom_cell(rows: list[dict[str, Any]]) -> str:
    errors = [r["error_mm"] for r in rows]
    return f"{np.mean(errors):.2f} ({max(errors):.2f}), {sum(bool(r['warnings']) for r in rows)} of {len(rows)}"


def organ_cell(rows: list[dict[str, Any]]) -> str:
    return f"{np.mean([r['dice'] for r in rows]):.3f} ({min(r['dice'] for r in rows):.3f})"


def brain_cell(rows: list[dict[str, Any]]) -> str:
    mean = [f"{np.mean([r[k] for r in rows]):.3f}" for k in ("dice", "subcortical", "sd_log_jacobian")]
    return f"{', '.join(mean)}, {np.median([r['cpu_s'] for r in rows]):.1f} s"


def report(content: dict[str, Any]) -> str:
    """All tables as Markdown, before beside after."""
    lines = ["# Large differences", ""]
    for name, run in content.items():
        lines.append(f"{name}: `{run['command']}`, commit {run['commit']}, {run['cpu']}.")
    for kind, what, cell in (
        ("phantom", "mean error, mm (worst of the phantoms), how many were warned of", phantom_cell),
        ("hippocampus", "mean Dice of validation pairs (lowest)", organ_cell),
        ("old brain", "Dice, subcortical Dice, SDlogJ, CPU, of 12 validation pairs, one of each grown old", brain_cell),
    ):
        columns = {name: means(run["rows"], kind, cell) for name, run in content.items()}
        cases = dict.fromkeys(case for column in columns.values() for case in column)
        table = [[case, *[column.get(case, "–") for column in columns.values()]] for case in cases]
        lines += ["", f"## {kind.capitalize()}: {what}", "", *markdown_table(["", *columns], table)]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--as", dest="name", choices=("before", "after"), default="after")
    parser.add_argument("--greedy", default="")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--methods", default="fast,balanced,accurate")
    parser.add_argument("--turned", action="store_true", help="only later phantoms turned round, beside what is there")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    target = HERE / "results" / "large_differences.json"
    content: dict[str, Any] = json.loads(target.read_text(encoding="utf-8")) if target.exists() else {}
    if options.turned:
        rows = content[options.name]["rows"]
        content[options.name]["rows"] = [r for r in rows if "later seeds" not in r["case"]] + on_turned()
        write(target, content)
        return
    run: dict[str, Any] = machine()
    run["command"] = f"python benchmarks/large_differences.py DATA --cache FOLDER --as {options.name}"
    run["command"] += f" --methods {options.methods}" + (" --greedy PYTHON" if options.greedy else "")
    run["rows"] = [*on_phantoms(), *on_hippocampi(options.data)]
    run["rows"] += on_old_brains(options.data, options.cache, options.greedy, options.methods.split(","))
    content[options.name] = run
    write(target, {name: content[name] for name in ("before", "after") if name in content})


def write(target: Path, content: dict[str, Any]) -> None:
    """Both files of results."""
    target.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    target.with_suffix(".md").write_text(report(content), encoding="utf-8")


if __name__ == "__main__":
    main()
