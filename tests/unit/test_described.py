"""What networks see of images as a term of solvers: where it lies, what it weighs, what it does."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import toy_dataset

import warpwise as ww
from warpwise.data.settings import DataSettings
from warpwise.errors import InputError
from warpwise.grid import Grid
from warpwise.io.datasets import read_dataset
from warpwise.io.images import read_image
from warpwise.levels.history import history
from warpwise.levels.settings import TrainingSettings
from warpwise.levels.training import Run, train
from warpwise.methods import Method
from warpwise.networks import parse_network
from warpwise.networks.base import initialise
from warpwise.networks.model import Model, ModelCard
from warpwise.networks.segmentation import places
from warpwise.objective import Objective
from warpwise.ops import kernels
from warpwise.pair import Pair
from warpwise.registrars.crop import foreground
from warpwise.registrars.deformable.work import ScaleSettings, ScaleWork, on_fixed_grid
from warpwise.registrars.learned.described import described
from warpwise.resampling import resample
from warpwise.similarity.codes import Codes
from warpwise.similarity.learned import LearnedFeatures
from warpwise.synthetic.shapes import smooth_noise
from warpwise.terms.term import parse_terms
from warpwise.transforms.affine import Affine
from warpwise.volume import Volume


def model(dim: int, *, spacing: float = 1.0, **network: object) -> Model:
    settings = parse_network({"kind": "features", "widths": [6, 8, 8], "features": 3, "stages": [1, 1], **network})
    made = initialise(settings.build(dim=dim, channels=1), torch.Generator().manual_seed(0)).eval()
    return Model(ModelCard(network=settings, dim=dim, spacing_mm=(spacing,) * dim), made)


def noise(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    image = smooth_noise(shape, np.random.default_rng(seed), count=1, sigma=3.0)
    return ((image - image.min()) / np.ptp(image)).astype(np.float32) + 0.2


def pair(*, moved: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Pair:
    """The same image twice; the moving one lies elsewhere in its world."""
    image, away = noise((40, 36, 38)), np.eye(4)
    away[:3, 3] = moved
    fixed, moving = (Volume(image, Grid(image.shape[1:], affine)) for affine in (np.eye(4), away))
    return Pair(fixed, moving, np.eye(4))


@pytest.mark.parametrize("resampled", [False, True])
@pytest.mark.parametrize("scale", [0, 1])
def test_features_of_one_image_agree_wherever_its_world_lies(scale: int, resampled: bool):
    term = LearnedFeatures(model=model(3))
    both = described(pair(moved=(7.0, -3.0, 11.0)), [term])
    terms = Method.named("balanced").changed({"objective.similarity": term}).terms()
    work = ScaleWork.build(
        both, ScaleSettings(image=scale, field=scale, iterations=1), terms, foreground(both), resampled=resampled
    )
    assert work.fixed.shape == (3, *work.nodes)
    assert np.abs(work.fixed - work.moving).max() < 1e-4
    assert work.fixed.std() > 0.3  # of variance 1 on the nodes of features


def test_a_solvers_scale_looks_at_the_octave_that_is_as_coarse_and_a_term_may_keep_to_coarse_scales():
    both = described(pair(), [LearnedFeatures(model=(coarse := model(3)))])
    (maps,) = both.fixed.features.values()
    assert [found.spacing_mm for found in maps] == pytest.approx([2.0, 4.0])
    term = LearnedFeatures(model=coarse, octaves=(1.0, 0.25))
    fine, halved = (term.channels_of(both.at_scale(n).fixed) for n in (0, 2))
    expected = kernels.warp_affine(maps[0].data, np.diag([0.5, 0.5, 0.5, 1.0])[:3], out=np.empty_like(fine))
    assert np.allclose(fine, expected, atol=1e-5)
    n = tuple(both.at_scale(2).fixed.shape)
    assert np.allclose(halved, 0.5 * maps[1].data[:, : n[0], : n[1], : n[2]], atol=1e-5)
    late = replace(Method.named("balanced").terms(), similarities=(LearnedFeatures(model=coarse, least_mm=3.0),))
    whole = replace(
        late, similarities=(*Method.named("balanced").terms().settled(alike=True).similarities, *late.similarities)
    )
    count = [
        len(ScaleWork.build(both, ScaleSettings(image=k, field=k, iterations=1), whole, foreground(both)).fixed)
        for k in (0, 2)
    ]
    assert count == [1, 4]
    with pytest.raises(InputError, match="No similarity takes part at the scale of 1 mm"):
        ScaleWork.build(both, ScaleSettings(image=0, field=0, iterations=1), late, foreground(both))


def test_the_value_is_the_mean_square_and_the_gradient_its_derivative():
    term = LearnedFeatures(model=model(3))
    rng = np.random.default_rng(0)
    fixed, warped = (rng.normal(size=(3, 6, 5, 4)).astype(np.float32) for _ in range(2))
    gradient = np.empty_like(fixed)
    value = term.fused(fixed, None, np.array([0.7], np.float32))(warped, gradient)
    assert value == pytest.approx(0.7 * float(((fixed - warped) ** 2).mean()), rel=1e-5)
    assert np.allclose(gradient, 0.7 * 2 * (warped - fixed) / fixed.size, rtol=1e-4)


def test_what_a_model_is_unsure_of_counts_less():
    """A channel of which the model tells a hundred times the variance weighs a hundredth."""
    uncertain = model(2)
    head = uncertain.network.encoder.heads[0].log_variance.conv
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
        head.bias[1] = 6.0
    image = Volume(noise((24, 1, 22)), Grid((24, 1, 22), np.eye(4)))
    other = replace(image, data=noise((24, 1, 22), seed=1))
    plain, trusted = (
        described(Pair(image, other, np.eye(4)), [LearnedFeatures(model=uncertain, trusted=value)])
        for value in (False, True)
    )
    (a,), (b,) = plain.fixed.features.values(), trusted.fixed.features.values()
    assert len(a[0].data) == len(b[0].data) == 3
    both = [[next(iter(v.features.values()))[0].data for v in (one.fixed, one.moving)] for one in (plain, trusted)]
    raw = uncertain.network.encoder(torch.from_numpy(image.data[:, :, 0])[None])[0][0, :6].detach().numpy()
    shares = np.exp(raw[3:]).mean((1, 2))
    assert shares[1] > 50 * shares[0]
    spread = [np.concatenate([one.reshape(3, -1) for one in sides], 1) for sides in both]
    assert np.allclose(spread[0].std(1), 1, atol=1e-3)
    ratio = spread[1].std(1) / raw[:3].std((1, 2))
    assert ratio[1] < 0.2 * ratio[0]
    # one image against itself stays the same
    same = described(Pair(image, image, np.eye(4)), [LearnedFeatures(model=uncertain, trusted=True)])
    one, other = (next(iter(v.features.values()))[0].data for v in (same.fixed, same.moving))
    assert np.array_equal(one, other)


@pytest.mark.parametrize("kind", ["balanced", "energy"])
def test_solvers_register_by_features_alone(kind: str):
    """The moving image is the fixed one, bent, and nothing but features is compared."""
    shape = (44, 40)
    image = noise((44, 1, 40), seed=2)[0, :, 0]
    bend = np.stack(np.meshgrid(np.arange(44.0), np.arange(40.0), indexing="ij"))
    u = 1.5 * np.sin(bend[::-1] / 6.0)
    field = np.zeros((3, 44, 1, 40), np.float32)
    field[0, :, 0], field[2, :, 0] = u[0], u[1]
    moved = kernels.warp(
        image[None, :, None].astype(np.float32), field, np.eye(4), out=np.empty((1, 44, 1, 40), np.float32)
    )
    images = [ww.Image(data.reshape(1, *shape), Grid(shape, np.eye(3))) for data in (image, moved)]
    term = {"term": "features", "model": model(2, finest=0, stages=[1, 1, 1], uncertainty=False)}
    method = Method.named(kind).changed({"objective.similarity": term, "linear": None})
    result = ww.register(*images, method=method)
    gap = [float(((w.data[0] - images[0].data[0]) ** 2)[4:-4, 4:-4].mean()) for w in (images[1], result.warped)]
    assert gap[1] < 0.75 * gap[0]  # the filters are random


def test_a_segmentation_learns_its_groups_and_leads_a_registration(tmp_path: Path):
    folder = toy_dataset(tmp_path / "toy", people=8)
    groups = {"inside": (1, 2), "rim": (3,)}
    settings = TrainingSettings.parse({
        "network": {"kind": "segmentation", "widths": [8, 12, 16], "labels": 2, "places": True},
        "data": {"dataset": folder, "alignment": "none", "groups": groups},
        "objective": {"segmentation": {"dice": 1.0}},
        "augmentation": {"rotation_degrees": 0, "flip": False},
        "optimizer": {"learning_rate": 0.01}, "steps": 60, "validate_every": 30, "batch": 2,
    })  # fmt: skip
    train(settings, Run(tmp_path / "run"))
    rows = [row for row in history(tmp_path / "run") if row["kind"] == "validation"]
    assert rows[-1]["segmentation"] > 0.8
    assert "dice" not in rows[-1]
    card = Model.load(tmp_path / "run").card
    assert card.labels == (1, 2)
    with pytest.raises(InputError, match="tells structures apart, and moves nothing"):
        Method.named(tmp_path / "run")
    fixed, moving = read_dataset(folder).validation_pairs[0]
    structures = {"term": "features", "model": str(tmp_path / "run")}
    led = Method.named("balanced").changed({"linear": None, "objective.similarity": structures})
    maps = [read_image(scan.labels, kind="labels") for scan in (fixed, moving)]
    found = ww.register(fixed.image, moving.image, method=led)
    overlaps = []
    for transform in (Affine(np.eye(3)), found.transform):
        moved = resample(maps[1], maps[0].grid, transform, interpolation="nearest").data[0]
        inside = [np.isin(map_, groups["inside"]) for map_ in (maps[0].data[0], moved)]
        overlaps.append(2 * (inside[0] & inside[1]).sum() / (inside[0].sum() + inside[1].sum()))
    assert overlaps[1] > 0.5 * (1 + overlaps[0])  # half of what was missing is found by structures alone
    (tmp_path / "led.yaml").write_text(led.yaml())
    assert Method.named(tmp_path / "led.yaml").objective["similarity"].model == str(tmp_path / "run")


def test_places_are_those_in_the_object_whatever_the_margins():
    image = torch.zeros(1, 2, 12, 9)
    image[:, :, 2:10, 3:6] = 0.7
    found = places(image)
    # a box of n voxels has the variance (n² − 1)/12
    along = (torch.arange(12.0) - 5.5) / (2 * (63 / 12) ** 0.5)
    across = (torch.arange(9.0) - 4) / (2 * (8 / 12) ** 0.5)
    assert torch.allclose(found[0, 0], along[:, None].expand(12, 9), atol=1e-5)
    assert torch.allclose(found[0, 1], across.expand(12, 9), atol=1e-5)
    wider = places(torch.nn.functional.pad(image, [4, 1, 0, 7]))
    assert torch.allclose(wider[:, :, :12, 4:13], found, atol=1e-5)
    assert torch.isfinite(places(torch.zeros(2, 1, 5, 4, 1))).all()


def test_windows_do_not_tell_places():
    with pytest.raises(InputError, match=r"places.*crop"):
        TrainingSettings.parse({"network": {"kind": "segmentation", "places": True}, "data": {"crop": 16}})


def test_structures_that_no_scale_is_coarse_enough_for_are_said_to_take_no_part():
    shape = (24, 20)
    image = ww.Image(noise((24, 1, 20))[0, :, 0].reshape(1, *shape), Grid(shape, np.eye(3)))
    term = {"term": "features", "model": model(2), "least_mm": 50.0}
    method = Method.named("fast").changed({"linear": None, "objective.learned": term})
    result = ww.register(image, image, method=method)
    assert any("took no part: no scale has voxels of 50 mm" in word for word in result.warnings)


def test_two_models_in_memory_are_two():
    one, other = (LearnedFeatures(model=model(3)) for _ in range(2))
    assert len(described(pair(), [one, other]).fixed.features) == 2
    assert one.shared(np.array([0.75, 0.25], np.float32), 4) == pytest.approx([0.25] * 4)
    with pytest.raises(InputError, match="octaves"):
        parse_terms({"features": {"model": "synthetic", "octaves": [-1.0]}})


def test_groups_are_channels_of_their_own():
    codes = Codes.grouped([(1, 5), (2,)])
    labels = np.array([0, 1, 2, 5, 7])
    assert np.array_equal(codes.numbers(labels), [0, 1, 2, 1, 0])
    with pytest.raises(InputError, match="one group at most"):
        DataSettings.parse({"groups": {"a": [1], "b": [1, 2]}})


def test_features_are_for_solvers_alone_and_need_images_as_the_model_knows_them():
    with pytest.raises(InputError, match="for solvers alone"):
        Objective.of(parse_terms({"features": {"model": "synthetic"}}))
    with pytest.raises(InputError, match="tells no features of an image"):
        described(pair(), [LearnedFeatures(model="synthetic")])
    with pytest.raises(InputError, match="percentiles"):
        Method.named("balanced").changed({
            "objective.learned": {"term": "features", "model": model(3)},
            "images.percentiles": (5.0, 95.0),
        }).build()


def test_features_of_oblique_worlds_stay_where_the_voxels_are():
    both = pair()
    turn = np.array([[0.8, -0.6, 0.0, 3.0], [0.6, 0.8, 0.0, -5.0], [0.0, 0.0, 1.0, 2.0], [0.0, 0.0, 0.0, 1.0]])
    oblique = replace(both, moving=replace(both.moving, grid=Grid(both.moving.grid.shape, turn)))
    found = described(oblique, [LearnedFeatures(model=model(3))])
    there = on_fixed_grid(found)
    a, b = (next(iter(v.features.values()))[0] for v in (there.fixed, there.moving))
    assert np.allclose(a.affine, b.affine, atol=1e-9)
    assert np.allclose(a.data, b.data, atol=1e-4)
