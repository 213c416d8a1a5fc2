"""Terms of training against closed forms, and objectives made of plain data."""

import math

import pytest
import torch

from warpwise import ops
from warpwise.alignment import Alignment
from warpwise.errors import InputError
from warpwise.networks.blocks import doubled
from warpwise.objective import Objective, SolverTerms, halved
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


def test_segmentation_is_the_cross_entropy_of_the_labels():
    logits = torch.zeros(1, 2, 8, 8)
    found = Segmentation()(state(fixed_labels=box(0, 4), prediction=prediction(labels=logits)))
    assert float(found) == pytest.approx(math.log(2))
    sure = 20 * torch.cat([1 - box(0, 4), box(0, 4)], 1)
    assert float(Segmentation()(state(fixed_labels=box(0, 4), prediction=prediction(labels=sure)))) < 1e-6
    with pytest.raises(InputError, match="predicts 0"):
        Segmentation()(state(fixed_labels=box(0, 4)))


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


def test_every_term_can_be_named_and_unknown_ones_are_refused_with_the_nearest():
    for name in TERMS:
        term = parse_term(name, {})
        assert term.row() == name
        assert type(term).parse(term.plain()) == term
        if isinstance(term, Loss):
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
