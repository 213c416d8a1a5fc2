"""Is what a network would be trained on worth reaching? The Dice at each objective's own optimum, pair by pair.

    python benchmarks/alignment.py DATA --cache DIR [--pairs N] [--only NAME ...]

For each pair of training people, whole brains at 2 mm under the affine map with which networks are trained, the updates
that a pyramid network would predict are themselves optimised: at each octave, coarse to fine, a velocity at its nodes,
whose exponential is composed on what came before; all of them by Adam on the objective of the final field; then all
together. Only people of the protocol's `train` take part. Solvers run on the same images,
nodes and affine map. Dice and SDlogJ are those of native voxels.
"""

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import machine, markdown_table
from front import SUBCORTICAL
from torch import Tensor

import warpwise as ww
from warpwise import ops
from warpwise.alignment import Alignment
from warpwise.data.volumes import Store
from warpwise.evaluation.metrics import label_overlap, regularity, shared_labels
from warpwise.io.images import read_image
from warpwise.io.scan import Scan
from warpwise.levels.validation import plain
from warpwise.methods import Method
from warpwise.networks.blocks import smoothed
from warpwise.objective import Objective
from warpwise.ops.nodes import double_field, on_voxels
from warpwise.pair import Pair
from warpwise.registrars.learned.working import array
from warpwise.shapes import Matrix
from warpwise.terms.term import parse_terms
from warpwise.transforms.displacement import DisplacementField
from warpwise.volume import Volume

HERE = Path(__file__).parent
PAIRS = ((1000, 1002), (1008, 1009), (1010, 1011), (1015, 1008))  # of the protocol's `train`
SPACING = (2.0, 2.0, 2.0)
OCTAVES = 4
SHARPEST = {"lncc": {"radius": 2}}
SEVERAL = {
    "lncc": {"radius": 2},
    "half": {"term": "lncc", "scale": 1, "radius": 2},
    "quarter": {"term": "lncc", "scale": 2, "radius": 2},
}
PUBLISHED = {"lncc": {"faithful": True}}
MIND = {"mind": {"faithful": True, "weight": 10.0}}
# terms, weight of diffusion, octave of the last update, σ of its smoothing
TRIED: tuple[tuple[str, dict[str, Any], float, int, float], ...] = (
    ("LNCC 5³", SHARPEST, 0.1, 1, 0.0),
    ("LNCC 5³", SHARPEST, 0.1, 0, 0.0),
    ("LNCC 5³", SHARPEST, 0.1, 0, 1.0),
    ("LNCC at 3 scales", SEVERAL, 0.1, 0, 1.0),
    ("LNCC at 3 scales", SEVERAL, 0.2, 0, 1.0),
    ("faithful LNCC 9³", PUBLISHED, 0.1, 0, 1.0),
    ("faithful MIND", MIND, 0.1, 0, 1.0),
)


def title(name: str, diffusion: float, octave: int, fluid: float) -> str:
    """What a row is called."""
    return f"{name}, diffusion {diffusion:g}, {2 * 2**octave} mm nodes" + (
        f", updates smoothed by {fluid:g}" if fluid else ""
    )


# title → terms, octave, σ
OBJECTIVES = {
    title(name, diffusion, octave, fluid): ({**terms, "diffusion": {"weight": diffusion}}, octave, fluid)
    for name, terms, diffusion, octave, fluid in TRIED
}
REPORTED = (title("LNCC 5³", 0.1, 0, 0.0), title("LNCC at 3 scales", 0.1, 0, 1.0))  # whose values every row also states


