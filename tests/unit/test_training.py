"""Level 1: learning, resuming, splitting over processes, and files that are not what they should be."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from toys import SMALL_NETWORK, toy_dataset

from warpwise.errors import InputError, RunError
from warpwise.events import Event
from warpwise.levels import board, checkpoint, training
from warpwise.levels.history import history
from warpwise.levels.settings import TrainingSettings, read_settings
from warpwise.levels.training import CONFIG, Run, train
from warpwise.levels.validation import Judged
from warpwise.levels.weights import Weights
from warpwise.networks.model import CARD, WEIGHTS, Model, read_tensors
from warpwise.terms.term import parse_term

MADE = {
    "network": {"kind": "pyramid", **SMALL_NETWORK},
    "synthetic": {"shape": [32, 28], "warp_voxels": 2.0},
    "objective": {"endpoint": {"weight": 1.0}, "diffusion": {"weight": 0.02}},
    "batch": 2,
    "steps": 6,
    "validate_every": 3,
}


def settings(**changes: object) -> TrainingSettings:
    return TrainingSettings.parse({**MADE, **changes})


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_dataset(tmp_path_factory.mktemp("data") / "toy")


def real(toy: Path, **changes: object) -> TrainingSettings:
    return settings(
        synthetic=None,
        data={"dataset": str(toy), "alignment": "none"},
        objective={"lncc": {"radius": 2}, "diffusion": {"weight": 0.1}, "dice": {}},
        **changes,
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "last" / WEIGHTS)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return set(a) == set(b) and all(torch.equal(a[k], b[k]) for k in a)


def test_made_pairs_teach_a_network_to_find_their_deformation(tmp_path: Path):
    wanted = settings(
        steps=500,
        validate_every=500,
        network={"kind": "pyramid", "features": [8, 12, 16], "hidden": 16, "iterations": [1, 2, 2]},
        optimizer={"learning_rate": 3e-3},
    )
    train(wanted, Run(tmp_path / "run"))
    last = [row for row in history(tmp_path / "run") if row["kind"] == "validation"][-1]
    assert last["endpoint"] < 0.85 * last["endpoint_before"]


def test_real_pairs_teach_a_network_to_overlap_labels(toy: Path, tmp_path: Path):
    train(real(toy, steps=60, validate_every=30, batch=2), Run(tmp_path / "run"))
    rows = history(tmp_path / "run")
    assert min(r["loss"] for r in rows if r["kind"] == "train") < rows[0]["loss"] - 0.05
    card = json.loads((tmp_path / "run" / "best" / CARD).read_text())
    assert card["spacing_mm"] == [1.0, 1.0]
    assert card["dim"] == 2
    assert str(toy) not in json.dumps(card)  # a model must not tell where its data lay
    assert 0 < card["validation"]["dice"] <= 1
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))


@pytest.mark.parametrize(("schedule", "precision"), [("cosine", "bf16-mixed"), ("plateau", "32-true")])
def test_a_run_that_was_stopped_and_resumed_ends_with_the_same_bits(
    toy: Path, tmp_path: Path, monkeypatch, schedule: str, precision: str
):
    monkeypatch.setattr(training, "knows_bfloat16", lambda: True)
    wanted = real(toy, optimizer={"schedule": schedule, "patience": 1}, precision=precision)
    train(wanted, Run(tmp_path / "whole"))

    class Stop(Exception):  # noqa: N818
        pass

    def stop(event: Event) -> None:
        if event.stage == "train" and event.step == 5:  # two steps after a checkpoint
            raise Stop

    with pytest.raises(Stop):
        train(wanted, Run(tmp_path / "parts", on_event=stop))
    train(wanted, Run(tmp_path / "parts", resume=True))
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    for rows in zip(history(tmp_path / "whole"), history(tmp_path / "parts"), strict=True):
        one, other = ({k: v for k, v in row.items() if k != "seconds"} for row in rows)
        assert one == other


def test_a_posterior_is_sampled_the_same_way_after_a_resume(tmp_path: Path):
    network = {"kind": "pyramid", **SMALL_NETWORK, "uncertainty": True}
    wanted = settings(network=network, objective={"endpoint": {}, "kl": {"weight": 0.01}})
    train(wanted, Run(tmp_path / "a"))
    train(wanted.replace(steps=3), Run(tmp_path / "b"))
    again = read_settings(tmp_path / "b" / "config.yaml").replace(steps=6)
    # A cosine looks at the last step, so both must know it: train with a constant rate instead.
    constant = {"optimizer": again.optimizer.replace(schedule="constant")}
    train(wanted.replace(**constant), Run(tmp_path / "c"))
    train(wanted.replace(steps=3, **constant), Run(tmp_path / "d"))
    train(again.replace(**constant), Run(tmp_path / "d", resume=True))
    assert same(weights(tmp_path / "c"), weights(tmp_path / "d"))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


def test_two_processes_give_the_losses_of_one_with_twice_the_batch(tmp_path: Path):
    wanted = settings(steps=4, validate_every=4, batch=2, optimizer={"averaging": 0.0})
    train(wanted, Run(tmp_path / "one"))
    train(wanted.replace(batch=1), Run(tmp_path / "two", processes=2))
    train(wanted.replace(batch=1, accumulate=2), Run(tmp_path / "turns"))
    losses = [[r["loss"] for r in history(tmp_path / n) if r["kind"] == "train"] for n in ("one", "two", "turns")]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
    assert losses[2] == pytest.approx(losses[0], abs=1e-5)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert max(float((one[k] - two[k]).abs().max()) for k in one) < 1e-3  # Adam's first steps are signs of gradients


@pytest.mark.parametrize("network", ["pyramid", "symmetric", "voxelmorph", "transmorph"])
def test_half_precision_trains_every_kind_of_network(tmp_path: Path, monkeypatch, network: str):
    monkeypatch.setattr(training, "knows_bfloat16", lambda: True)
    wanted = settings(network=network, steps=2, validate_every=2, precision="bf16-mixed")
    train(wanted, Run(tmp_path / "run"))
    assert all(torch.isfinite(v).all() for v in weights(tmp_path / "run").values())


def test_a_cpu_without_bfloat16_trains_in_float32_and_says_so(tmp_path: Path, monkeypatch):
    notes: list[str] = []

    def told(event: Event) -> None:
        notes.append(event.text)

    for precision in ("32-true", "bf16-mixed"):
        for knows in (True, False):
            monkeypatch.setattr(training, "knows_bfloat16", lambda knows=knows: knows)
            wanted = settings(steps=2, validate_every=2, precision=precision)
            notes.clear()
            train(wanted, Run(tmp_path / f"{precision} {knows}", on_event=told))
            assert any("bfloat16" in text for text in notes) == (precision == "bf16-mixed" and not knows)
    plain = weights(tmp_path / "32-true False")
    assert same(weights(tmp_path / "bf16-mixed False"), plain)
    assert not same(weights(tmp_path / "bf16-mixed True"), plain)
    assert read_settings(tmp_path / "bf16-mixed False" / CONFIG).precision == "bf16-mixed"  # elsewhere it may be taken up


def test_a_loss_without_a_finite_value_shortens_the_steps_and_at_last_ends_the_run(tmp_path: Path, monkeypatch):
    given = Weights.step
    factors = []

    def broken(self: Weights, step: int, drawn: list) -> dict:
        with torch.no_grad():
            next(self.network.parameters())[:] = float("nan")
        factors.append(self.factor)
        return given(self, step, drawn)

    monkeypatch.setattr(Weights, "step", broken)
    with pytest.raises(RunError, match="diverged at step 4"):
        train(settings(steps=20, validate_every=20), Run(tmp_path / "run"))
    assert factors == [1, 0.5, 0.25, 0.125, 0.0625]
    assert not (tmp_path / "run" / "best").exists()


def test_without_tensorboard_a_run_trains_and_says_once_where_its_curves_are(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(board, "installed", lambda name: False)
    notes = []
    train(settings(steps=2), Run(tmp_path / "run", on_event=lambda e: notes.append(e.text) if e.stage == "note" else None))
    assert notes == ["TensorBoard is not installed: curves stand in history.jsonl alone."]
    assert [row["step"] for row in history(tmp_path / "run") if row["kind"] == "train"] == [2]
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_a_run_is_not_overwritten_nor_resumed_from_nothing(tmp_path: Path):
    train(settings(steps=1), Run(tmp_path / "run"))
    with pytest.raises(InputError, match="exists already"):
        train(settings(steps=1), Run(tmp_path / "run"))
    with pytest.raises(InputError, match="nothing to resume"):
        train(settings(steps=1), Run(tmp_path / "other", resume=True))
    with pytest.raises(InputError, match="No CUDA device"):
        train(settings(steps=1), Run(tmp_path / "gpu", device="cuda"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("networc: pyramid", "Did you mean 'network'"),
        ("data: {spacign_mm: 2}", "Did you mean 'spacing_mm'"),
        ("objective: {lncc: {wieght: 2}}", "Did you mean 'weight'"),
        ("network: piramid", "Did you mean 'pyramid'"),
        ("network: {kind: pyramid, hiden: 3}", "Did you mean 'hidden'"),
        ("steps: many", "steps"),
        ("[", "not YAML"),
        ("", "holds no settings"),
        ("synthetic: {shape: [4, 4]}", "at least 8"),
    ],
)
def test_settings_that_do_not_fit_are_named(tmp_path: Path, text: str, words: str):
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(InputError) as error:
        read_settings(file)
    assert words in str(error.value)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(settings(steps=1), Run(folder))
    return folder


def test_a_model_is_what_was_trained(trained: Path):
    model = Model.load(trained)
    assert model.card.network.kind == "pyramid"
    assert same(dict(model.network.state_dict()), load_file(trained / "best" / WEIGHTS))


def damage(folder: Path, how: str) -> None:
    file = folder / WEIGHTS
    tensors = {k: v.clone() for k, v in load_file(file).items()}
    name = next(iter(tensors))
    if how == "truncated":
        file.write_bytes(file.read_bytes()[:-100])
    elif how == "pickle":
        torch.save(tensors, file)
    elif how == "text":
        file.write_text("these are no weights")
    elif how == "missing":
        tensors.pop(name)
        save_file(tensors, file)
    elif how == "extra":
        save_file({**tensors, "more": torch.zeros(2)}, file)
    elif how == "shape":
        save_file({**tensors, name: torch.zeros(3, 3)}, file)
    elif how == "nan":
        save_file({**tensors, name: torch.full_like(tensors[name], float("nan"))}, file)
    elif how == "gone":
        file.unlink()
    else:
        card = json.loads((folder / CARD).read_text())
        card |= {"format": 99} if how == "format" else {"network": "nonsense"} if how == "network" else {"colour": "red"}
        (folder / CARD).write_text(json.dumps(card))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("truncated", "damaged or cut short"),
        ("pickle", "is a pickle"),
        ("text", "damaged or cut short"),
        ("missing", "is missing"),
        ("extra", "more is not of this network"),
        ("shape", "has shape (3, 3), expected"),
        ("nan", "not finite"),
        ("gone", "no such file"),
        ("format", "is of format 99, this version reads 1"),
        ("network", "Unknown network"),
        ("card", "unknown setting 'colour'"),
    ],
)
def test_damaged_and_foreign_weights_are_refused_by_name(trained: Path, tmp_path: Path, how: str, words: str):
    folder = tmp_path / "model"
    shutil.copytree(trained / "best", folder)
    damage(folder, how)
    with pytest.raises(InputError) as error:
        Model.load(folder)
    assert words in str(error.value)
    assert str(folder) in str(error.value)


def test_a_pickled_file_or_an_unknown_name_is_no_model(tmp_path: Path):
    torch.save({}, tmp_path / "weights.pt")
    with pytest.raises(InputError, match="can run code"):
        Model.load(tmp_path / "weights.pt")
    with pytest.raises(InputError, match="neither an installed model"):
        Model.load("nobody")


@pytest.mark.parametrize("header", [0x80, 0x280, 0x4B50])
def test_a_header_whose_length_begins_like_a_pickle_is_none(tmp_path: Path, header: int):
    tensors = {"a": torch.arange(3.0)}
    text = next(n for n in range(header) if header_length(tensors, tmp_path / "a", n) == header)
    save_file(tensors, tmp_path / "a", metadata={"t": "x" * text})
    assert torch.equal(read_tensors(tmp_path / "a")["a"], tensors["a"])


def header_length(tensors: dict[str, torch.Tensor], path: Path, text: int) -> int:
    save_file(tensors, path, metadata={"t": "x" * text})
    return int.from_bytes(path.read_bytes()[:8], "little")


def test_a_damaged_checkpoint_is_refused(trained: Path, tmp_path: Path):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    file = folder / "last" / checkpoint.STATE
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(InputError, match="damaged or cut short"):
        train(settings(steps=2), Run(folder, resume=True))
    save_file({"weights.a": torch.zeros(1)}, file)
    with pytest.raises(InputError, match="not the state of a training run"):
        train(settings(steps=2), Run(folder, resume=True))


def test_a_damaged_cache_is_made_anew(toy: Path, tmp_path: Path):
    cache = tmp_path / "cache"
    train(real(toy, steps=1), Run(tmp_path / "a", cache=cache))
    for file in cache.glob("*.npy"):
        file.write_bytes(file.read_bytes()[:50])
    train(real(toy, steps=1), Run(tmp_path / "b", cache=cache))
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))


def test_a_score_that_is_not_a_number_is_never_the_best(tmp_path: Path, monkeypatch):
    scores = iter([float("nan"), 0.25, float("nan"), 0.2])
    monkeypatch.setattr(training, "judge_synthetic", lambda *_, **__: Judged(s := next(scores), {"endpoint": s}, {}))
    train(settings(steps=4, validate_every=1), Run(tmp_path / "run"))
    assert json.loads((tmp_path / "run" / "best" / CARD).read_text())["training"]["step"] == 2
    assert [row["best"] for row in history(tmp_path / "run") if row["kind"] == "validation"] == [False, True, False, False]


def test_a_head_tells_as_many_structures_as_there_are_all_in_every_step(toy: Path, tmp_path: Path):
    wanted = real(toy, steps=1, network={"kind": "pyramid", **SMALL_NETWORK, "labels": 3})
    wanted = wanted.replace(
        objective={**wanted.objective, "segmentation": parse_term("segmentation", {})},
        data=wanted.data.replace(labels_at_once=1),
    )
    train(wanted, Run(tmp_path / "run"))
    assert Model.load(tmp_path / "run").card.labels == (1, 2, 3)
    with pytest.raises(InputError, match="tells 2 structures apart, and there are 3"):
        train(wanted.replace(network=wanted.network.replace(labels=2)), Run(tmp_path / "other"))


def test_a_training_by_nothing_that_selects_is_refused(toy: Path, tmp_path: Path):
    folder = tmp_path / "bare"
    shutil.copytree(toy, folder)
    content = json.loads((folder / "dataset.json").read_text())
    for row in content["registration_val"]:
        del row["fixed_label"], row["moving_label"]
    (folder / "dataset.json").write_text(json.dumps(content))
    wanted = real(folder, steps=1).replace(objective={"diffusion": parse_term("diffusion", {})})
    with pytest.raises(InputError, match="Nothing says which weights are the best"):
        train(wanted, Run(tmp_path / "run"))


def test_a_training_begins_at_given_weights(toy: Path, tmp_path: Path):
    train(real(toy, steps=3), Run(tmp_path / "first"))
    after = real(toy, steps=1, init=str(tmp_path / "first"), optimizer={"learning_rate": 1e-12, "averaging": 0.0})
    train(after, Run(tmp_path / "second"))
    one, other = load_file(tmp_path / "first" / "best" / WEIGHTS), weights(tmp_path / "second")
    assert all(torch.allclose(one[k], other[k], atol=1e-6) for k in one)
    assert json.loads((tmp_path / "second" / "last" / CARD).read_text())["training"]["settings"]["init"] == "first"
    larger = after.network.replace(features=(6, 6))
    with pytest.raises(InputError, match="holds another network than is to be trained"):
        train(after.replace(network=larger), Run(tmp_path / "third"))


def test_names_beside_a_file_of_settings_lead_there(tmp_path: Path):
    (tmp_path / "earlier").mkdir()
    (tmp_path / "settings.yaml").write_text(
        "init: earlier\ndata: {teacher: {method: accurate}}\nobjective: {lncc: {}, endpoint: {}}\n"
    )
    found = read_settings(tmp_path / "settings.yaml")
    assert found.init == str((tmp_path / "earlier").resolve())
    assert found.data.teacher.method == "accurate"
