"""What training and the installed network promise beyond accuracy.

    python benchmarks/learning_checks.py speed       # a training step with our operators and with PyTorch's own
    python benchmarks/learning_checks.py contrast    # the installed network across contrasts
    python benchmarks/learning_checks.py made        # the same on pairs like those it learned from
    python benchmarks/learning_checks.py kills       # ten SIGKILLs at random moments, each resumed

Each writes its part of benchmarks/results/learning_checks.json.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from common import machine
from learned import pairs_of
from protocol import DATASETS
from safetensors.torch import load_file

import warpwise as ww
from warpwise import ops
from warpwise.data.synthetic_pairs import SyntheticSampler
from warpwise.evaluation.metrics import dice
from warpwise.image import Image, normalised
from warpwise.io.datasets import read_dataset
from warpwise.io.images import read_image
from warpwise.levels.settings import read_settings
from warpwise.levels.validation import judge_synthetic
from warpwise.methods import Method
from warpwise.networks import NETWORKS
from warpwise.networks.base import initialise
from warpwise.networks.model import Model
from warpwise.objective import Objective
from warpwise.ops.reference import features
from warpwise.resampling import resample
from warpwise.synthetic.contrasts import remapped
from warpwise.synthetic.deformations import random_deformation

RESULTS = Path(__file__).parent / "results" / "learning_checks.json"


def torch_warp(image: torch.Tensor, field: torch.Tensor) -> torch.Tensor:
    """PyTorch's sampling, as VoxelMorph uses it."""
    axes = [torch.arange(n, dtype=field.dtype) for n in field.shape[2:]]
    at = torch.stack(torch.meshgrid(*axes, indexing="ij")) + field
    scaled = [at[:, d] * (2 / (n - 1)) - 1 for d, n in enumerate(image.shape[2:])]
    return F.grid_sample(image, torch.stack(scaled[::-1], -1), padding_mode="border", align_corners=True)


def torch_lncc(fixed: torch.Tensor, warped: torch.Tensor, *, radius: int, separable: bool) -> torch.Tensor:
    """Local correlation by PyTorch: one window of ones (VoxelMorph's form), or a mean along each axis in turn."""
    size = 2 * radius + 1

    def mean(x: torch.Tensor) -> torch.Tensor:
        if not separable:
            return F.conv3d(x, torch.full((1, 1, size, size, size), 1 / size**3), padding=radius)
        for d in range(3):
            kernel, pad = [1, 1, 1], [0, 0, 0]
            kernel[d], pad[d] = size, radius
            x = F.avg_pool3d(x, kernel, stride=1, padding=pad)
        return x

    f, w = mean(fixed), mean(warped)
    p, q = mean(fixed * fixed) - f * f, mean(warped * warped) - w * w
    s = mean(fixed * warped) - f * w
    return ((s * s) / (p * q + 1e-5)).mean()


