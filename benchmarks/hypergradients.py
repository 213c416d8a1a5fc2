"""Hypergradients of a real registration: their errors against finite differences, their time and their memory.

    python benchmarks/hypergradients.py [--out benchmarks/results/hypergradients.json]

Errors: two people's hearts in one plane, every fourth pixel, float64. Outer variables are the logarithm of the diffusion
and a 3×3 filter that makes features of the images; the outer loss is soft Dice. Truth is a central difference between
registrations that were each solved to a stationary point. Costs: a brain-like phantom of 48³ voxels, float32, every
estimator in a process of its own, away from a minimum, so conjugate gradients are damped.
"""

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from common import machine, markdown_table
from torch import Tensor

from warpwise import ops
from warpwise.errors import RunError
from warpwise.image import normalised
from warpwise.io.datasets import read_dataset
from warpwise.io.images import read_image
from warpwise.levels.estimators import ConjugateGradient, Descent, GaussNewton, Neumann, OneStep, Unrolled
from warpwise.levels.hypergradient import Estimator, Problem, Variables, hypergradient

STEP = 1e-3  # of the finite differences
DIRECTIONS = 4  # in which the filter is changed


@dataclass(frozen=True, eq=False)
class Plane:
    """½·Σ (f_t − f_s∘(id + u))² + ½·diffusion·Σ ‖∇u‖², f = filter ∗ image."""

    fixed: Tensor
    moving: Tensor
    fixed_labels: Tensor
    moving_labels: Tensor
    interpolation: str = "cubic"

    def features(self, outer: Variables) -> tuple[Tensor, Tensor]:
        pad = (1,) * 4
        made = [torch.nn.functional.pad(i, pad, mode="replicate") for i in (self.fixed, self.moving)]
        one, other = (torch.nn.functional.conv2d(i, outer["filter"]) for i in made)
        return one, other

    def residuals(self, outer: Variables, inner: Variables) -> Tensor:
        one, other = self.features(outer)
        moved = ops.warp(other, inner["u"], interpolation=self.interpolation)
        return one - moved

    def smoothness(self, outer: Variables, inner: Variables) -> Tensor:
        return 0.5 * outer["log_stiffness"].exp() * ops.diffusion(inner["u"]).sum() * self.fixed.numel()

    def inner_loss(self, outer: Variables, inner: Variables) -> Tensor:
        return 0.5 * (self.residuals(outer, inner) ** 2).sum() + self.smoothness(outer, inner)

    def outer_loss(self, _: Variables, inner: Variables) -> Tensor:
        moved = ops.warp(self.moving_labels, inner["u"], interpolation="cubic")
        both = (self.fixed_labels * moved).flatten(2).sum(2)
        either = (self.fixed_labels**2).flatten(2).sum(2) + (moved**2).flatten(2).sum(2)
        return 1 - (2 * both / either).mean()

    def start(self) -> dict[str, Tensor]:
        """Outer variables: the filter of features that are the image itself."""
        kernel = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
        kernel[0, 0, 1, 1] = 1
        return {"log_stiffness": torch.tensor(-4.5, dtype=torch.float64), "filter": kernel}

    def solve(self, outer: Variables, begin: Tensor | None = None) -> dict[str, Tensor]:
        """A stationary point, by L-BFGS; then, where second derivatives mean something, Newton's steps."""
        u = torch.zeros(1, 2, *self.fixed.shape[2:], dtype=torch.float64) if begin is None else begin.clone()
        u.requires_grad_()
        optimizer = torch.optim.LBFGS(
            [u], max_iter=400, tolerance_grad=1e-9, tolerance_change=1e-14, history_size=30, line_search_fn="strong_wolfe"
        )

        def evaluate() -> Tensor:
            optimizer.zero_grad()
            loss = self.inner_loss(outer, {"u": u})
            loss.backward()
            return loss

        optimizer.step(evaluate)  # type: ignore[arg-type]
        for _ in range(4 if self.interpolation == "cubic" else 0):
            problem = Problem.at(self.inner_loss, outer, {"u": u})
            newton = ConjugateGradient(400, tolerance=1e-6)
            slope = problem.slope()
            step = newton.inverse(problem, slope)[0]
            u = (u - step).detach()
        return {"u": u.detach()}


def real_plane(data: Path, *, interpolation: str = "cubic", thin: int = 4) -> Plane:
    """The first listed pair of two phases of a heart, as tensors on the fixed image's pixels."""
    dataset = read_dataset(data / "acdc-2d")
    pair = dataset.training_pairs[0]

    def plane(path: Path, kind: str) -> np.ndarray:
        return np.asarray(read_image(path, kind=kind).data, np.float64)[0].squeeze()

    images, labels = [], []
    for scan in pair:
        image = torch.from_numpy(plane(scan.image, "intensity"))[None, None]
        low, high = torch.quantile(image, torch.tensor([0.005, 0.995], dtype=torch.float64))
        image = ((image - low) / (high - low)).clamp(0, 1.2)
        assert scan.labels is not None
        map_ = torch.from_numpy(plane(scan.labels, "labels"))
        codes = torch.stack([(map_ == k).double() for k in dataset.averaged])[None]
        images.append(ops.gaussian(image, sigma_voxels=0.7 * thin, stride=thin))
        labels.append(ops.gaussian(codes, sigma_voxels=0.7 * thin, stride=thin))
    shape = [min(a, b) for a, b in zip(images[0].shape[2:], images[1].shape[2:], strict=True)]
    cut = (..., slice(shape[0]), slice(shape[1]))
    return Plane(images[0][cut], images[1][cut], labels[0][cut], labels[1][cut], interpolation)


