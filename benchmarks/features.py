"""Learned features against intensities: ablation, robustness, calibration, contrasts.

    python benchmarks/features.py train --runs DIR [--tasks hippocampus brains] [--rows …]
    python benchmarks/features.py ablation|robustness|calibration|contrast --runs DIR [--baselines DIR]

Settings stand in benchmarks/features/. `features` networks differ from each other in nothing but whether features have a
variance (and so in the data term: symmetrised KL, or squared distance); both take the same number of steps on the same
pairs. Labels are moved by nearest neighbour in one resampling from native space. `--baselines` is the folder of the runs
of benchmarks/learning.py, for VoxelMorph's box plots.
"""

import argparse
import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import yaml
from bilevel import deciles, known_pair, noisy
from common import machine, markdown_table, solver
from learning import measured

import warpwise as ww
from warpwise.benchmark.compare import Row, as_it_is, run_method
from warpwise.evaluation.statistics import compared
from warpwise.image import Image, intensity_range
from warpwise.io.datasets import Dataset, read_dataset
from warpwise.io.images import read_image
from warpwise.levels.history import history
from warpwise.levels.settings import TrainingSettings
from warpwise.levels.training import Run, train
from warpwise.methods import Method
from warpwise.networks.model import Model, size
from warpwise.registrars.deformable.work import ScaleSettings
from warpwise.synthetic.contrasts import smooth_noise

HERE = Path(__file__).parent
RESULTS = HERE / "results"
ENCODER = {"widths": [16, 32, 48, 48], "features": 8, "finest": 1}
# Hippocampi are matched at 2 mm, brains at 2 mm as well.
SOLVER = {
    "hippocampus": {**ENCODER, "stages": [4, 4, 4]},
    "brains": {"widths": [8, 24, 32, 48], "features": 6, "finest": 0, "stages": [2, 3, 3, 3]},
}
# Diffusion is learned; it begins where evidence of the size that untrained features give and smoothness balance.
ROWS = {
    "intensity": {
        "network": {"kind": "features", "encoder": "intensity", "uncertainty": False, "diffusion": 1.0},
        "steps": 60,
        "optimizer": {"learning_rate": 0.01},
        "augmentation": {"noise": 0.0},
    },
    "deterministic": {"network": {"kind": "features", "uncertainty": False, "diffusion": 2.5}},
    "probabilistic": {"network": {"kind": "features", "diffusion": 10.0}},
    # The same, looking more often at images of contrasts that nobody has seen.
    "probabilistic-contrast": {
        "network": {"kind": "features", "diffusion": 10.0},
        "steps": 1000,
        "augmentation": {"judge_clean": True, "noise": 0.15, "bias": 0.3, "contrast": 0.4},
    },
    "deterministic-unlabelled": {"network": {"kind": "features", "uncertainty": False, "diffusion": 2.5}},
    "probabilistic-unlabelled": {"network": {"kind": "features", "diffusion": 10.0}},
    # An update of the cascade costs a third of the solver's on brains.
    "cascade": {
        "network": {"kind": "cascade", **ENCODER, "matching": [32, 24, 16], "context": [24, 24, 16]},
        "steps": {"hippocampus": 800, "brains": 450},
    },
}
NAMES = {
    "intensity": "intensity, same solver",
    "deterministic": "deterministic features",
    "probabilistic": "probabilistic features",
    "cascade": "probabilistic, cascade",
    "probabilistic-contrast": "probabilistic, more contrasts",
    "deterministic-unlabelled": "deterministic, no labels",
    "probabilistic-unlabelled": "probabilistic, no labels",
}
LNCC = "intensity LNCC"
# The same solver with a field as coarse as that of the learned features: 2 mm.
SCALES = Method.named("accurate").registrar.scales
AS_COARSE = {
    "hippocampus": (*SCALES[:2], ScaleSettings(image=0, field=1, iterations=20, radius=4)),
    "brains": (*SCALES[:1], ScaleSettings(image=1, field=1, iterations=20, radius=2)),
}
NOISE = (0.0, 0.05, 0.1, 0.15, 0.2)
BIAS = (0.0, 0.1, 0.2, 0.3)


