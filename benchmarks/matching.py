"""Speed of `ops.match` and `ops.symmetric_kl` against their PyTorch references, on features of a brain at 2 mm.

    python benchmarks/matching.py [--out benchmarks/results/matching.json]
    python benchmarks/matching.py --residuals

12 channels of 80×96×80 voxels (6 means, 6 log-variances), float32; medians, kernels and references in turn.

Also how far a step of `ops.match` and its gradient are from those of 400 conjugate gradients, on 40×48×40 voxels: what
"exact" means at a number of solves.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common import machine

from warpwise import ops
from warpwise.ops import operation
from warpwise.ops.reference import matching as reference


def features(seed: int) -> torch.Tensor:
    noise = torch.randn(1, 12, 80, 96, 80, generator=torch.Generator().manual_seed(seed))
    return (4 * ops.gaussian(noise, sigma_voxels=2.0)).requires_grad_()


def residuals() -> list[dict]:
    """Relative distance of step and gradients by both features from those of 400 solves."""
    generator = torch.Generator().manual_seed(2)
    fixed, moving = (
        4 * ops.gaussian(torch.randn(1, 12, 40, 48, 40, generator=generator), sigma_voxels=2.0) for _ in range(2)
    )

    def found(diffusion: float, solves: int) -> list[torch.Tensor]:
        both = [x.clone().requires_grad_() for x in (fixed, moving)]
        step = ops.match(*both, torch.tensor(diffusion), solves=solves)
        return [step.detach(), *torch.autograd.grad(ops.warp(moving[:, :6], step).square().mean(), both)]

    rows = []
    for diffusion in (1.0, 10.0, 100.0):
        last = found(diffusion, 400)
        for solves in (6, 12, 24, 48, 96):
            apart = [float((a - b).norm() / b.norm()) for a, b in zip(found(diffusion, solves), last, strict=True)]
            rows.append({
                "diffusion": diffusion,
                "solves": solves,
                "step": apart[0],
                "by_fixed": apart[1],
                "by_moving": apart[2],
            })
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "matching.json")
    parser.add_argument("--residuals", action="store_true", help="Only those; into results/matching_residuals.json.")
    arguments = parser.parse_args()
    if arguments.residuals:
        found = {"machine": {**machine(), "load": os.getloadavg()[0]}, "relative_to_400_solves": residuals()}
        place = arguments.out.with_name("matching_residuals.json")
        place.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        return
    fixed, moving = features(0), features(1)
    diffusion = torch.tensor(5.0)

    def value() -> None:
        with torch.no_grad():
            ops.match(fixed, moving, diffusion, solves=12)

    def both() -> None:
        ops.match(fixed, moving, diffusion, solves=12).square().sum().backward()

    def kl() -> None:
        ops.symmetric_kl(fixed, moving).sum().backward()

    def kl_reference() -> None:
        reference.symmetric_kl(fixed, moving).sum().backward()

    def slowly(call: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            kept, operation.kernels_serve = operation.kernels_serve, lambda _: False
            try:
                call()
            finally:
                operation.kernels_serve = kept

        return run

    rows = {
        "match, value": (value, slowly(value)),
        "match, value and gradient": (both, slowly(both)),
        "symmetric KL, value and gradient": (kl, kl_reference),
    }
    out: dict = {"machine": machine(), "milliseconds": {}}
    for name, pair in rows.items():
        seconds: list[list[float]] = [[], []]
        for turn in range(arguments.repeats + 1):
            for n, call in enumerate(pair):
                began = time.perf_counter()
                call()
                if turn:
                    seconds[n].append(time.perf_counter() - began)
        ours, theirs = (1000 * float(np.median(s)) for s in seconds)
        out["milliseconds"][name] = {
            "kernel": round(ours, 1),
            "pytorch": round(theirs, 1),
            "ratio": round(theirs / ours, 1),
        }
        print(name, out["milliseconds"][name], flush=True)
    arguments.out.write_text(json.dumps(out, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
