"""Terms of training against closed forms, and objectives made of plain data."""

import math

import pytest
import torch

from warpwise import ops
from warpwise.alignment import Alignment
from warpwise.errors import InputError
from warpwise.objective import Objective, SolverTerms, halved
from warpwise.ops.nodes import doubled
from warpwise.prediction import Posterior, Prediction
from warpwise.similarity.label import EndpointError, LabelOverlap, Segmentation, SoftDice
from warpwise.terms import REGULARIZERS, TERMS
from warpwise.terms.term import Loss, parse_term, parse_terms


def state(**changes: object) -> Alignment:
    images = torch.zeros(1, 1, 8, 8)
    return Alignment(**{"fixed": images, "warped": images, "displacement": torch.zeros(1, 2, 8, 8), **changes})


def prediction(**changes: object) -> Prediction:
    return Prediction(torch.zeros(1, 2, 8, 8), **changes)


def box(low: int, high: int) -> torch.Tensor:
    out = torch.zeros(1, 1, 8, 8)
    out[:, :, low:high] = 1
    return out


def test_soft_dice_of_boxes_is_what_counting_voxels_gives():
    # rows 0…4 and 2…6: 2 of 4 rows in common
    found = SoftDice()(state(fixed_labels=box(0, 4), warped_labels=box(2, 6)))
    assert float(found) == pytest.approx(1 - 2 * 16 / (32 + 32))
    assert float(SoftDice()(state(fixed_labels=box(0, 4), warped_labels=box(0, 4)))) == pytest.approx(0)
    absent = torch.cat([box(0, 4), torch.zeros(1, 1, 8, 8)], 1)
    assert float(SoftDice()(state(fixed_labels=absent, warped_labels=absent))) == pytest.approx(0)


def test_label_overlap_leaves_out_pairs_that_show_none_of_the_labels():
    some, none = box(0, 4), torch.zeros(1, 1, 8, 8)
    alone = float(LabelOverlap()(state(fixed_labels=some, warped_labels=box(2, 6))))
    two = {"fixed": torch.zeros(2, 1, 8, 8), "warped": torch.zeros(2, 1, 8, 8), "displacement": torch.zeros(2, 2, 8, 8)}
    both = state(**two, fixed_labels=torch.cat([some, none]), warped_labels=torch.cat([box(2, 6), box(2, 6)]))
    assert float(LabelOverlap()(both)) == pytest.approx(alone) == pytest.approx(1.0)
    assert float(LabelOverlap()(state(fixed_labels=none, warped_labels=some))) == 0


def test_a_window_with_next_to_nothing_of_a_label_does_not_drown_the_others():
    one = torch.zeros(1, 1, 8, 8)
    one[..., 0, 0] = 1
    assert float(LabelOverlap()(state(fixed_labels=one, warped_labels=box(2, 6)))) < 2.1


def test_segmentation_is_the_cross_entropy_of_the_labels():
    logits = torch.zeros(1, 2, 8, 8)
    found = Segmentation()(state(fixed_labels=box(0, 4), prediction=prediction(labels=logits)))
    assert float(found) == pytest.approx(math.log(2))
    sure = 20 * torch.cat([1 - box(0, 4), box(0, 4)], 1)
    assert float(Segmentation()(state(fixed_labels=box(0, 4), prediction=prediction(labels=sure)))) < 1e-6
    with pytest.raises(InputError, match="predicts 0"):
        Segmentation()(state(fixed_labels=box(0, 4)))


def test_segmentation_may_add_what_soft_dice_lacks():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 8, 8, generator=generator, requires_grad=True)
    classes = torch.randint(0, 3, (2, 8, 8), generator=generator)  # the third structure is nowhere
    labels = torch.nn.functional.one_hot(classes, 4).movedim(3, 1)[:, 1:].float()
    fixed = {name: torch.zeros(2, n, 8, 8) for name, n in (("fixed", 1), ("warped", 1), ("displacement", 2))}
    found = Segmentation(dice=0.5)(state(**fixed, fixed_labels=labels, prediction=prediction(labels=logits)))
    mine = logits.softmax(1)[:, 1:3].flatten(2)
    theirs = labels[:, :2].flatten(2)
    soft = 2 * (mine * theirs).sum(2) / ((mine**2).sum(2) + theirs.sum(2))
    wanted = torch.nn.functional.cross_entropy(logits, classes) + 0.5 * (1 - soft.mean())
    assert float(found.detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)
    by, right = (torch.autograd.grad(value, logits, retain_graph=True)[0] for value in (found, wanted))
    assert torch.allclose(by, right, atol=1e-6)


def test_endpoint_error_is_a_distance_in_voxels_by_weight():
    truth = torch.zeros(1, 2, 8, 8)
    truth[:, 0], truth[:, 1] = 3, 4
    truth[:, :, 4:] = 0
    assert float(EndpointError()(state(truth=truth))) == pytest.approx(2.5, abs=1e-3)
    assert float(EndpointError()(state(truth=truth, mask=box(0, 4)))) == pytest.approx(5, abs=1e-3)