def dataset_of(task: str, data: Path) -> Dataset:
    """A task's dataset."""
    return read_dataset(data / yaml.safe_load((HERE / "features" / f"{task}.yaml").read_text())["data"]["dataset"])


def settings_of(task: str, row: str, data: Path, seed: int) -> TrainingSettings:
    """A task's settings for one row of the ablation."""
    content = yaml.safe_load((HERE / "features" / f"{task}.yaml").read_text())
    content["data"]["dataset"] = str(data / content["data"]["dataset"])
    content |= {**ROWS[row], "seed": seed}
    if row.endswith("-unlabelled"):
        del content["objective"]["dice"]
    if isinstance(content["steps"], dict):
        content["steps"] = content["steps"][task]
    if content["network"]["kind"] == "features":
        content["network"] = {**SOLVER[task], **content["network"]}
    return TrainingSettings.parse(content)


def train_all(arguments: argparse.Namespace) -> None:
    """Train what is not trained yet; interrupted runs go on."""
    for task in arguments.tasks:
        for row in arguments.rows:
            folder = arguments.runs / task / row
            if (folder / "done").exists():
                continue
            print(time.strftime("%H:%M:%S"), task, row, flush=True)
            resume = (folder / "last" / "state.safetensors").exists()
            run = Run(folder, arguments.runs / "cache" / task, resume, overwrite=True)
            train(settings_of(task, row, arguments.data, arguments.seed), run)
            (folder / "done").write_text("")


def methods_of(task: str, arguments: argparse.Namespace, *, all_of_them: bool = True) -> dict[str, Method]:
    """Affine, the solver on intensities, every trained row; VoxelMorph of the other benchmark where it is at hand."""
    lncc = solver("accurate", similarity="lncc")
    coarse = lncc.replace(registrar=lncc.registrar.replace(scales=AS_COARSE[task]))
    out = {"affine": Method.named("affine"), LNCC: lncc, f"{LNCC}, as coarse": coarse}
    for row in ROWS:
        folder = arguments.runs / task / row
        if (folder / "done").exists() and (all_of_them or not row.endswith("-unlabelled")):
            out[NAMES[row]] = Method.of_model(Model.load(folder))
    if not all_of_them or arguments.baselines is None:
        return out
    for network in ("voxelmorph", "pyramid"):
        folder = arguments.baselines / task / f"{network}-0"
        if (folder / "done").exists():
            out[network] = Method.of_model(Model.load(folder))
    return out


def ablation(arguments: argparse.Namespace) -> None:
    """Every row on every validation pair, in turns; box plots of structures."""
    from warpwise.report.boxplots import draw

    found = known(arguments.out, "ablation")
    for task in arguments.tasks:
        dataset = dataset_of(task, arguments.data)
        methods = methods_of(task, arguments)
        rows: dict[str, list[Row]] = {name: [] for name in methods}
        for pair in dataset.validation_pairs[: arguments.pairs or None]:
            for name, method in methods.items():
                rows[name].append(run_method(name, method, pair, dataset.averaged))
            print(task, rows["affine"][-1].pair, {k: round(v[-1].mean_dice, 3) for k, v in rows.items()}, flush=True)
        table = {name: measured(mine, dataset) for name, mine in rows.items()}
        for row, name in NAMES.items():
            if name in table:
                run = arguments.runs / task / row
                last = [r for r in history(run) if r["kind"] == "train"][-1]
                count, _ = size(Model.load(run).network)
                table[name] |= {
                    "parameters": count,
                    "steps": last["step"],
                    "training_minutes": round(last["seconds"] / 60, 1),
                }
        scores = {m: v["dice_of_pairs"] for m, v in table.items() if m != "affine"}
        tests = {f"{a} | {b}": p for (a, b), p in compared(scores, [r.people for r in rows["affine"]]).items()}
        found["tasks"][task] = {"pairs": len(rows["affine"]), "methods": table, "p_values_people_holm": tests}
        structures = {
            name: {dataset.labels.get(k, str(k)): [r.dice[k] for r in mine if k in r.dice] for k in chosen(dataset, mine)}
            for name, mine in rows.items()
        }
        draw(structures, RESULTS / f"features_{task}.png")
        keep(arguments.out, "ablation", found)