def truth(plane: Plane, solution: Variables, *, directions: int = DIRECTIONS) -> tuple[float, list[Tensor], list[float]]:
    """By finite differences: dU/d(log diffusion); directions of the filter, and the derivatives along them."""
    outer = plane.start()
    generator = torch.Generator().manual_seed(0)

    def at(name: str, change: Tensor) -> float:
        moved = {**outer, name: outer[name] + change}
        return float(plane.outer_loss(moved, plane.solve(moved, solution["u"])))

    def along(name: str, direction: Tensor) -> float:
        return (at(name, STEP * direction) - at(name, -STEP * direction)) / (2 * STEP)

    ways = [torch.randn(1, 1, 3, 3, generator=generator, dtype=torch.float64) for _ in range(directions)]
    one = torch.ones((), dtype=torch.float64)
    return along("log_stiffness", one), ways, [along("filter", d) for d in ways]


def errors(gradients: Variables, expected: tuple[float, list[Tensor], list[float]]) -> dict[str, float]:
    """Relative errors: of the diffusion's derivative, and of the vector of derivatives along all directions."""
    scalar, directions, along = expected
    got = torch.tensor([float((gradients["filter"] * d).sum()) for d in directions])
    wanted = torch.tensor(along)
    return {
        "diffusion": abs(float(gradients["log_stiffness"]) - scalar) / abs(scalar),
        "filter": float((got - wanted).norm() / wanted.norm()),
    }


def measured_errors(data: Path) -> dict:
    """Every estimator on cubic sampling; then three kinds of second derivative on linear and on cubic sampling."""
    plane = real_plane(data)
    outer = plane.start()
    solution = plane.solve(outer)
    expected = truth(plane, solution)
    out: dict = {"pixels": [*plane.fixed.shape[2:]], "estimators": {}, "second_order": {}}

    def judge(variant: Plane, estimator: Estimator) -> dict:
        began = time.perf_counter()
        try:
            gradients = hypergradient(plane.outer_loss, variant.inner_loss, outer, solution, estimator=estimator)
        except RunError as error:
            return {"refused": str(error)}
        return {**errors(gradients, expected), "seconds": round(time.perf_counter() - began, 3)}

    for interpolation in ("cubic", "linear"):
        variant = replace(plane, interpolation=interpolation)
        newton = GaussNewton(variant.residuals, variant.smoothness)
        for name, curvature in (("exact Hessian", Problem.hessian), ("Gauss-Newton product", newton)):
            estimator = ConjugateGradient(600, tolerance=1e-7, curvature=curvature)
            out["second_order"][f"{interpolation}, {name}"] = judge(variant, estimator)
    rate = 0.5 / largest(plane, solution, outer)
    for name, estimator in {
        "one-step, difference": OneStep(Descent(rate)),
        "one-step, exact": OneStep(Descent(rate), mixed="exact"),
        **{f"unrolled, K = {k}": Unrolled(k, rate) for k in (10, 100)},
        **{f"Neumann, K = {k}": Neumann(k, rate) for k in (10, 100, 1000)},
        **{f"conjugate gradient, K = {k}": ConjugateGradient(k) for k in (10, 30, 100, 300)},
    }.items():
        out["estimators"][name] = judge(plane, estimator)
    return out


def largest(plane: Plane, solution: Variables, outer: Variables) -> float:
    """Largest eigenvalue of the Hessian, by power iteration."""
    u = solution["u"].clone().requires_grad_()
    slope = torch.autograd.grad(plane.inner_loss(outer, {"u": u}), u, create_graph=True)[0]
    v = torch.randn(u.shape, generator=torch.Generator().manual_seed(1), dtype=u.dtype)
    value = 0.0
    for _ in range(30):
        v = v / v.norm()
        h = torch.autograd.grad((slope * v).sum(), u, retain_graph=True)[0]
        value = float((v * h).sum())
        v = h
    return value