def test_folding_is_zero_without_folds_and_counts_the_depth_of_a_mirror():
    folding = REGULARIZERS["folding"]()
    assert float(folding(state())) == 0
    mirror = torch.zeros(1, 2, 8, 8)
    mirror[:, 0] = -2 * torch.arange(8.0)[:, None]
    # x ↦ −x: all four determinants of every cell are −1
    assert float(folding(state(displacement=mirror))) == pytest.approx(4)


def test_inverse_consistency_is_zero_for_maps_that_undo_each_other():
    term = REGULARIZERS["inverse-consistency"]()
    shift = torch.full((1, 2, 8, 8), 0.5)
    assert float(term(state(displacement=shift, prediction=prediction(inverse=-shift)))) == pytest.approx(0)
    assert float(term(state(displacement=shift, prediction=prediction(inverse=shift)))) == pytest.approx(2)


@pytest.mark.parametrize("octave", [0, 1])
def test_inverse_consistency_of_a_velocity_is_that_of_both_exponentials(octave):
    term = REGULARIZERS["inverse-consistency"]()
    velocity = ops.gaussian(torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(3)), sigma_voxels=2.0)
    there, back = ops.exponential(velocity), ops.exponential(-velocity)
    displacement = there if octave == 0 else doubled(2 * there, (15, 16), times=1)
    images = torch.zeros(1, 1, *displacement.shape[2:])
    given = {"fixed": images, "warped": images, "displacement": displacement}
    value = float(term(state(**given, prediction=prediction(velocity=velocity))))
    expected = 4**octave * float((ops.compose(back, there) ** 2).sum(1).mean())
    assert value == pytest.approx(expected, rel=1e-4)
    assert value < 0.01 * float((displacement**2).sum(1).mean())
    assert float(term(state(**given, prediction=prediction()))) == 0


def test_kl_has_its_minimum_where_precision_times_variance_is_one_and_grows_with_roughness():
    term = REGULARIZERS["kl"](precision=10.0)
    mean = torch.zeros(1, 2, 8, 8)
    best = -math.log(10 * 4)  # λ · degree, 2 neighbours an axis

    def at(log_variance: float, field: torch.Tensor = mean) -> float:
        posterior = Posterior(field, torch.full_like(mean, log_variance))
        return float(term(state(prediction=prediction(posterior=posterior))))

    assert at(best) < min(at(best - 0.1), at(best + 0.1))
    assert at(best) == pytest.approx(0.5 * (1 - best))
    rough = torch.zeros_like(mean)
    rough[:, 0, ::2] = 1
    edges = 7 * 8  # each pair of neighbouring rows differs by 1, in one of two components
    assert at(best, rough) - at(best) == pytest.approx(0.5 * 10 * edges / 64 / 2)


def test_a_term_at_a_scale_sees_halved_images_and_displacements():
    field = torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    smooth = ops.gaussian(field, sigma_voxels=3.0)
    given = state(displacement=smooth, truth=smooth + 1.0)
    assert halved(given).displacement.shape == (1, 2, 4, 4)
    made = Objective.of(parse_terms({"endpoint": {}, "half": {"term": "endpoint", "scale": 1}}))
    values = made.values(given)
    assert float(values["half"]) == pytest.approx(0.5 * float(values["endpoint"]), rel=1e-3)
    assert float(made(given)) == pytest.approx(float(values["half"] + values["endpoint"]))


@pytest.mark.parametrize("space", [(14, 17), (12, 9, 11)], ids=["2-D", "3-D"])
def test_the_faithful_lncc_is_the_published_formula_with_a_window_of_ones(space):
    generator = torch.Generator().manual_seed(1)
    fixed, warped = (torch.rand(2, 1, *space, generator=generator) for _ in range(2))
    displacement = torch.zeros(2, len(space), *space)
    found = parse_term("lncc", {"faithful": True})(Alignment(fixed, warped, displacement))
    convolve = torch.nn.functional.conv2d if len(space) == 2 else torch.nn.functional.conv3d
    a, b = fixed.double(), warped.double()
    ones = torch.ones(1, 1, *[9] * len(space), dtype=torch.float64)
    sa, sb, saa, sbb, sab = (convolve(x, ones, padding=4) for x in (a, b, a * a, b * b, a * b))
    n = ones.numel()
    cross = sab - sa * sb / n
    value = cross**2 / ((saa - sa**2 / n) * (sbb - sb**2 / n) + 1e-5)
    assert float(found) == pytest.approx(-float(value.mean()), rel=2e-4)