def chosen(dataset: Dataset, rows: Sequence[Row], most: int = 24) -> list[int]:
    """Structures to show: all where they are few, else the largest number of pairs, the deep ones first."""
    deep = ("thalamus", "caudate", "putamen", "pallidum", "hippocampus", "amygdala", "accumbens", "ventricle", "stem")
    every = sorted({k for r in rows for k in r.dice})
    if len(every) <= most:
        return every
    return [k for k in every if any(word in dataset.labels.get(k, "").lower() for word in deep)][:most]


def shaded(image: Image, *, strength: float, seed: int) -> Image:
    """Multiplied by exp(strength · a smooth field of unit variance)."""
    x, y, z = image.grid.embedded().shape
    field = smooth_noise((x, y, z), np.random.default_rng([seed, x, y, z]), count=1, sigma=max(x, y, z) / 4)[0]
    shade = np.exp(np.float32(strength) * field).reshape(image.grid.shape)
    return Image(image.data.astype(np.float32) * shade, image.grid, name=image.name)


def inverted(image: Image) -> Image:
    """Bright for dark within the object, air as it is."""
    low, high = intensity_range(image.data)
    data = image.data.astype(np.float32)
    inside = data > low + 0.02 * (high - low)
    return Image(np.where(inside, high + low - data, data), image.grid, name=image.name)


def robustness(arguments: argparse.Namespace) -> None:
    """Dice of the first pairs against noise, shading and inversion of the moving image."""
    found = known(arguments.out, "robustness")
    for task in arguments.tasks:
        dataset = dataset_of(task, arguments.data)
        pairs = spread(dataset.validation_pairs, arguments.pairs or 4)
        methods = methods_of(task, arguments, all_of_them=False)
        changes = {f"noise {s:g}": partial(noisy, sigma=s, seed=1) if s else as_it_is for s in NOISE}
        changes |= {f"bias {s:g}": partial(shaded, strength=s, seed=2) if s else as_it_is for s in BIAS[1:]}
        changes["inverted"] = MovingInverted()
        changes = {name: change for name, change in changes.items() if name in (arguments.changes or changes)}
        before = found["tasks"].get(task, {})
        same = before.get("pairs") == len(pairs)
        table: dict = {label: before["dice"].get(label, {}) if same else {} for label in methods}
        found["tasks"][task] = {"pairs": len(pairs), "dice": table}
        for name, change in changes.items():
            for label, method in methods.items():
                if name in table[label]:
                    continue  # measured by an earlier run
                rows = [run_method(label, method, pair, dataset.averaged, change=change) for pair in pairs]
                table[label][name] = round(float(np.mean([r.mean_dice for r in rows])), 4)
            print(task, name, {m: v[name] for m, v in table.items()}, flush=True)
            keep(arguments.out, "robustness", found)
    curves(found, RESULTS / "features_robustness.png")


class MovingInverted:
    """Inversion of the second of every two images: the moving one."""

    def __init__(self) -> None:
        self.moving = True

    def __call__(self, image: Image) -> Image:
        self.moving = not self.moving
        return inverted(image) if self.moving else image


