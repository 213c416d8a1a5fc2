"""CPU kernels against PyTorch's best form: speed ratio, multiple of the copy-bandwidth floor, largest difference.

    python benchmarks/operators.py [--threads 2] [--repeats 7] [--out benchmarks/results/operators.json]

160×192×224, float32, both sides on the same threads, minimum of the repeats. The floor is the time to read every input
and write every output once at the bandwidth of a large copy in the same run.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from common import machine

from warpwise import ops
from warpwise.ops import kernels, runtime

SHAPE = (160, 192, 224)
MB = float(np.prod(SHAPE)) * 4 / 1e6


def best(call: Callable[[], object], repeats: int) -> float:
    """Milliseconds, minimum over repeats after one warm-up."""
    call()
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return 1e3 * min(found)


def unit_grid(field: torch.Tensor) -> torch.Tensor:
    """grid_sample's coordinates for a displacement in voxels."""
    axes = [torch.arange(n, dtype=torch.float32) for n in SHAPE]
    at = torch.stack(torch.meshgrid(*axes, indexing="ij")) + field[0]
    scale = torch.tensor([2 / (n - 1) for n in SHAPE]).reshape(3, 1, 1, 1)
    return (at * scale - 1).flip(0).permute(1, 2, 3, 0)[None].contiguous()


def pooled(x: torch.Tensor, r: int) -> torch.Tensor:
    """Box mean by pooling one axis after the other, PyTorch's fastest form."""
    for axis in range(3):
        size, pad = [1, 1, 1], [0, 0, 0]
        size[axis], pad[axis] = 2 * r + 1, r
        x = F.avg_pool3d(x, size, 1, pad, count_include_pad=False)
    return x


def torch_lncc(fixed: torch.Tensor, warped: torch.Tensor, r: int) -> torch.Tensor:
    f, w = pooled(fixed, r), pooled(warped, r)
    p, q = pooled(fixed * fixed, r) - f * f, pooled(warped * warped, r) - w * w
    s = pooled(fixed * warped, r) - f * w
    return ((s + 5e-3) ** 2 / ((p + 5e-3) * (q + 5e-3))).mean()


def torch_gaussian(field: torch.Tensor, sigma: float) -> torch.Tensor:
    taps = torch.from_numpy(kernels.gaussian_taps(sigma))
    for axis in range(3):
        shape, pad = [1, 1, 1], [0, 0, 0]
        shape[axis], pad[axis] = len(taps), len(taps) // 2
        field = F.conv3d(field.transpose(0, 1), taps.reshape(1, 1, *shape), padding=pad).transpose(0, 1)
    return field


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/operators.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    runtime.set_threads(arguments.threads)
    generator = torch.Generator().manual_seed(0)
    images = [F.avg_pool3d(torch.rand(1, 1, *SHAPE, generator=generator), 3, 1, 1) for _ in range(2)]
    fixed, moving = images
    field = 8 * (torch.nn.functional.avg_pool3d(torch.rand(1, 3, *SHAPE, generator=generator), 7, 1, 3) - 0.5)
    a, b, u = fixed[0].numpy(), moving[0].numpy(), field[0].numpy()
    out1, out3 = np.empty_like(a), np.empty_like(u)
    maps, gradient = np.empty((1, 3, *SHAPE), np.float32), np.empty_like(a)
    coordinates = unit_grid(field)
    repeats = arguments.repeats
    large = np.ones(40_000_000, np.float32)
    target = np.empty_like(large)
    bandwidth = 2 * large.nbytes / 1e6 / best(lambda: np.copyto(target, large), repeats)  # GB/s, one thread
    torch_large, torch_target = torch.from_numpy(large), torch.from_numpy(target)
    bandwidth = max(bandwidth, 2 * large.nbytes / 1e6 / best(lambda: torch_target.copy_(torch_large), repeats))

    def torch_warp_backward() -> torch.Tensor:
        leaf = coordinates.clone().requires_grad_()
        F.grid_sample(moving, leaf, align_corners=True, padding_mode="border").backward(fixed)
        return leaf.grad

    def torch_lncc_backward(r: int) -> torch.Tensor:
        leaf = moving.clone().requires_grad_()
        torch_lncc(fixed, leaf, r).backward()
        return leaf.grad

    def lncc(r: int) -> None:
        kernels.lncc(a, b, radius=(r, r, r), scale=np.full(1, 1 / a.size), maps=maps, gradient=gradient)

    rows = {
        "warp": (
            lambda: kernels.warp(b, u, np.eye(4), out=out1),
            lambda: F.grid_sample(moving, coordinates, align_corners=True, padding_mode="border"),
            5 * MB,
        ),
        "warp with gradient": (lambda: kernels.warp_with_gradient(b, u), torch_warp_backward, 8 * MB),
        "warp, backward to the field": (lambda: kernels.warp_gradient(b, u, a), torch_warp_backward, 8 * MB),
        "LNCC 9³, value and gradient": (lambda: lncc(4), lambda: torch_lncc_backward(4), 3 * MB),
        "LNCC 5³, value and gradient": (lambda: lncc(2), lambda: torch_lncc_backward(2), 3 * MB),
        "Gaussian of a field, σ 1.732": (
            lambda: kernels.gaussian(u, [1.732] * 3, out=out3),
            lambda: torch_gaussian(field, 1.732),
            6 * MB,
        ),
        "compose": (lambda: kernels.compose(u, u, out=out3), None, 9 * MB),
        "force (LNCC derivative × ∇warped)": (lambda: kernels.force(a, b, factors=(1, 1, 1), out=out3), None, 5 * MB),
        "ten determinants": (lambda: kernels.digital(u), None, 4 * MB),
    }
    found = {}
    for name, (ours, theirs, traffic) in rows.items():
        mine = best(ours, repeats)
        other = None if theirs is None else best(theirs, max(2, repeats // 3))
        floor = traffic / bandwidth
        found[name] = {
            "kernel_ms": round(mine, 1),
            "pytorch_ms": None if other is None else round(other, 1),
            "ratio": None if other is None else round(other / mine, 1),
            "times_the_floor": round(mine / floor, 1),
        }
        print(name, found[name], flush=True)
    differences = {
        "warp": float(
            (ops.warp(moving, field) - F.grid_sample(moving, coordinates, align_corners=True, padding_mode="border"))
            .abs()
            .max()
        ),
        "LNCC 9³ gradient": float(
            (torch.from_numpy(gradient_of(a, b, maps, gradient)) - torch_lncc_backward(4)[0]).abs().max() * a.size
        ),
    }
    text = {"machine": machine(), "threads": arguments.threads, "copy_bandwidth_gb_s": round(bandwidth, 1),
            "largest_difference_to_pytorch": differences, "operators": found}  # fmt: skip
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(text, indent=1, ensure_ascii=False) + "\n")


def gradient_of(a: np.ndarray, b: np.ndarray, maps: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    kernels.lncc(a, b, radius=(4, 4, 4), scale=np.full(1, 1 / a.size), maps=maps, gradient=gradient)
    return gradient


if __name__ == "__main__":
    main()