def volume(interpolation: str) -> tuple[Callable, Callable, Variables, Variables, GaussNewton]:
    """A 3-D problem whose outer variables are the images' features themselves and the diffusion."""
    from warpwise.synthetic.phantoms import brain_pair

    pair = brain_pair(shape=(48, 48, 48), seed=0)
    fixed, moving = (torch.from_numpy(normalised(i.data[0]))[None, None] for i in (pair.fixed, pair.moving))

    def residuals(outer: Variables, inner: Variables) -> Tensor:
        moved = ops.warp(outer["moving"], inner["u"], interpolation=interpolation)
        return (outer["fixed"] - moved) / fixed.numel() ** 0.5

    def smoothness(outer: Variables, inner: Variables) -> Tensor:
        return 0.5 * outer["diffusion"] * ops.diffusion(inner["u"]).mean()

    def inner_loss(outer: Variables, inner: Variables) -> Tensor:
        return 0.5 * (residuals(outer, inner) ** 2).sum() + smoothness(outer, inner)

    def outer_loss(_: Variables, inner: Variables) -> Tensor:
        return -ops.lncc(fixed, ops.warp(moving, inner["u"])).mean()

    u = 0.3 * ops.gaussian(torch.randn(1, 3, 48, 48, 48, generator=torch.Generator().manual_seed(0)), sigma_voxels=3.0)
    given = {"fixed": fixed, "moving": moving, "diffusion": torch.tensor(0.01)}
    return outer_loss, inner_loss, given, {"u": u}, GaussNewton(residuals, smoothness)


COSTS = {
    "one-step, difference": ("linear", lambda _: OneStep(Descent(1.0))),
    "one-step, exact": ("cubic", lambda _: OneStep(Descent(1.0), mixed="exact")),
    "unrolled, K = 2": ("cubic", lambda _: Unrolled(2, 1.0)),
    "unrolled, K = 4": ("cubic", lambda _: Unrolled(4, 1.0)),
    "unrolled, K = 8": ("cubic", lambda _: Unrolled(8, 1.0)),
    "Neumann, K = 10": ("cubic", lambda _: Neumann(10, 1.0)),
    "conjugate gradient, K = 10": ("cubic", lambda _: ConjugateGradient(10, damping=3e-5, tolerance=0.0)),
    "conjugate gradient, K = 40": ("cubic", lambda _: ConjugateGradient(40, damping=3e-5, tolerance=0.0)),
    "conjugate gradient, Gauss-Newton, linear, K = 10": (
        "linear",
        lambda n: ConjugateGradient(10, damping=3e-5, tolerance=0.0, curvature=n),
    ),
}


def high_water() -> float:
    """Most memory this process ever held, MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def cost(name: str, pipe) -> None:
    interpolation, make = COSTS[name]
    *problem, newton = volume(interpolation)
    hypergradient(*problem, estimator=OneStep(Descent(1.0)))  # compiles kernels
    before = high_water()
    seconds: list[float] = []
    for _ in range(3):
        began = time.perf_counter()
        hypergradient(*problem, estimator=make(newton))
        seconds.append(time.perf_counter() - began)
    pipe.send({"seconds": round(float(np.median(seconds)), 2), "memory_mb": round(high_water() - before)})


def matched(name: str, pipe) -> None:
    """The operator with its own implicit gradient, value and gradient together, one channel."""
    _, _, given, _, _ = volume("linear")
    tensors = [given[k].clone().requires_grad_() for k in ("fixed", "moving", "diffusion")]
    ops.match(*tensors, data="means", solves=10).sum().backward()
    before = high_water()
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        ops.match(*tensors, data="means", solves=10).sum().backward()
        seconds.append(time.perf_counter() - began)
    pipe.send({"seconds": round(float(np.median(seconds)), 3), "memory_mb": round(high_water() - before)})


def apart(work: Callable, name: str) -> dict:
    """What a process of its own finds."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=work, args=(name, theirs))
    process.start()
    theirs.close()  # so that a process that fails ends the wait for it
    results = mine.recv()
    process.join()
    return results


def markdown(results: dict) -> str:
    lines = ["# Hypergradients", "", "`python benchmarks/hypergradients.py`; explained at the head of that file.", ""]
    lines += [f"## Errors of the estimators, {results['pixels'][0]}×{results['pixels'][1]} pixels, cubic sampling", ""]
    rows = [
        [k, f"{v['diffusion']:.2g}", f"{v['filter']:.2g}", f"{v['seconds']:.2f}"] for k, v in results["estimators"].items()
    ]
    lines += markdown_table(["estimator", "error by diffusion", "error by filter", "s"], rows)
    lines += ["", "## Second derivatives, at the solution of the cubic problem", ""]
    rows = [
        [k, "refused: the Hessian is indefinite", ""]
        if "refused" in v
        else [k, f"{v['diffusion']:.2g}", f"{v['filter']:.2g}"]
        for k, v in results["second_order"].items()
    ]
    lines += markdown_table(["sampling, curvature", "error by diffusion", "error by filter"], rows)
    lines += ["", "## Costs, 48³ voxels", ""]
    rows = [[k, f"{v['seconds']:.2f}", f"{v['memory_mb']}"] for k, v in results["costs"].items()]
    return "\n".join([*lines, *markdown_table(["estimator", "s", "MB more"], rows), ""])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "hypergradients.json")
    arguments = parser.parse_args()
    results = {"machine": machine(), **measured_errors(arguments.data)}
    results["costs"] = {name: apart(cost, name) for name in COSTS}
    results["costs"]["ops.match, 10 solves, value and gradient"] = apart(matched, "match")
    arguments.out.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    arguments.out.with_suffix(".md").write_text(markdown(results))
    print(markdown(results))


if __name__ == "__main__":
    main()