def reference_cost_volume(fixed: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
    """The same operator in plain PyTorch."""
    return features.cost_volume(fixed, moving, radius=[1, 1, 1])


def speed(_: argparse.Namespace) -> dict:
    """Seconds of one training step of VoxelMorph (2 mm brain, batch 1) with three sets of operators, in turns."""
    shape = (80, 96, 80)
    network = initialise(NETWORKS["voxelmorph"]().build(dim=3, channels=1), torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)
    draw = torch.Generator().manual_seed(1)
    fixed, moving = (ops.gaussian(torch.rand(1, 1, *shape, generator=draw), sigma_voxels=2.0) for _ in range(2))
    ours = ops.warp, ops.lncc
    from warpwise.ops import functions

    def step(warp: Callable, similarity: Callable) -> float:
        kept = functions.warp
        functions.warp = warp  # compose and exponential look it up there
        try:
            began = time.perf_counter()
            optimizer.zero_grad()
            u = network(fixed, moving).displacement
            (-similarity(fixed, warp(moving, u)) + 0.1 * ops.diffusion(u).mean()).backward()
            optimizer.step()
            return time.perf_counter() - began
        finally:
            functions.warp = kept

    ways = {
        "ours": lambda: step(ours[0], lambda f, w: ours[1](f, w, radius=4).mean()),
        "PyTorch, window of ones": lambda: step(torch_warp, lambda f, w: torch_lncc(f, w, radius=4, separable=False)),
        "PyTorch, axis by axis": lambda: step(torch_warp, lambda f, w: torch_lncc(f, w, radius=4, separable=True)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(5):
        for name, way in ways.items():
            took = way()
            if turn:
                seconds[name].append(took)
    medians = {name: float(np.median(v)) for name, v in seconds.items()}
    maps = [torch.rand(1, 16, 40, 48, 40, generator=draw).requires_grad_() for _ in range(2)]
    both: dict[str, list[float]] = {"ours": [], "PyTorch": []}
    for _ in range(7):
        for name, call in (("ours", ops.cost_volume), ("PyTorch", reference_cost_volume)):
            began = time.perf_counter()
            call(*maps).square().sum().backward()
            both[name].append(time.perf_counter() - began)
    cost_volume = {name: float(np.median(v[1:])) for name, v in both.items()}
    return {
        "cost_volume_seconds": cost_volume, "cost_volume_ratio": round(cost_volume["PyTorch"] / cost_volume["ours"], 1),
        "shape": shape, "window": 9, "seconds_a_step": medians,
        "times_ours": {name: round(v / medians["ours"], 2) for name, v in medians.items()},
    }  # fmt: skip


def inverted(image: Image) -> Image:
    """Bright for dark within the object."""
    values = normalised(image.data[0])
    return Image(np.where(values > 0.02, 1.2 - values, 0)[None].astype(np.float32), image.grid, name="inverted")


def recoloured(image: Image, seed: int) -> Image:
    """Through a random curve within the object."""
    values = normalised(image.data[0])
    curve = remapped(values, np.random.default_rng(seed), knots=6)
    return Image(np.where(values > 0.02, 0.05 + curve, 0)[None].astype(np.float32), image.grid, name="random contrast")


METHODS = {
    "affine": Method.named("affine"),
    "synthetic": Method.named("synthetic"),
    "synthetic, refined": Method.named("synthetic").refined(),
    "solver, balanced": Method.named("balanced"),
}


def contrast(arguments: argparse.Namespace) -> dict:
    """Dice on brains whose moving image has another contrast; endpoint error on one person's T1 and bent PD."""
    dataset = read_dataset(arguments.data / DATASETS["brains"])
    labels = [*dataset.averaged]
    pairs = pairs_of("brains", dataset, "select")  # who chose nothing of this network
    brains: dict[str, dict[str, list[float]]] = {}
    for n, scans in enumerate(pairs[k * len(pairs) // arguments.pairs] for k in range(arguments.pairs)):
        fixed, moving = (read_image(scan.image) for scan in scans)
        maps = [read_image(scan.labels, kind="labels") for scan in scans if scan.labels is not None]
        for name, image in {"same": moving, "inverted": inverted(moving), "random": recoloured(moving, n)}.items():
            row = brains.setdefault(name, {})
            for method, how in METHODS.items():
                result = ww.register(fixed, image, method=how)
                warped = ww.apply(result.transform, maps[1], like=maps[0], interpolation="nearest")
                value = float(np.mean([*dice(maps[0].data[0], warped.data[0], labels=labels).values()]))
                row.setdefault(method, []).append(round(value, 4))
            print(n, name, {k: v[-1] for k, v in row.items()}, flush=True)
    return {
        "brains_dice": {n: {m: {"mean": float(np.mean(v)), "pairs": v} for m, v in r.items()} for n, r in brains.items()},
        "t1_from_bent_pd_endpoint_mm": bent_pd(arguments),
    }  # fmt: skip


def made(_: argparse.Namespace) -> dict:
    """Mean distance (voxels) from the true displacement on made pairs that no training draws, by seed of the pairs."""
    settings = read_settings(Path(__file__).parent / "learning" / "synthetic.yaml")
    assert settings.synthetic is not None
    objective, network = Objective.of(settings.objective), Model.load("synthetic").network
    out: dict[str, dict[str, float]] = {}
    for seed in range(1, 4):
        sampler = SyntheticSampler(settings.synthetic, settings.data.labels_at_once, seed)
        judged = judge_synthetic(network, objective, sampler, count=8, device=torch.device("cpu"))
        out[str(seed)] = {name: round(value, 4) for name, value in judged.figures.items()}
    return out


def bent_pd(arguments: argparse.Namespace, methods: dict | None = None) -> dict:
    """PD bent by a known deformation, brought back onto T1: mean distance (mm) from where points belong.

    The rigid part is the solver's, found without the bend.
    """
    folder = arguments.data / "multicontrast"
    t1, pd = (ww.load_image(next(folder.glob(f"**/chris_{k}.nii.gz"))) for k in ("t1", "PD"))
    rigid = ww.register(t1, pd, method="rigid").transform
    at = np.argwhere(normalised(t1.data[0]) > 0.15)[::997]
    points = at @ t1.grid.affine[:3, :3].T + t1.grid.affine[:3, 3]
    index = rigid.points(points) @ pd.grid.inverse_affine[:3, :3].T + pd.grid.inverse_affine[:3, 3]
    points = points[((index > 4) & (index < np.array(pd.grid.shape) - 5)).all(1)]
    out: dict[str, list[float]] = {}
    for seed in range(arguments.bends):
        bend = random_deformation(pd.grid, np.random.default_rng(seed), sigma_mm=14.0, amplitude_mm=4.0)
        bent = resample(pd, pd.grid, bend)
        truth = bend.inverse().points(rigid.points(points))
        for method, how in (methods or METHODS).items():
            found = ww.register(t1, bent, method=how).transform.points(points)
            out.setdefault(method, []).append(round(float(np.linalg.norm(found - truth, axis=1).mean()), 3))
        print("bend", seed, {k: v[-1] for k, v in out.items()}, flush=True)
    return {m: {"mean": float(np.mean(v)), "bends": v} for m, v in out.items()}


def kills(_: argparse.Namespace) -> dict:
    """A run that is killed ten times at random moments, against one that is not."""
    place = Path(tempfile.mkdtemp())
    content = {
        "network": {"kind": "pyramid", "features": [6, 8], "hidden": 8, "iterations": [1, 1]},
        "synthetic": {"shape": [48, 48]}, "batch": 2,
        "objective": {"endpoint": {}, "diffusion": {"weight": 0.05}}, "steps": 1500,
        "validate_every": 100, "save_every_s": 0.3,
    }  # fmt: skip
    (place / "config.yaml").write_text(yaml.safe_dump(content))
    program = [sys.executable, "-c", "from warpwise.cli import main; main()", "train", "--quiet"]
    subprocess.run([*program, str(place / "config.yaml"), "-o", str(place / "whole")], check=True)
    folder, draw, at = place / "parts", random.Random(0), []
    while True:
        state = folder / "last" / "state.safetensors"
        begin = (
            ["-o", str(folder), "--resume"]
            if state.exists()
            else [str(place / "config.yaml"), "-o", str(folder), "--overwrite"]
        )
        process = subprocess.Popen([*program, *begin])
        if len(at) < 10:
            record = folder / "history.jsonl"
            rows = len(record.read_text().splitlines()) if record.exists() else 0
            until = time.monotonic() + 60
            while process.poll() is None and time.monotonic() < until:
                file = folder / "history.jsonl"
                if file.exists() and len(file.read_text().splitlines()) > rows:
                    break
                time.sleep(0.02)
            time.sleep(draw.uniform(0, 1.5))
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
                last = (folder / "history.jsonl").read_text().splitlines()[-1:]
                at.append(json.loads(last[0])["step"] if last else 0)
        if process.wait() == 0:
            break
    one, other = (load_file(place / name / "last" / "weights.safetensors") for name in ("whole", "parts"))
    largest = max(float((one[k] - other[k]).abs().max()) for k in one)
    return {"kills": len(at), "last_step_on_record_at_each": at, "largest_difference_of_final_weights": largest}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["speed", "contrast", "made", "kills"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--bends", type=int, default=5)
    arguments = parser.parse_args()
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    ways = {"speed": speed, "contrast": contrast, "made": made, "kills": kills}
    measured = ways[arguments.what](arguments)
    found[arguments.what] = {"machine": machine(), **measured}
    RESULTS.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps(measured, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
