"""Who trains, who chooses, who is tested: by people, the same for every learned method of every benchmark.

    python benchmarks/protocol.py DATA        # writes benchmarks/protocol.md

`train`: weights. `architecture`, `objective`: the levels above. `select`: checkpoints, settings. `test`: figures, each use
of which stands in benchmarks/ledger.md. On brains in 3-D the two people of each upper level also select; brains in 2-D are
parted five times, so that each person is tested once.
"""

import argparse
from pathlib import Path

from common import markdown_table

from warpwise.data.people import drawn, person
from warpwise.io.datasets import Dataset, read_dataset

HERE = Path(__file__).parent
DATASETS = {
    "hippocampus": "hippocampus-msd-112",
    "heart": "acdc-2d-64",
    "brains": "oasis-mals",
    "brains2d": "oasis-mals-2d",
}
COUNTS = {"hippocampus": (52, 12, 12), "heart": (28, 7, 7), "brains": (7, 2, 2)}
FOLDS = 5
# No figure of 0.2 can be blind to these: they chose weights in 0.1.
LOOKED_AT = "the brains' four, the hippocampi's twelve and five of the hearts' test people chose weights in 0.1"


def people(task: str, dataset: Dataset, *, fold: int = 0) -> dict[str, tuple[str, ...]]:
    """The people of each part."""
    training = [person(scan) for scan in dataset.training]
    judged = tuple(sorted({person(scan) for scan in dataset.validation}))
    if task == "brains2d":
        everybody = sorted({*training, *judged})
        folds = drawn(everybody, {str(n): len(everybody) // FOLDS for n in range(FOLDS)})
        test = folds[str(fold)]
        rest = drawn(set(everybody) - set(test), {"train": 8, "architecture": 1, "objective": 1, "select": 2}, seed=fold)
        return {**rest, "test": test}
    parts = drawn(training, dict(zip(("train", "architecture", "objective"), COUNTS[task], strict=True)))
    if task == "brains":
        return {"train": parts["train"], "select": (*parts["architecture"], *parts["objective"]), "test": judged}
    return {**parts, "select": judged, "test": tuple(sorted(dataset.test_people))}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data
    lines = ["# Who trains, who chooses, who is tested", "", "`python benchmarks/protocol.py DATA`: drawn by name, seed 0.",
             f"Not blind: {LOOKED_AT}.", ""]  # fmt: skip
    for task, name in DATASETS.items():
        dataset = read_dataset(data / name)
        for fold in range(FOLDS if task == "brains2d" else 1):
            rows = [[part, str(len(who)), " ".join(who)] for part, who in people(task, dataset, fold=fold).items()]
            title = f"## {name}" + (f", fold {fold + 1}" if task == "brains2d" else "")
            lines += [title, "", *markdown_table(["part", "people", "who"], rows), ""]
    (HERE / "protocol.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