def spread(pairs: Sequence, most: int) -> list:
    """So many pairs, evenly from the list."""
    return [pairs[k * len(pairs) // most] for k in range(min(most, len(pairs)))]


def curves(found: dict, path: Path) -> None:
    """Dice against each corruption."""
    from matplotlib.figure import Figure

    tasks = found["tasks"]
    methods = dict.fromkeys(method for result in tasks.values() for method in result["dice"])
    colours = {method: f"C{n}" for n, method in enumerate(methods)}
    figure = Figure(figsize=(11, 3.4 * len(tasks)), layout="constrained")
    axes = figure.subplots(len(tasks), 3, squeeze=False, width_ratios=[3, 3, 2])
    for row, (task, result) in zip(axes, tasks.items(), strict=True):
        kinds = [[(100 * v, f"noise {v:g}") for v in NOISE], [(v, f"bias {v:g}") for v in BIAS], [(0, ""), (1, "inverted")]]
        for method, dice in result["dice"].items():
            for axis, kind in zip(row, kinds, strict=True):
                # The first of each is the image as it is.
                known = [(at, dice[name]) for at, name in [(0, "noise 0"), *kind[1:]] if name in dice]
                axis.plot(
                    [at for at, _ in known], [value for _, value in known], "o-", color=colours[method], label=method, ms=4
                )
        row[0].set(xlabel="noise, % of the range", ylabel=f"Dice, {task}")
        row[1].set(xlabel="shading, SD of its logarithm")
        row[2].set_xticks([0, 1], ["as it is", "moving inverted"])
        row[2].set_xlim(-0.3, 1.3)
        for axis in row:
            axis.grid(alpha=0.3)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def calibration(arguments: argparse.Namespace) -> None:
    """Error by decile of reported uncertainty: validation images bent by known deformations, with noise of their own."""
    found = known(arguments.out, "calibration")
    for task in arguments.tasks:
        dataset = dataset_of(task, arguments.data)
        scans = list(dict.fromkeys(scan for pair in dataset.validation_pairs for scan in pair))
        found["tasks"][task] = {}
        for row in ROWS:
            folder = arguments.runs / task / row
            if not (folder / "done").exists() or row.endswith("-unlabelled"):
                continue
            method, said, errors = Method.of_model(Model.load(folder)), [], []
            for n in range(arguments.pairs or 12):
                error, uncertainty, inside = known_pair(read_image(scans[n % len(scans)].image), method, n)
                said.append(uncertainty[inside])
                errors.append(error[inside])
            found["tasks"][task][NAMES[row]] = deciles(np.concatenate(said), np.concatenate(errors))
            print(task, row, found["tasks"][task][NAMES[row]], flush=True)
        keep(arguments.out, "calibration", found)
    calibrated(found, RESULTS / "features_calibration.png")


def calibrated(found: dict, path: Path) -> None:
    """Error against decile of certainty."""
    from matplotlib.figure import Figure

    tasks = found["tasks"]
    figure = Figure(figsize=(5 * len(tasks), 3.6), layout="constrained")
    axes = figure.subplots(1, len(tasks), squeeze=False)[0]
    for axis, (task, rows) in zip(axes, tasks.items(), strict=True):
        for name, row in rows.items():
            axis.plot(range(1, 11), row["error_mm"], "o-", label=name)
        axis.set(xlabel="decile of reported uncertainty", ylabel="endpoint error, mm", title=task)
        axis.set_xticks(range(1, 11))
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    figure.savefig(path, dpi=110)


def contrast(arguments: argparse.Namespace) -> None:
    """One person's T1 and PD: whether their features agree, and whether a known bend of the PD is found."""
    from learning_checks import bent_pd

    arguments.bends = arguments.pairs or 4
    found = known(arguments.out, "contrast")
    methods = methods_of("brains", arguments, all_of_them=False)
    methods.pop(f"{LNCC}, as coarse")
    methods["auto"] = Method.named("accurate")
    found["t1_from_bent_pd_endpoint_mm"] = bent_pd(arguments, methods)
    found["retrieval"] = {
        NAMES[row]: round(retrieved(Model.load(arguments.runs / "brains" / row), arguments.data), 3)
        for row in ROWS
        if row != "intensity" and (arguments.runs / "brains" / row / "done").exists()
    }
    print(found["retrieval"], flush=True)
    keep(arguments.out, "contrast", found)


def retrieved(model: Model, data: Path, *, others: int = 20) -> float:
    """How often the PD's features that are nearest to a T1 voxel's, among its own place and 20 random ones, are its own."""
    from warpwise.image import normalised
    from warpwise.registrars.learned.certainty import features_of

    folder = data / "multicontrast"
    t1, pd = (ww.load_image(folder / f"chris_{k}.nii.gz") for k in ("t1", "PD"))
    rigid = ww.register(t1, pd, method="rigid").transform
    moved = ww.apply(rigid, pd, like=t1)
    covered = ww.apply(rigid, Image(np.ones_like(pd.data), pd.grid), like=t1).data[0] > 0.99
    one, other = (features_of(image, model)[0] for image in (t1, moved))
    count = len(one.data) // (2 if model.card.network.uncertainty else 1)
    step = [round(b / a) for a, b in zip(t1.grid.spacing_mm, one.grid.spacing_mm, strict=True)]
    seen = ((normalised(t1.data[0]) > 0.15) & covered)[tuple(slice(None, None, k) for k in step)]
    at = np.argwhere(seen[tuple(slice(n) for n in one.data.shape[1:])])
    rng = np.random.default_rng(0)
    at = at[rng.permutation(len(at))[:4000]]
    mine, theirs = (f.data[(slice(count), *at.T)].T for f in (one, other))
    own = ((mine - theirs) ** 2).sum(1)
    wrong = np.min([((mine - theirs[rng.permutation(len(at))]) ** 2).sum(1) for _ in range(others)], 0)
    return float((own < wrong).mean())


def known(path: Path, part: str) -> dict:
    """What an earlier run found, under this run's name."""
    before = json.loads(path.read_text()).get(part, {}) if path.exists() else {}
    return {"machine": machine(), "tasks": before.get("tasks", {})}  # contrasts have no tasks


def keep(path: Path, part: str, found: dict) -> None:
    """Write one part, leave the others; and the tables."""
    whole = json.loads(path.read_text()) if path.exists() else {}
    whole[part] = found
    path.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
    path.with_suffix(".md").write_text(report(whole))


def report(whole: dict) -> str:
    """The tables as Markdown."""
    lines = ["# Learned features", "", "`python benchmarks/features.py`; explained at the head of that file.", ""]
    for task, result in whole.get("ablation", {}).get("tasks", {}).items():
        lines += [f"## {task}, {result['pairs']} validation pairs", ""]
        head = ["method", "Dice", "% det J ≤ 0", "% NDV", "SDlogJ", "s a pair", "parameters", "trained min"]
        rows = [
            [name, f"{m['dice']:.4f}", f"{m['percent_folded']:.2g}", f"{m['percent_ndv']:.2g}",
             f"{m['sd_log_jacobian']:.3f}", f"{m['seconds']:.2f}", f"{m['parameters']:,}" if "parameters" in m else "",
             str(m.get("training_minutes", ""))]
            for name, m in result["methods"].items()
        ]  # fmt: skip
        lines += [*markdown_table(head, rows), ""]
    for task, result in whole.get("robustness", {}).get("tasks", {}).items():
        names = [*[f"noise {s:g}" for s in NOISE], *[f"bias {s:g}" for s in BIAS[1:]], "inverted"]
        rows = [[m, *[f"{dice[n]:.3f}" if n in dice else "–" for n in names]] for m, dice in result["dice"].items()]
        lines += [
            f"## Robustness, {task}, Dice of {result['pairs']} pairs",
            "",
            *markdown_table(["method", *names], rows),
            "",
        ]
    for task, result in whole.get("calibration", {}).get("tasks", {}).items():
        rows = [[m, *[f"{e:.2f}" for e in r["error_mm"]], f"{r['spearman']}"] for m, r in result.items()]
        head = ["endpoint error, mm, by decile of reported uncertainty", *map(str, range(1, 11)), "rank correlation"]
        lines += [f"## Calibration, {task}", "", *markdown_table(head, rows), ""]
    if "contrast" in whole:
        part = whole["contrast"]
        rows = [
            [m, f"{r['mean']:.2f}", f"{part['retrieval'].get(m, '')}"]
            for m, r in part["t1_from_bent_pd_endpoint_mm"].items()
        ]
        head = ["T1 ← bent PD of one person", "endpoint error, mm", "places found again among 21"]
        lines += ["## Contrasts", "", *markdown_table(head, rows), ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["train", "ablation", "robustness", "calibration", "contrast"])
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--baselines", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--tasks", nargs="*", default=["hippocampus", "brains"])
    parser.add_argument("--rows", nargs="*", default=[*ROWS], choices=[*ROWS])
    parser.add_argument("--pairs", type=int, default=0)
    parser.add_argument("--changes", nargs="*", help="of robustness, such as 'noise 0.1'; all where none is given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "features.json")
    arguments = parser.parse_args()
    others = {"ablation": ablation, "robustness": robustness, "calibration": calibration, "contrast": contrast}
    {"train": train_all, **others}[arguments.what](arguments)


if __name__ == "__main__":
    main()
