"""Features and their registration learned in turns: what noise costs them, and whether they know how sure they may be.

    python benchmarks/learned.py train bilevel --runs DIR --seeds 0 1 2
    python benchmarks/learned.py evaluate bilevel --on test --runs DIR --seeds 0 1 2 --reason WHY     # Dice
    python benchmarks/bilevel.py --runs DIR --seeds 0 1 2 --on test --reason WHY                      # this file
    python benchmarks/bilevel.py --table                                                 # of both, into docs/learning.md

Slope: Dice lost for each 10 % of the range that is added as noise to both images, least squares over the levels below.
Calibration: images bent by known deformations, with noise of their own; for each image apart, the error of every tenth of
its voxels, from the most to the least certain. Rows and settings stand in benchmarks/learned/bilevel.yaml.
"""

import argparse
import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, markdown_table
from learned import note_in_ledger, pairs_of, parted, trained_by
from learned_tables import averaged, content_of, over_seeds, put
from protocol import DATASETS

import warpwise as ww
from warpwise.data.people import person
from warpwise.evaluation.statistics import interval
from warpwise.image import Image, intensity_range
from warpwise.io.datasets import Dataset, read_dataset
from warpwise.io.images import read_image
from warpwise.io.scan import Scan
from warpwise.levels.measurement import as_it_is, run_method
from warpwise.methods import Method
from warpwise.ops import kernels
from warpwise.transforms.velocity import exponential

TASK = "bilevel"
NOISE = (0.0, 0.1, 0.2)
RESULTS = Path(__file__).parent / "results"
BEGIN = "<!-- bilevel.py table -->"


def noisy(image: Image, *, sigma: float, seed: int) -> Image:
    """Gaussian noise of so much of the intensity range."""
    low, high = intensity_range(image.data)
    noise = np.random.default_rng([seed, *image.grid.shape]).standard_normal(image.data.shape, np.float32)
    return Image(image.data.astype(np.float32) + np.float32(sigma * (high - low)) * noise, image.grid, name=image.name)


def slope_of(method: Method, pairs: Sequence[tuple[Scan, Scan]], dataset: Dataset) -> list[float]:
    """Dice lost a tenth of the range, of each pair."""
    out: list[float] = []
    for n, pair in enumerate(pairs):
        dice = [
            run_method("", method, pair, dataset.averaged,
                       change=partial(noisy, sigma=s, seed=n) if s else as_it_is).mean_dice
            for s in NOISE
        ]  # fmt: skip
        out.append(round(-0.1 * float(np.polyfit(NOISE, dice, 1)[0]), 5))
    return out