class Composed:
    """A displacement as a pyramid network would compose it, of velocities that are its variables.

    Attributes:
        velocities: (1, 3, *nodes) of each update, coarse to fine, and the octave of each.
    """

    def __init__(self, shape: Sequence[int], *, finest: int, updates: int, fluid: float) -> None:
        self.shape, self.finest, self.fluid = shape, finest, fluid
        self.velocities: list[tuple[int, Tensor]] = []
        for octave in reversed(range(finest, OCTAVES + 1)):
            nodes = [-(-n // 2**octave) for n in shape]
            for _ in range(updates):
                self.velocities.append((octave, torch.zeros(1, len(shape), *nodes, requires_grad=True)))

    def displacement(self) -> Tensor:
        """(1, D, *shape), voxels."""
        field: Tensor | None = None
        at = OCTAVES
        for octave, velocity in self.velocities:
            step = ops.exponential(smoothed(velocity, self.fluid), squarings=5)
            if field is None:
                field = step
                continue
            while at > octave:
                at -= 1
                field = double_field(field, [-(-n // 2**at) for n in self.shape])
            field = ops.compose(field, step)
        assert field is not None
        return on_voxels(field, self.shape, octave=self.finest)


def optimum(
    fixed: Tensor,
    moving: Tensor,
    weight: Tensor,
    objective: Objective,
    finest: int,
    fluid: float,
    *,
    steps: int,
    rate: float,
) -> tuple[Tensor, list[float]]:
    """The displacement at which an objective is least, and its values along the way."""
    made = Composed(fixed.shape[2:], finest=finest, updates=1, fluid=fluid)
    values: list[float] = []
    stages = [[v for o, v in made.velocities if o == octave] for octave in reversed(range(finest, OCTAVES + 1))]
    stages.append([v for _, v in made.velocities])
    for n, variables in enumerate(stages):
        optimizer = torch.optim.Adam(variables, lr=rate)
        count = 2 * steps if n + 1 == len(stages) else steps
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, count)
        for _ in range(count):
            optimizer.zero_grad()
            displacement = made.displacement()
            loss = objective(Alignment(fixed, ops.warp(moving, displacement), displacement, weight))
            loss.backward()
            optimizer.step()
            schedule.step()
            values.append(float(loss.detach()))
    return made.displacement().detach(), values


def solved(name: str, fixed: Volume, moving: Volume, world: Matrix, coarsest: int) -> tuple[Tensor, float]:
    """The displacement (1, 3, *space) that a preset finds in images of this spacing, without its scales whose nodes are
    finer than every 2^coarsest-th voxel, and its seconds."""
    method = Method.named(name)
    registrar = method.registrar
    assert registrar is not None
    scales = [s for s in registrar.scales if getattr(s, "field", s.image) >= coarsest]
    terms = method.terms().settled(alike=True)
    pair = Pair(fixed, moving, moving.grid.inverse_affine @ world @ fixed.grid.affine)
    began = time.perf_counter()
    found = registrar.replace(scales=tuple(scales)).build(terms).solve(pair)
    return torch.from_numpy(np.array(found.field))[None], time.perf_counter() - began


def scored(displacement: Tensor, fixed: Volume, world: Matrix, maps: list[ww.Image], wanted: list[int]) -> dict[str, float]:
    """Dice and SDlogJ at native voxels of a displacement in voxels of the fixed volume."""
    grid = fixed.grid
    u = array(displacement[0])
    at = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij")).reshape(3, -1)
    mm = grid.affine[:3, :3] @ at + grid.affine[:3, 3:]
    moved = mm + grid.affine[:3, :3] @ u.reshape(3, -1)
    moved = world[:3, :3] @ moved + world[:3, 3:]
    transform = DisplacementField((moved - mm).reshape(3, *grid.shape).astype(np.float32), grid)
    values = label_overlap(*maps, transform, labels=wanted)
    deep = [v for k, v in values.items() if k in SUBCORTICAL]
    shape = regularity(transform, maps[0].grid, maps[0].data[0] > 0)
    return {
        "dice": round(float(np.mean([*values.values()])), 4),
        "subcortical": round(float(np.mean(deep)), 4),
        "sd_log_jacobian": round(shape.sd_log_jacobian, 4),
        "percent_folded": round(shape.percent_folded, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--pairs", type=int, default=len(PAIRS))
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--cache", type=Path, required=True, help="Folder for decoded images.")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "alignment.json")
    options = parser.parse_args()
    torch.manual_seed(0)
    folder = options.data / "oasis-mals"
    averaged = json.loads((folder / "dataset.json").read_text())["labelsInEverySubject"]
    content = json.loads(options.out.read_text()) if options.out.exists() else {"rows": []}
    rows: list[dict[str, Any]] = content["rows"]
    known = [(row["what"], row["pair"]) for row in rows]  # a run that was stopped goes on
    store = Store(options.cache)
    common = {k: v for k, v in machine().items() if k in ("date", "commit", "cpu", "cores")}
    objectives = {name: (Objective.of(parse_terms(terms)), *rest) for name, (terms, *rest) in OBJECTIVES.items()}

    def add(name: str, pair: Sequence[int], displacement: Tensor, seconds: float, **more: Any) -> None:
        row = {
            "what": name, "pair": list(pair), **more, **scored(displacement, fixed, world, maps, wanted),
            "seconds": round(seconds, 1), "load": round(os.getloadavg()[0], 1), **common,
        }  # fmt: skip
        state = Alignment(image, ops.warp(other, displacement), displacement, weight)
        row["values"] = {k: round(float(objectives[k][0](state)), 5) for k in REPORTED}
        rows[:] = [r for r in rows if (r["what"], r["pair"]) != (name, row["pair"])] + [row]
        options.out.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        options.out.with_suffix(".md").write_text(report(rows))
        print(name, pair, row["dice"], row["sd_log_jacobian"], row["values"], row["seconds"], flush=True)

    for pair in PAIRS[: options.pairs]:
        scans = [Scan(image=folder / "images" / f"{k}.nii.gz", labels=folder / "labels" / f"{k}.nii.gz") for k in pair]
        maps = [read_image(scan.labels, kind="labels") for scan in scans if scan.labels]
        wanted = shared_labels(maps[0].data, maps[1].data, averaged)
        fixed, moving = (store.volume(scan, SPACING) for scan in scans)
        world = store.linear(*scans, "affine")
        sample, _ = plain(fixed, moving, world)
        image, other, weight = (
            torch.from_numpy(np.array(x))[None] for x in (sample.fixed, sample.moving, sample.weight[None])
        )
        solvers = {(f"solver {name}", octave): (name, octave) for name in ("accurate",) for octave in (1, 0)}
        solvers[("solver energy", 0)] = ("energy", 0)
        for (name, octave), (preset, coarsest) in solvers.items():
            row = f"{name}, {2 * 2**octave} mm nodes"
            if (not options.only or row in options.only) and (row, list(pair)) not in known:
                displacement, seconds = solved(preset, fixed, moving, world, coarsest)
                add(row, pair, displacement, seconds, nodes_mm=2 * 2**octave)
        for name, (objective, finest, fluid) in objectives.items():
            if (options.only and name not in options.only) or (name, list(pair)) in known:
                continue
            began = time.perf_counter()
            displacement, values = optimum(
                image, other, weight, objective, finest, fluid, steps=options.steps, rate=options.rate
            )
            more = {"nodes_mm": 2 * 2**finest, "fluid": fluid, "objective": OBJECTIVES[name][0],
                    "last_tenth": round(values[-len(values) // 10] - values[-1], 5)}  # fmt: skip
            add(name, pair, displacement, time.perf_counter() - began, steps=options.steps, rate=options.rate, **more)


def report(rows: Sequence[dict[str, Any]]) -> str:
    """Means over pairs as Markdown."""
    lines = [
        "# Does an objective's optimum lie where the anatomy does?",
        "",
        "`python benchmarks/alignment.py DATA --cache DIR`; training people, 2 mm; alignment.json has every pair.",
        "Values: of two objectives at each field, the lower the better. Seconds: one core, beside a training.",
        "",
    ]
    table: list[list[str]] = []
    for name in dict.fromkeys(r["what"] for r in rows):
        mine = [r for r in rows if r["what"] == name]
        mean = {k: float(np.mean([r[k] for r in mine])) for k in ("dice", "subcortical", "sd_log_jacobian", "seconds")}
        values = [f"{np.mean([r['values'][k] for r in mine]):.4f}" for k in REPORTED]
        table.append([
            name, str(mine[0]["nodes_mm"]), str(len(mine)), f"{mean['dice']:.4f}", f"{mean['subcortical']:.4f}",
            f"{mean['sd_log_jacobian']:.3f}", *values, f"{mean['seconds']:.0f}",
        ])  # fmt: skip
    head = [
        "optimum of",
        "nodes mm",
        "pairs",
        "Dice",
        "subcortical",
        "SDlogJ",
        *[f"value of {k.split(', ')[0]}" for k in REPORTED],
        "s",
    ]
    return "\n".join([*lines, *markdown_table(head, table)]) + "\n"


if __name__ == "__main__":
    main()
