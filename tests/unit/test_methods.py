"""A Method is data: written, read back, changed by paths, refused by name; and a registration can be repeated from it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from asking import method_of, register

import warpwise as ww
from warpwise.errors import InputError
from warpwise.methods import PRESETS, Method
from warpwise.models import installed
from warpwise.networks.model import Model
from warpwise.registration.record import Record
from warpwise.synthetic.phantoms import KnownPair, brain_pair
from warpwise.terms.term import parse_terms


@pytest.fixture(scope="module")
def pair() -> KnownPair:
    return brain_pair((40, 48, 36), seed=3)


@pytest.mark.parametrize("name", list(PRESETS))
def test_a_preset_is_the_same_after_writing_and_reading(name: str, tmp_path):
    method = Method.named(name)
    path = tmp_path / "method.yaml"
    path.write_text(method.yaml(), encoding="utf-8")
    assert Method.named(path) == method
    assert Method.named(tmp_path) == method
    assert Method.parse(json.loads(method.model_dump_json())) == method


def test_a_file_may_hold_changes_alone(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        yaml.safe_dump({"base": "fast", "registrar": {"cap": 0.3}, "objective": {"similarity": {"term": "mi"}}})
    )
    method = Method.named(path)
    assert method.registrar.cap == 0.3
    assert method.registrar.scales == Method.named("fast").registrar.scales
    assert method.objective["similarity"].row() == "mi"
    assert set(method.objective) == set(Method.named("fast").objective)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("registrar.capp", 0.3, "registrar has no 'capp'. Did you mean 'cap'"),
        ("registrar.cap", "wide", r"registrar\.cap: .*valid number.*'wide'"),
        ("registrar.scales.9.step", 1, "4 entries, from 0"),
        ("images.percentiles", [90, 10], "low < high"),
        ("objective.similarity", {"term": "lncd"}, "Unknown term 'lncd'. Did you mean 'lncc'"),
        ("objective.similarity.radius", -1, "similarity.*radius"),
        ("objective.similartiy.weight", 2, "Did you mean 'similarity'"),
        ("linear.transform", "spline", "linear.transform"),
        ("registrar.kind", "gredy", "registrar"),
        ("device", "tpu", "device"),
        ("cautious.smoothness.weight", -2, "greater than or equal"),
    ],
)
def test_a_path_or_value_that_does_not_fit_is_refused_by_name(path: str, value: object, words: str):
    with pytest.raises(InputError, match=words):
        Method.named("fast").changed({path: value})


def test_what_a_solver_cannot_minimise_is_refused_before_anything_is_read():
    method = method_of("fast", objective__bend={"term": "bending"})
    with pytest.raises(InputError, match=r"'bend' \(bending\) has no kernel"):
        ww.register("nowhere.nii.gz", "nowhere_else.nii.gz", method=method)


def test_two_similarities_add_up(pair: KnownPair):
    both = method_of("fast", similarity="lncc", objective__more={"term": "mse", "weight": 0.5})
    result = ww.register(pair.fixed, pair.moving, method=both)
    alone = [register(pair.fixed, pair.moving, preset="fast", similarity=name) for name in ("lncc", "mse")]
    assert result.choices.similarity == "lncc+mse"
    first = [next(step.energy for step in one.history if step.stage == "greedy") for one in (result, *alone)]
    # All three begin with the same images under the same affine, which mse alone would find otherwise.
    assert first[0] == pytest.approx(first[1] + 0.5 * first[2], rel=0.05)
    assert result.certificate.percent_ndv == 0


def test_the_weight_of_the_only_similarity_does_not_change_the_steps(pair: KnownPair):
    light, heavy = (
        register(pair.fixed, pair.moving, preset="fast", similarity="lncc", objective__similarity__weight=w) for w in (1, 4)
    )
    assert np.abs(light.displacement_mm - heavy.displacement_mm).max() < 1e-3


def test_a_result_is_kept_and_repeated_from_what_it_kept(pair: KnownPair, tmp_path):
    method = method_of("fast", transform="svf", similarity="ncc", percentiles=[1, 99])
    result = ww.register(pair.fixed, pair.moving, method=method)
    folder = result.save(tmp_path / "kept")
    record = Record.read(folder / "result.json")
    assert record.method == method
    assert record.schema_version == 3
    again = ww.register(pair.fixed, pair.moving, method=folder)
    assert np.array_equal(again.displacement_mm, result.displacement_mm)
    assert (
        np.abs(ww.load_transform(folder / "transform.h5").displacement(pair.fixed.grid) - result.displacement_mm).max()
        < 1e-3
    )
    with pytest.raises(InputError, match="exists already"):
        result.save(folder)


def test_a_result_prints_in_three_lines(pair: KnownPair):
    text = repr(register(pair.fixed, pair.moving, preset="fast"))
    assert len(text) < 400
    assert text.count("\n") == 2
    assert "0 % folded" in text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{}", "not a result"),
        ('{"schema_version": 1}', "version 1, this program reads 3"),
        ('{"schema_version": 3, "warpwise": "0"}', "not a result"),
        ("[", "not a result"),
    ],
)
def test_a_record_that_is_none_is_refused(content: str, words: str, tmp_path):
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(InputError, match=words):
        Record.read(tmp_path / "result.json")


def test_a_stiffness_map_is_not_silently_ignored(pair: KnownPair):
    with pytest.raises(InputError, match="stiffness"):
        ww.register(ww.Scan(image=pair.fixed, stiffness=pair.fixed), pair.moving, method="fast")


def test_paths_are_applied_one_after_the_other_and_another_term_brings_its_own_options():
    method = Method.named("fast").changed({"objective.more": {"term": "mi"}, "objective.more.bins": 16})
    assert method.objective["more"].bins == 16
    changed = Method.named("fast").changed({"objective.similarity.weight": 2, "objective.similarity.term": "mi"})
    assert (changed.objective["similarity"].row(), changed.objective["similarity"].weight) == ("mi", 2)


def test_a_report_of_images_that_were_in_memory_says_so(pair: KnownPair, tmp_path):
    from warpwise.report.material import Material

    folder = register(pair.fixed, pair.moving, preset="fast").save(tmp_path / "kept")
    with pytest.raises(InputError, match="was in memory"):
        Material.of_folder(folder)


def test_two_methods_where_one_is_needed_are_refused(tmp_path, capsys):
    from warpwise.cli import execute

    command = ["register", "a.nii.gz", "b.nii.gz", "-o", str(tmp_path / "o"), "--preset", "fast", "--model", "synthetic"]
    assert execute(command) == 2
    assert "One method is needed, not fast and synthetic" in capsys.readouterr().err


def test_another_kind_keeps_what_it_knows_of_the_settings_of_the_one_before(tmp_path):
    svf = Method.named("fast").changed({"registrar.cap": 0.3, "registrar.kind": "svf"})
    assert (svf.registrar.kind, svf.registrar.cap) == ("svf", 0.3)
    file = tmp_path / "learned.yaml"
    file.write_text("base: fast\nregistrar: {kind: network, model: synthetic}\n")
    assert Method.named(file).registrar.model == "synthetic"
    with pytest.raises(InputError, match=r"registrar\.kind: there is no 'svg'.*'svf'"):
        Method.named("fast").changed({"registrar.kind": "svg"})


def test_a_file_based_on_itself_is_refused(tmp_path):
    one, other = tmp_path / "one.yaml", tmp_path / "other.yaml"
    one.write_text("base: other.yaml\n")
    other.write_text("base: one.yaml\n")
    with pytest.raises(InputError, match="based on itself"):
        Method.named(one)
    (tmp_path / "method.yaml").write_text("base: .\n")
    with pytest.raises(InputError, match="based on itself"):
        Method.named(tmp_path)
    one.write_text("registrar: &r {kind: greedy, x: *r}\n")
    with pytest.raises(InputError, match="based on itself"):
        Method.named(one)


def test_paths_in_a_file_begin_at_its_folder_and_are_written_whole(tmp_path, monkeypatch):
    folder = tmp_path / "methods"
    shutil.copytree(installed()["synthetic"], folder / "mine")
    (folder / "under.yaml").write_text("registrar: {kind: network, model: mine}\n")
    (folder / "over.yaml").write_text("base: under.yaml\ndevice: cpu\n")
    monkeypatch.chdir(tmp_path)
    method = Method.named("methods/over.yaml")
    assert Path(method.registrar.model) == folder / "mine"
    assert str(folder / "mine") in Method.of_model("methods/mine").yaml()
    assert "model: synthetic" in Method.named("synthetic").yaml()
    assert "model: synthetic" in Method.of_model(Model.load("synthetic")).yaml()
    nameless = replace(Model.load("synthetic"), path=None)
    assert "synthetic (in memory)" in Method.of_model(nameless).yaml()
    (tmp_path / "under.yaml").write_text("base: fast\n")
    (folder / "under.yaml").unlink()
    with pytest.raises(InputError, match=r"methods/under\.yaml"):  # never that of the folder one happens to be in
        Method.named("methods/over.yaml")


def test_a_term_may_be_called_as_one_likes():
    for name in ("term", "kind"):
        method = Method.named("fast").merged({"objective": {name: {"term": "mi"}}})
        assert set(method.objective) == {"similarity", "labels", "landmarks", "smoothness", name}
        assert set(Method.named("fast").changed({f"objective.{name}": {"term": "mi"}}).objective) == set(method.objective)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("registrar.cap", float("inf"), "finite"),
        ("registrar.cap", float("nan"), "finite"),
        ("objective.labels.weight", True, "a number is needed, not true"),
        ("objective.similarity", {"term": "lncc", "radius": True}, "a number is needed"),
        ("registrar.scales.².step", 0.3, "'²' is none of them"),
    ],
)
def test_numbers_that_are_none_are_refused(path, value, words):
    with pytest.raises(InputError, match=words):
        Method.named("fast").changed({path: value})


@pytest.mark.parametrize("refined", [False, True])
@pytest.mark.parametrize(
    "part", [np.s_[:, :, 18:19], np.s_[:, :, 16:18], np.s_[:, :, 14:22], np.s_[14:26, 18:30, 12:24]],
    ids=["1 slice", "2 slices", "8 slices", "12³"],
)  # fmt: skip
def test_the_installed_network_registers_slabs_and_small_cubes(pair: KnownPair, part: tuple[slice, ...], refined: bool):
    def cut(image: ww.Image) -> ww.Image:
        affine = image.grid.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ [s.start or 0 for s in part]
        data = image.data[:, *part]
        return ww.Image(data, ww.Grid(data.shape[1:], affine))

    fixed, moving = cut(pair.fixed), cut(pair.moving)
    method = Method.named("synthetic").replace(linear=None)
    result = ww.register(fixed, moving, method=method.refined() if refined else method)
    assert result.displacement_mm.shape == (3, *fixed.grid.shape)
    assert np.isfinite(result.displacement_mm).all()
    assert 0 < np.abs(result.displacement_mm).max() < 30
    assert result.certificate.percent_folded == 0


def test_terms_for_networks_alone_do_not_stop_a_network():
    terms = parse_terms({"lncc": {}, "diffusion": {"weight": 0.1}})
    assert Method.named("synthetic").replace(objective=terms).build() is not None
    terms = parse_terms({"lncc": {}, "bending": {"weight": 0.1}})
    assert Method.named("synthetic").replace(objective=terms).build() is not None
    with pytest.raises(InputError, match=r"'bending'.*has no kernel"):
        Method.named("fast").replace(objective=terms).build()


def test_the_similarity_flag_replaces_the_one_similarity_whatever_it_is_called(tmp_path, capsys):
    from warpwise.cli import execute

    file = tmp_path / "own.yaml"
    file.write_text("base: fast\nobjective: {similarity: {weight: 0}, mine: {term: lncc, radius: 5, weight: 3}}\n")
    assert execute(["methods", str(file), "--similarity", "mi"]) == 2
    assert "2 similarities (similarity, mine)" in capsys.readouterr().err
    file.write_text("objective: {mine: {term: lncc, radius: 5, weight: 3}}\n")
    assert execute(["methods", str(file), "--similarity", "mi", "--seed", "3"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["objective"]["mine"] == {
        "term": "mi",
        "weight": 3,
        "scale": 0,
        "stage": None,
        "bins": 32,
    }


def test_what_an_earlier_result_left_goes_when_it_is_replaced(pair: KnownPair, tmp_path):
    result = register(pair.fixed, pair.moving, preset="fast")
    folder = replace(result, uncertainty=pair.fixed).save(tmp_path / "kept")
    (folder / "report.html").write_text("of the first")
    assert Record.read(folder / "result.json").files["uncertainty"] == "uncertainty.nii.gz"
    result.save(folder, overwrite=True)
    assert not (folder / "uncertainty.nii.gz").exists()
    assert not (folder / "report.html").exists()


def test_a_record_of_another_version_is_no_method(tmp_path):
    (tmp_path / "result.json").write_text('{"schema_version": 1, "method": {}}')
    with pytest.raises(InputError, match="of version 1, this program reads 3"):
        Method.named(tmp_path)


def test_a_folder_with_bids_names_is_repeated_too(tmp_path, pair: KnownPair):
    folder = register(pair.fixed, pair.moving, preset="fast").save(tmp_path / "sub")
    (folder / "result.json").rename(folder / "sub-1_from-a_to-b_mode-image_xfm.json")
    assert Method.named(folder) == Method.named("fast")


def test_networks_and_linear_stages_need_no_smoothness():
    bare = {"similarity": {"term": "auto"}}
    assert Method(objective=parse_terms(bare)).build() is None
    assert Method.named("synthetic").replace(objective=parse_terms({}), linear=None).build() is not None
    with pytest.raises(InputError, match="needs a smoothness"):
        Method.named("fast").replace(objective=parse_terms(bare)).build()
    with pytest.raises(InputError, match="needs a similarity"):
        Method.named("affine").replace(objective=parse_terms({})).build()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["methods", "--set", "registrar.cap=1"], "What should be changed?"),
        (["methods", "fast", "--method", "balanced"], "one method is needed"),
        (["evaluate", "--dataset", "d.json", "--like", "a.nii.gz"], "--like: does nothing with --dataset"),
        (["evaluate", "--fixed-landmarks", "a", "--moving-landmarks", "b", "--mask", "m"], "--mask: does nothing without"),
        (["evaluate", "--fixed-labels", "a", "--warped-labels", "b", "--moving", "m"], "nothing without landmarks"),
        (["register", "a", "b", "-o", "o", "--method", "affine", "--transform", "svf"], "deforms nothing"),
        (["methods", "fast", "--set", "device=2020-13-45"], "not YAML"),
        (["evaluate", "--fixed-labels", "a", "--warped-labels", "b", "--preset", "fast"], "--method: does nothing without"),
    ],
)
def test_options_that_would_do_nothing_are_refused(words, said, capsys):
    from warpwise.cli import execute

    assert execute(words) == 2
    assert said in capsys.readouterr().err