def known_pair(image: Image, method: Method, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For every voxel: endpoint error, mm; reported uncertainty, mm; whether it shows something."""
    rng = np.random.default_rng([5, seed])
    grid = image.grid
    x, y, z = grid.shape
    voxel = float(np.mean(grid.spacing_mm))
    reach = 0.1 * min(grid.shape) * voxel
    velocity = anywhere((x, y, z), rng, sigma=float(rng.uniform(1, 2)) * reach / voxel, amplitude=0.5 * reach / voxel)
    field = exponential(velocity, squarings=7)
    data = image.data.astype(np.float32)
    bent = kernels.warp(data, field, np.eye(4), out=np.empty_like(data))
    noise = float(rng.uniform(0, 0.1))
    # fixed(x) = moving(x + u(x)): u is what the registration should find
    fixed, moving = noisy(Image(bent, grid), sigma=noise, seed=seed), noisy(image, sigma=noise, seed=seed + 1000)
    result = ww.register(fixed, moving, method=method)
    truth = kernels.map_vectors(field, grid.affine[:3, :3])
    error = np.sqrt(((result.displacement_mm - truth) ** 2).sum(0))
    low, high = intensity_range(bent)
    inside = kernels.gaussian((bent > low + 0.1 * (high - low)).astype(np.float32), [1.0] * 3)[0] > 0.5
    assert result.uncertainty is not None
    return error, result.uncertainty.data[0], inside


def anywhere(shape: tuple[int, int, int], rng: np.random.Generator, *, sigma: float, amplitude: float) -> np.ndarray:
    """Smooth noise (3, X, Y, Z) that is as strong at the border as elsewhere: certainty must not follow from the place."""
    margin = int(2 * sigma) + 1
    noise = rng.standard_normal((3, *[n + 2 * margin for n in shape])).astype(np.float32)
    inner = (slice(None), *[slice(margin, margin + n) for n in shape])
    field = np.ascontiguousarray(kernels.gaussian(noise, [sigma] * 3)[inner])
    return field * np.float32(amplitude / np.sqrt((field**2).sum(0).mean()))


def deciles(said: np.ndarray, error: np.ndarray) -> dict[str, Any]:
    """Mean error and mean reported deviation of ten equal parts, from the most to the least certain."""
    order = np.argsort(said, kind="stable")
    parts = np.array_split(order, 10)
    means = [round(float(error[p].mean()), 4) for p in parts]
    return {
        "reported_mm": [round(float(said[p].mean()), 4) for p in parts],
        "error_mm": means,
        "rises_in_every_step": bool((np.diff(means) > 0).all()),
        "steps_that_rise": int((np.diff(means) > 0).sum()),
        "spearman": round(float(np.corrcoef(np.argsort(order), np.argsort(np.argsort(error)))[0, 1]), 3),
    }


def calibration_of(method: Method, images: Sequence[Scan]) -> list[dict[str, Any]]:
    """Deciles of each image."""
    out: list[dict[str, Any]] = []
    for n, scan in enumerate(images):
        error, said, inside = known_pair(read_image(scan.image), method, n)
        out.append({"person": person(scan), **deciles(said[inside], error[inside])})
    return out


def measure(arguments: argparse.Namespace) -> None:
    """Every row and seed; what an earlier run measured of others stays."""
    dataset = read_dataset(arguments.data / DATASETS[parted(TASK)])
    every = pairs_of(TASK, dataset, arguments.on)
    pairs = [every[k * len(every) // arguments.pairs] for k in range(arguments.pairs)]
    images = list(dict.fromkeys(fixed for fixed, _ in every))[: arguments.images]
    rows = [row for row in content_of(TASK)["rows"] if not arguments.rows or row in arguments.rows]
    every_network = {(row, seed): trained_by(arguments, row, seed) for row in rows for seed in arguments.seeds}
    networks = {key: trained for key, trained in every_network.items() if trained is not None}
    out = RESULTS / f"bilevel_{arguments.on}.json"
    found: list[dict[str, Any]] = json.loads(out.read_text())["rows"] if out.exists() else []
    whose = [[person(a), person(b)] for a, b in pairs]
    if any(r["pairs"] != whose for r in found):
        raise SystemExit(f"{out} is of other pairs: seeds and rows are compared on the same ones.")
    if arguments.on == "test":
        if not arguments.reason:
            raise SystemExit("--reason: why are test people looked at?")
        note_in_ledger(TASK, f"noise and calibration: {arguments.reason}", list(dict.fromkeys(row for row, _ in networks)))
    facts = {k: v for k, v in machine().items() if k in ("date", "commit", "cpu", "cores")}
    for (row, seed), trained in networks.items():
        method = Method.of_model(trained[0])
        mine = {
            "row": row, "seed": seed, "pairs": whose,
            "slope": slope_of(method, pairs, dataset), "images": calibration_of(method, images),
            "load": round(os.getloadavg()[0], 1), **trained[1], **facts,
        }  # fmt: skip
        found = [r for r in found if (r["row"], r["seed"]) != (row, seed)] + [mine]
        out.write_text(json.dumps({"noise": NOISE, "on": arguments.on, "rows": found}, indent=1, ensure_ascii=False) + "\n")
        out.with_suffix(".md").write_text(report(found, arguments.on))
        print(row, seed, np.mean(mine["slope"]), [i["steps_that_rise"] for i in mine["images"]], flush=True)


def report(found: Sequence[dict[str, Any]], on: str) -> str:
    """The table as Markdown."""
    head = ["row", "Dice lost a tenth of the range", "images whose error rises in all 9 steps", "steps that rise, of 9",
            "error, least over most certain tenth", "rank correlation", "seeds", "load", "commit"]  # fmt: skip
    table: list[list[str]] = []
    for row in dict.fromkeys(r["row"] for r in found):
        mine = [r for r in found if r["row"] == row]
        slopes = np.mean([r["slope"] for r in mine], 0)
        low, high = interval([tuple(p) for p in mine[0]["pairs"]], slopes.tolist())
        images = [i for r in mine for i in r["images"]]
        table.append([
            row, f"{slopes.mean():.4f} [{low:.3f}, {high:.3f}]",
            f"{sum(i['rises_in_every_step'] for i in images)} of {len(images)}",
            f"{np.mean([i['steps_that_rise'] for i in images]):.1f}",
            f"{np.mean([i['error_mm'][-1] / i['error_mm'][0] for i in images]):.2f}",
            f"{np.mean([i['spearman'] for i in images]):.3f}", ", ".join(str(r["seed"]) for r in mine),
            f"{np.mean([r['load'] for r in mine]):.1f}", ", ".join(dict.fromkeys(r["commit"] for r in mine)),
        ])  # fmt: skip
    title = [
        f"# Bi-level features on hippocampi: noise, and calibration of each image; people of `{on}`",
        "",
        "`python benchmarks/bilevel.py`, explained at its head; Dice without noise: `learned_bilevel_*.md`.",
        "",
    ]
    return "\n".join([*title, *markdown_table(head, table)]) + "\n"


def table_in_docs() -> None:
    """What was measured on test people, beside each other."""
    known = [json.loads((RESULTS / f"{name}_test.json").read_text())["rows"] for name in ("learned_bilevel", "bilevel")]
    content, pairs = content_of(TASK), list(dict.fromkeys((r["pair"], r["fixed"], r["moving"]) for r in known[0]))
    table: list[list[str]] = []
    for name in [*content["presets"], *content["rows"]]:
        mine, noise = ([r for r in rows if r.get("method", r.get("row")) == name] for rows in known)
        if not mine:
            continue
        networks = [{(r["seed"], str(r["trained"])) for r in rows if "trained" in r} for rows in (mine, noise)]
        if networks[1] - networks[0]:
            raise SystemExit(f"{name}: Dice is of other networks than noise and calibration.")
        scores = averaged(mine, [pair for pair, *_ in pairs], "dice")
        low, high = interval([(fixed, moving) for _, fixed, moving in pairs], scores)
        _, spread = over_seeds(mine, digits=3)
        images = [i for r in noise for i in r["images"]]
        table.append([
            name, f"{np.mean(scores):.3f}{spread} [{low:.3f}, {high:.3f}]",
            f"{np.mean([r['sd_log_jacobian'] for r in mine]):.2f}",
            f"{np.mean([r['slope'] for r in noise]):.3f}" if noise else "",
            f"{sum(i['rises_in_every_step'] for i in images)} of {len(images)}" if images else "",
            f"{np.mean([i['error_mm'][-1] / i['error_mm'][0] for i in images]):.2f}" if images else "",
        ])  # fmt: skip
    head = ["hippocampi of test people", "Dice", "SDlogJ", "Dice lost a tenth of noise",
            "images whose error rises in all 9 steps", "error, least over most certain tenth"]  # fmt: skip
    put(Path(__file__).parents[1] / "docs" / "learning.md", BEGIN, markdown_table(head, table))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--on", choices=["select", "test"], default="select")
    parser.add_argument("--rows", nargs="*", default=[])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--reason", default="")
    parser.set_defaults(task=TASK)
    arguments = parser.parse_args()
    table_in_docs() if arguments.table else measure(arguments)


if __name__ == "__main__":
    main()