def test_the_faithful_mind_compares_patches_of_five_voxels_continued_beyond_the_border():
    image = torch.rand(1, 1, 9, 10, generator=torch.Generator().manual_seed(2))
    other = torch.rand(1, 1, 9, 10, generator=torch.Generator().manual_seed(3))

    def described(x: torch.Tensor) -> torch.Tensor:
        """Four pairs of neighbours two voxels away, at a right angle to each other."""
        wide = torch.nn.functional.pad(x.double(), [2] * 4, mode="replicate")[0, 0]
        up, down, left, right = wide[:-4, 2:-2], wide[4:, 2:-2], wide[2:-2, :-4], wide[2:-2, 4:]
        maps = []
        for one, two in ((up, left), (up, right), (down, left), (down, right)):
            square = torch.nn.functional.pad(((one - two) ** 2)[None, None], [2] * 4, mode="replicate")[0, 0]
            maps.append(sum(square[i : i + 9, j : j + 10] for i in range(5) for j in range(5)) / 25)
        distance = torch.stack(maps)
        distance = distance - distance.amin(0)
        return (-distance / distance.mean(0)).exp()

    found = parse_term("mind", {"faithful": True})(Alignment(image, other, torch.zeros(1, 2, 9, 10)))
    expected = ((described(image) - described(other)) ** 2).mean()
    assert float(found) == pytest.approx(float(expected), rel=1e-3)


@pytest.mark.parametrize("name", ["lncc", "mind"])
def test_published_forms_are_for_training_alone(name):
    term = parse_term(name, {"faithful": True})
    Objective.of({name: term})
    with pytest.raises(InputError, match=r"faithful.*has no kernel"):
        SolverTerms.of({name: term})


def test_the_published_lncc_has_an_epsilon_of_its_own():
    with pytest.raises(InputError, match="epsilon of its own"):
        parse_term("lncc", {"faithful": True, "epsilon": 1e-3})


def test_images_are_halved_once_for_all_terms_of_a_scale(monkeypatch):
    import warpwise.objective as module

    calls = []
    monkeypatch.setattr(module, "halved", lambda x: calls.append(1) or halved(x))
    rows = {f"{name}{scale}": {"term": name, "scale": scale} for name in ("lncc", "diffusion") for scale in (2, 1, 0)}
    values = Objective.of(parse_terms(rows)).values(state(displacement=torch.rand(1, 2, 8, 8)))
    assert [*values] == [*rows]
    assert len(calls) == 2


def test_every_term_can_be_named_and_unknown_ones_are_refused_with_the_nearest():
    for name in TERMS:
        term = parse_term(name, {"model": "synthetic"} if name == "features" else {})
        assert term.row() == name
        assert type(term).parse(term.plain()) == term
        if isinstance(term, Loss) and name != "features":
            assert name in Objective.of({name: term}).terms
    with pytest.raises(InputError, match="diffusion"):
        parse_terms({"difusion": {}})
    with pytest.raises(InputError, match=r"lncc.*unknown setting 'raduis'.*'radius'"):
        parse_terms({"lncc": {"raduis": 2}})
    with pytest.raises(InputError, match=r"lncc.*radius.*valid integer.*'wide'"):
        parse_terms({"lncc": {"radius": "wide"}})
    with pytest.raises(InputError, match=r"mine.*weight.*greater than or equal to 0"):
        parse_terms({"mine": {"term": "mi", "weight": -1}})
    with pytest.raises(InputError, match="at least one"):
        Objective.of({})


def test_solvers_and_networks_refuse_each_others_terms_by_name():
    solver = {"similarity": {"term": "auto"}, "smoothness": {"term": "gaussian"}}
    assert SolverTerms.of(parse_terms(solver)).leading.row() == "auto"
    with pytest.raises(InputError, match=r"'bend' \(bending\) has no kernel"):
        SolverTerms.of(parse_terms({**solver, "bend": {"term": "bending"}}))
    with pytest.raises(InputError, match=r"'smoothness' \(gaussian\) is for solvers alone"):
        Objective.of(parse_terms(solver))
    with pytest.raises(InputError, match="'coarse': scale 1"):
        SolverTerms.of(parse_terms({**solver, "coarse": {"term": "mi", "scale": 1}}))
    with pytest.raises(InputError, match="needs a smoothness"):
        SolverTerms.of(parse_terms({"lncc": {}})).check(similarity=True, smoothness="gaussian")
    with pytest.raises(InputError, match="needs a similarity"):
        SolverTerms.of(parse_terms({"lncc": {"weight": 0}, "smoothness": {"term": "gaussian"}})).check(
            similarity=True, smoothness="gaussian"
        )


def test_label_overlap_is_two_minus_twice_the_dice_of_boxes_of_one_size():
    given = state(fixed_labels=box(0, 4), warped_labels=box(2, 6))
    assert float(LabelOverlap()(given)) == pytest.approx(2 * float(SoftDice()(given)))
    assert float(LabelOverlap()(state())) == 0
