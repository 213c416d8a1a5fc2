"""What training looks at: pairs that correspond, truths that are true, the same ones for the same numbers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import toy_dataset

from warpwise import ops
from warpwise.alignment import Alignment
from warpwise.data import prepared, volumes
from warpwise.data.batches import PairSampler
from warpwise.data.pairs import AllPairs, training_pairs, validation_pairs
from warpwise.data.prepared import Located, atlas_of, prepare
from warpwise.data.settings import AugmentationSettings, DataSettings, SyntheticSettings
from warpwise.data.synthetic_pairs import SyntheticSampler
from warpwise.data.teacher import Teacher
from warpwise.data.volumes import Store, Volume
from warpwise.errors import InputError
from warpwise.grid import Grid
from warpwise.io.datasets import Dataset, Scan, read_dataset
from warpwise.levels.settings import TrainingSettings
from warpwise.methods import Method
from warpwise.networks import parse_network
from warpwise.networks.base import initialise
from warpwise.networks.model import ModelCard, write_model
from warpwise.ops import kernels
from warpwise.similarity.codes import Codes
from warpwise.similarity.label import SoftDice
from warpwise.synthetic import contrasts
from warpwise.synthetic.deformations import random_velocity
from warpwise.synthetic.shapes import random_shapes, smooth_noise
from warpwise.transforms.velocity import exponential


def ball(grid: Grid, centre_mm: np.ndarray) -> Volume:
    at = np.indices(grid.shape).reshape(3, -1)
    mm = grid.affine[:3, :3] @ at + grid.affine[:3, 3:]
    far = np.linalg.norm(mm - centre_mm[:, None], axis=0).reshape(grid.shape)
    return Volume(np.exp(-((far / 6) ** 2))[None].astype(np.float32), grid, labels=(far < 6).astype(np.int16), name="ball")


def middle(image: torch.Tensor) -> np.ndarray:
    data = image.numpy()
    at = np.indices(data.shape).reshape(3, -1)
    return (at * data.reshape(-1)).sum(1) / data.sum()


@pytest.fixture
def sampler() -> PairSampler:
    shift = np.array([4.0, -3.0, 2.0])
    first = ball(Grid((30, 34, 28), np.diag([1.5, 1.5, 1.5, 1.0])), np.array([21.0, 24.0, 20.0]))
    second = ball(Grid((32, 36, 30), np.diag([1.5, 1.5, 1.5, 1.0])), np.array([21.0, 24.0, 20.0]) + shift)
    world = np.eye(4)
    world[:3, 3] = shift
    still = AugmentationSettings(apart=0.0, noise=0, bias=0, gamma=0)
    return PairSampler([first, second], [(0, 1, world)], (32, 36, 30), [1], 8, still, 0)


def test_both_images_are_put_where_they_correspond_however_the_pair_is_moved(sampler: PairSampler):
    for step in range(6):
        batch = sampler.batch(step, [0])
        assert np.abs(middle(batch.fixed[0, 0]) - middle(batch.moving[0, 0])).max() < 0.2  # voxels
        assert batch.fixed_labels is not None
        assert batch.moving_labels is not None
        share = (batch.fixed_labels * batch.moving_labels).sum() * 2
        assert (
            float(share / (batch.fixed_labels.sum() + batch.moving_labels.sum())) > 0.85
        )  # nearest neighbours, a ball of 8 voxels


def test_windows_show_what_corresponds_wherever_they_lie(sampler: PairSampler):
    window = replace(sampler, shape=(20, 20, 18), windows=True)
    places = []
    for step in range(40):
        batch = window.batch(step, [0])
        assert batch.fixed.shape == (1, 1, 20, 20, 18)
        inside = batch.weight > 0
        assert float(((batch.fixed - batch.moving) * inside).abs().max()) < 0.05  # resampled, linearly
        assert not inside[..., :4].any()
        assert not inside[:, :, -4:].any()
        assert float(batch.weight[0, 0, 8:12, 8:12, 8:10].min()) == 1
        assert batch.fixed_labels is not None
        assert batch.moving_labels is not None
        assert float(((batch.fixed_labels - batch.moving_labels).abs() * inside).mean()) < 0.01
        at = np.unravel_index(int(batch.fixed[0, 0].argmax()), batch.fixed.shape[2:])
        places.append(at)
    spread = np.ptp(places, axis=0)
    assert (spread >= 8).all()  # of 10, 14 and 10 voxels that the image is longer: the ball is seen at all sides
    assert replace(sampler, shape=(20, 20, 18)).batch(0, [0]).weight[0, 0, 0].max() == 1  # a canvas is no window


def test_a_window_has_the_axes_of_the_images(tmp_path: Path):
    data = DataSettings(dataset=toy_dataset(tmp_path / "toy", people=5), alignment="none")
    assert prepare(data.replace(crop=24), Store(tmp_path / "cache")).sampler.batch(0, [0]).fixed.shape == (1, 1, 24, 24)
    assert prepare(data.replace(crop=(24, 9999)), Store(tmp_path / "cache")).sampler.batch(0, [0]).fixed.shape[2] == 24
    with pytest.raises(InputError, match="3 numbers for images of 2 axes"):
        prepare(data.replace(crop=(24, 24, 24)), Store(tmp_path / "cache"))
    for wrong in (8, (), (16, 16, 16, 16)):
        with pytest.raises(InputError, match="at least 16 voxels"):
            data.replace(crop=wrong)


def test_a_step_and_a_slot_always_hold_the_same_pair(sampler: PairSampler):
    both = sampler.batch(3, [0, 1])
    again = sampler.batch(3, [1])
    assert torch.equal(both.fixed[1:], again.fixed)
    assert torch.equal(both.moving[1:], again.moving)
    assert not torch.equal(both.fixed[:1], again.fixed)
    assert not torch.equal(sampler.batch(4, [1]).fixed, again.fixed)


@pytest.mark.parametrize("shape", [(48, 44), (32, 36, 28)], ids=["2-D", "3-D"])
@pytest.mark.parametrize("brains", [0.0, 1.0])
def test_the_truth_of_a_made_pair_brings_its_labels_together(shape: tuple[int, ...], brains: float):
    sampler = SyntheticSampler(SyntheticSettings(shape=shape, brains=brains), 19, seed=1)
    before, after = [], []
    for step in range(4):
        batch = sampler.batch(step, [0])
        assert batch.truth is not None
        assert batch.moving_labels is not None
        for found, field in ((before, torch.zeros_like(batch.truth)), (after, batch.truth)):
            warped = ops.warp(batch.moving_labels, field)
            state = Alignment(batch.fixed, batch.moving, field, None, batch.fixed_labels, warped)
            found.append(1 - float(SoftDice()(state)))
    assert np.mean(after) > 0.8  # labels are nearest neighbours, and some are two voxels thin
    assert np.mean(after) > np.mean(before) + 0.05
    assert float(ops.digital_determinants(batch.truth).min()) > 0


def test_made_pairs_differ_in_contrast_but_not_always():
    sampler = SyntheticSampler(SyntheticSettings(shape=(40, 40)), 8, seed=0)
    correlations = []
    for step in range(30):
        batch = sampler.batch(step, [0])
        warped = ops.warp(batch.moving, batch.truth)
        correlations.append(float(ops.ncc(batch.fixed, warped, weight=(batch.weight > 0.5).float())))
    assert min(correlations) < 0.2
    assert max(correlations) > 0.8


def test_n_linear_transforms_serve_all_pairs_of_n_images(tmp_path: Path, monkeypatch):
    scans = tuple(Scan(image=tmp_path / f"{n}.nii.gz") for n in range(4))
    maps = {scan: np.linalg.qr(np.random.default_rng(n).normal(size=(4, 4)))[0] for n, scan in enumerate(scans)}
    maps[scans[0]] = np.eye(4)
    asked = set()

    def linear(self: Store, fixed: Scan, moving: Scan, kind: str) -> np.ndarray:
        asked.add((fixed, moving))
        return maps[moving]

    monkeypatch.setattr(Store, "linear", linear)
    pairs = AllPairs(scans)
    found = Located(pairs, {scan: n for n, scan in enumerate(scans)}, Store(tmp_path), "affine")
    for (a, b), (n, m, world) in zip(pairs, found, strict=True):
        assert (scans[n], scans[m]) == (a, b)
        assert world @ maps[a] == pytest.approx(maps[b])
    assert len(asked) == 4


@pytest.mark.parametrize("count", [2, 5])
def test_all_pairs_are_numbered_as_they_would_be_listed(tmp_path: Path, count: int):
    scans = [Scan(image=tmp_path / f"{n}.nii.gz") for n in range(count)]
    listed = [(a, b) for a in scans for b in scans if a is not b]
    pairs = AllPairs(scans)
    assert len(pairs) == len(listed)
    assert [*pairs] == listed
    assert pairs[-1] == listed[-1]
    assert pairs[1:7:2] == listed[1:7:2]
    with pytest.raises(IndexError):
        pairs[len(listed)]


def test_pairs_of_a_hundred_thousand_images_are_counted_at_once(tmp_path: Path):
    scan = Scan(image=tmp_path / "a.nii.gz")
    pairs = AllPairs([scan] * 100_000)
    assert len(pairs) == 9_999_900_000
    assert pairs[len(pairs) - 1] == (scan, scan)


def test_pairs_are_all_listed_or_with_the_atlas(tmp_path: Path):
    scans = [Scan(image=tmp_path / f"{n}.nii.gz", subject="ab"[n % 2] if n < 3 else "cd"[n % 2]) for n in range(5)]
    for scan in scans:
        scan.image.touch()
    dataset = Dataset("d", tmp_path, tuple(scans[:3]), tuple(scans[3:]), ((scans[0], scans[2]),), (), {}, (), "", "")

    assert len(training_pairs(DataSettings(pairs="all"), dataset)) == 6
    assert training_pairs(DataSettings(pairs="subject"), dataset) == [(scans[0], scans[2]), (scans[2], scans[0])]
    assert training_pairs(DataSettings(pairs="listed"), dataset) == [(scans[0], scans[2])]
    atlas = DataSettings(pairs="atlas", atlas=scans[1].image)
    fixed = atlas_of(atlas, dataset)
    assert fixed is scans[1]
    assert training_pairs(atlas, dataset, fixed) == [(scans[1], scans[0]), (scans[1], scans[2])]
    assert validation_pairs(dataset, fixed) == [(scans[1], scans[3]), (scans[1], scans[4])]
    assert validation_pairs(dataset) == [(scans[3], scans[4])]
    (tmp_path / "template.nii.gz").touch()
    outside = atlas_of(DataSettings(pairs="atlas", atlas=tmp_path / "template.nii.gz"), dataset)
    assert len({pair[0] for pair in training_pairs(atlas, dataset, outside)}) == 1


def test_images_are_decoded_as_they_are_drawn_where_they_are_many(tmp_path: Path, monkeypatch):
    """Of ten, three are looked at first; batches are those of a training that decoded all before."""
    folder = toy_dataset(tmp_path / "toy", people=10)
    data = DataSettings(dataset=folder, alignment="rigid")
    before = prepare(data, Store(tmp_path / "all")).sampler
    count = []
    real = volumes.decoded
    monkeypatch.setattr(volumes, "decoded", lambda scan, spacing: count.append(scan.title) or real(scan, spacing))
    monkeypatch.setattr(prepared, "LOOKED_AT", 3)
    found = prepare(data, Store(tmp_path / "some"))
    assert len(count) == 3 + 2  # and two people to validate on
    aligned = len([*(tmp_path / "some").glob("*.json")]) - len(count)
    assert aligned < 2 + 7  # two to validate on; types that are enforced in tests look at an item or two of a sequence
    for step in range(12):
        one, other = found.sampler.batch(step, [0, 1]), before.batch(step, [0, 1])
        assert torch.equal(one.fixed, other.fixed)
        assert torch.equal(one.moving, other.moving)
        assert torch.equal(one.moving_labels, other.moving_labels)
    assert sorted(count) == sorted(set(count))
    assert len(count) == 10


def test_decoded_images_are_mapped_and_what_is_written_to_them_stays_in_memory(tmp_path: Path):
    folder = toy_dataset(tmp_path / "toy", people=3)
    scan, store = read_dataset(folder).training[0], Store(tmp_path / "cache")
    first = store.volume(scan, (1.0, 1.0))
    assert isinstance(first.data.base, np.memmap)
    assert type(first.data) is np.ndarray
    assert isinstance(first.labels.base, np.memmap)
    kept = first.data.copy()
    first.data[:] = 7
    assert np.array_equal(store.volume(scan, (1.0, 1.0)).data, kept)
    file = next((tmp_path / "cache").glob("*-labels.npy"))
    file.write_bytes(file.read_bytes()[:90])
    again = store.volume(scan, (1.0, 1.0))
    assert again.labels.shape == again.data.shape[1:]
    assert np.array_equal(again.data, kept)


def test_contrasts_keep_their_ranges_and_artefacts_their_strength():
    rng = np.random.default_rng(0)
    labels = random_shapes((40, 36, 30), rng, labels=7, sigma=4.0)
    assert set(np.unique(labels)) == set(range(7))
    image = contrasts.painted(labels, rng, texture=0.0)
    assert len(np.unique(image)) == 7
    assert contrasts.noisy(image, rng, most=0.0) == pytest.approx(image)
    ratio = contrasts.shaded(np.ones((40, 36, 30), np.float32), rng, most=0.3)
    assert 0 < np.log(ratio).std() < 0.35
    assert contrasts.curved(np.array([0.0, 1.0], np.float32), rng, most=1.0) == pytest.approx([0, 1])
    noise = smooth_noise((40, 36, 30), rng, count=2, sigma=5.0)
    assert noise.std() == pytest.approx(1, abs=0.1)
    curve = contrasts.remapped(np.linspace(0, 1.2, 50, dtype=np.float32), rng)
    assert 0 <= curve.min() < curve.max() <= 1


def test_a_teachers_field_brings_the_images_together_however_the_pair_is_moved(tmp_path: Path):
    """Known: the moving image is the fixed one under a smooth field, which is handed on as what a teacher found."""
    grid = Grid((32, 36, 30), np.diag([1.5, 1.5, 1.5, 1.0]))
    rng = np.random.default_rng(3)
    image = smooth_noise(grid.shape, rng, count=1, sigma=4.0)[0]
    image = ((image - image.min()) / np.ptp(image))[None].astype(np.float32)
    velocity = random_velocity(grid.shape, rng, sigma=6.0, amplitude=1.5)
    there, back = exponential(velocity, squarings=6), exponential(-velocity, squarings=6)
    moving = kernels.warp(image, back, np.eye(4), out=np.empty_like(image))
    for elastic in (0.0, 2.0):
        how = AugmentationSettings(apart=0.5, noise=0, bias=0, gamma=0, elastic_voxels=elastic, shift_voxels=1)
        both, pairs = [Volume(image, grid), Volume(moving, grid)], [(0, 1, np.eye(4))]
        sampler = PairSampler(both, pairs, grid.shape, [], 8, how, 0, teacher=lambda *_, known=there: known)
        for step in range(3):
            batch = sampler.batch(step, [0])
            inside = (batch.weight > 0.99).float()
            gaps = [
                float((((ops.warp(batch.moving, u) - batch.fixed) * inside) ** 2).sum() / inside.sum())
                for u in (torch.zeros_like(batch.truth), batch.truth)
            ]
            assert gaps[1] < 0.08 * gaps[0]  # both images were resampled, linearly


def test_a_teacher_is_asked_once_a_pair_and_brings_toy_people_together(tmp_path: Path, monkeypatch):
    folder = toy_dataset(tmp_path / "toy", people=5)
    data = DataSettings(dataset=folder, alignment="none", teacher={"method": "accurate"})
    asked = []
    real = Teacher.found
    monkeypatch.setattr(Teacher, "found", lambda self, *given: asked.append(given[:2]) or real(self, *given))
    still = AugmentationSettings(
        rotation_degrees=0, scaling=0, shift_voxels=0, flip=False, apart=0, noise=0, bias=0, gamma=0
    )
    overlaps = {}
    for labels in (False, True):
        changed = data.replace(teacher=data.teacher.replace(labels=labels))
        sampler = prepare(changed, Store(tmp_path / "cache"), augmentation=still).sampler
        before, after = [], []
        for step in range(10):
            batch = sampler.batch(step, [0])
            for found, field in ((before, torch.zeros_like(batch.truth)), (after, batch.truth)):
                warped = ops.warp(batch.moving_labels, field)
                state = Alignment(batch.fixed, batch.moving, field, None, batch.fixed_labels, warped)
                found.append(1 - float(SoftDice()(state)))
        assert np.mean(after) > np.mean(before) + 0.05
        overlaps[labels] = np.mean(after)
    assert overlaps[True] > overlaps[False]
    assert len(asked) <= 2 * len({*map(str, asked)})  # by two teachers


def test_a_model_that_was_trained_again_is_another_teacher(tmp_path: Path):
    folder = tmp_path / "model"
    folder.mkdir()
    names = set()
    for seed in (0, 1, 1):
        network = parse_network({"kind": "pyramid", "features": [4, 6], "iterations": [1, 1]})
        made = initialise(network.build(dim=2, channels=1), torch.Generator().manual_seed(seed))
        write_model(folder, ModelCard(network=network, dim=2, spacing_mm=(1.0, 1.0)), made.state_dict())
        for method in (Method.named(folder), Method.named(folder).refined()):
            names.add(Teacher(method, Store(tmp_path)).name)
    assert len(names) == 4


def test_a_teacher_that_deforms_nothing_is_refused(tmp_path: Path):
    folder = toy_dataset(tmp_path / "toy", people=4)
    data = DataSettings(dataset=folder, alignment="none", teacher={"method": "affine"})
    with pytest.raises(InputError, match="'affine' deforms nothing"):
        prepare(data, Store(tmp_path / "cache"))


def test_signed_codes_weigh_structures_alike_and_tell_them_apart():
    sizes = {3: 1000.0, 7: 100.0, 9: 10.0}
    codes = Codes.signed(sizes, channels=64)
    found = codes.of(np.array([[3, 7], [9, 5]]))
    assert found.shape == (64, 2, 2)
    weights = [float((found[:, n, m] ** 2).sum()) * sizes[k] for (n, m), k in (((0, 0), 3), ((0, 1), 7), ((1, 0), 9))]
    assert weights == pytest.approx([100.0] * 3, rel=1e-5)
    assert not found[:, 1, 1].any()
    unit = codes.rows / np.linalg.norm(codes.rows, axis=1, keepdims=True)
    assert np.abs(unit @ unit.T - np.eye(3)).max() < 0.4
    assert np.array_equal(Codes.apart([4, 2]).of(np.array([2, 4, 3])), [[0, 1, 0], [1, 0, 0]])


def test_all_labels_take_part_as_codes_where_that_is_asked_for(tmp_path: Path):
    folder = toy_dataset(tmp_path / "toy", people=4)
    data = DataSettings(dataset=folder, alignment="none", label_codes=5)
    one, other = (prepare(data, Store(tmp_path / "cache")).sampler.batch(step, [0]) for step in (0, 1))
    assert one.fixed_labels.shape[1] == 5
    norms = [{round(float(v), 3) for v in batch.fixed_labels.square().sum(1).flatten()} for batch in (one, other)]
    assert norms[0] == norms[1]
    assert len(norms[0]) == 4  # nothing, and three labels, each as long as its size says
    with pytest.raises(InputError, match="'dice' needs a channel for each label"):
        TrainingSettings.parse({"data": {"label_codes": 5}, "objective": {"lncc": {}, "dice": {}}})
    with pytest.raises(InputError, match="without a term 'endpoint'"):
        TrainingSettings.parse({"data": {"teacher": {"method": "accurate"}}})
