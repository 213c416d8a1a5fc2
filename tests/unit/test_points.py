"""Landmarks and streamlines: every format, every space, and what bad rows get."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from warpwise.errors import InputError
from warpwise.grid import Grid
from warpwise.io.points import Points, inside, matched, read_points, write_points

RAS = np.array([[1.5, -2.25, 3.0], [10.0, 20.0, -30.5], [0.0, 0.125, 7.0]])
NAMES = ("left, front", "b", "ünï")
GRID = Grid((20, 30, 40), np.array([[0, 2.0, 0, -5], [-1.5, 0, 0, 6], [0, 0, 3.0, 7], [0, 0, 0, 1]]))


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".fcsv", ".mrk.json"])
@pytest.mark.parametrize("space", ["ras", "lps"])
def test_landmarks_come_back(tmp_path: Path, suffix: str, space: str):
    path = tmp_path / f"points{suffix}"
    write_points(path, Points(RAS, NAMES, space))
    found = read_points(path)
    assert np.allclose(found.mm, RAS, atol=1e-6)
    assert found.names == NAMES


def test_the_public_names_take_strings(tmp_path: Path):
    import warpwise as ww
    from warpwise.image import Image
    from warpwise.transforms.affine import Affine

    ww.save_points(str(tmp_path / "a.csv"), Points(RAS))
    assert np.allclose(ww.load_points(str(tmp_path / "a.csv")).mm, RAS)
    ww.save_transform(str(tmp_path / "a.tfm"), Affine(np.diag([1, 2, 3, 1.0])))
    assert np.allclose(ww.load_transform(str(tmp_path / "a.tfm")).points(RAS), RAS * [1, 2, 3])
    ww.save_image(str(tmp_path / "a.nrrd"), Image(np.ones((1, 20, 30, 40), np.uint8), GRID))
    assert ww.load_image(str(tmp_path / "a.nrrd")).grid.same_as(GRID)


def test_slicer_files_hold_lps_and_older_ones_are_understood(tmp_path: Path):
    write_points(tmp_path / "a.mrk.json", Points(RAS, NAMES))
    markup = json.loads((tmp_path / "a.mrk.json").read_text())["markups"][0]
    assert markup["coordinateSystem"] == "LPS"
    assert np.allclose([p["position"] for p in markup["controlPoints"]], RAS * [-1, -1, 1])
    head = "# Markups fiducial file version = 4.10\n# CoordinateSystem = {}\n"
    for word, sign in (("0", 1), ("RAS", 1), ("1", -1), ("LPS", -1)):
        (tmp_path / "b.fcsv").write_text(head.format(word) + "F1,1,2,3,0,0,0,1,1,1,0,name\n")
        found = read_points(tmp_path / "b.fcsv")
        assert np.allclose(found.mm, [[sign, 2 * sign, 3]])
        assert found.names == ("name",)


def test_a_table_says_its_space_by_its_columns_or_is_asked(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text("label,x,y,z,t\np,1,2,3,0\n")
    with pytest.raises(InputError, match="--points-space"):
        read_points(path)
    assert np.allclose(read_points(path, space="ras").mm, [[1, 2, 3]])
    assert np.allclose(read_points(path, space="lps").mm, [[-1, -2, 3]])
    assert np.allclose(read_points(path, space="voxel", grid=GRID).mm, [[2 * 2 - 5, -1.5 + 6, 9 + 7]])
    with pytest.raises(InputError, match="need their image"):
        read_points(path, space="voxel")
    path.write_text("R,A,S\n1;2;3\n".replace(";", ","))
    assert np.allclose(read_points(path).mm, [[1, 2, 3]])
    path.write_text("1,2,3\n4,5,6\n")
    assert np.allclose(read_points(path, space="ras").mm, [[1, 2, 3], [4, 5, 6]])
    path.write_text(",X,Y\n0,10,20\n1,30,40\n")
    plane = Grid((50, 60), np.diag([-0.5, -0.5, 1.0]))
    assert np.allclose(read_points(path, space="voxel", grid=plane).mm, [[-5, -10], [-15, -20]])


def test_other_columns_of_a_table_stay(tmp_path: Path):
    (tmp_path / "a.csv").write_text("x,y,z,t,label,comment\n1,2,3,0,p,keep\n")
    found = read_points(tmp_path / "a.csv", space="lps")
    write_points(tmp_path / "b.csv", found.moved(found.mm + 1))
    assert (tmp_path / "b.csv").read_text() == "x,y,z,t,label,comment\n0.000000,1.000000,4.000000,0,p,keep\n"


def test_voxels_that_leave_their_image_become_mm_and_say_so(tmp_path: Path):
    (tmp_path / "a.csv").write_text("n,X,Y,Z\n1,2,3,4\n")
    found = read_points(tmp_path / "a.csv", space="voxel", grid=GRID)
    write_points(tmp_path / "b.csv", found.moved(found.mm + 1, space="ras"))
    assert (tmp_path / "b.csv").read_text().startswith("n,r,a,s\n")
    assert np.allclose(read_points(tmp_path / "b.csv").mm, found.mm + 1)


@pytest.mark.parametrize("suffix", [".tck", ".trk"])
def test_streamlines_keep_their_lengths(tmp_path: Path, suffix: str):
    rng = np.random.default_rng(0)
    points = Points(rng.normal(0, 30, (9, 3)), lengths=(4, 2, 3))
    write_points(tmp_path / f"a{suffix}", points)
    found = read_points(tmp_path / f"a{suffix}")
    assert found.lengths == (4, 2, 3)
    assert np.allclose(found.mm, points.mm, atol=1e-4)
    theirs = nib.streamlines.load(tmp_path / f"a{suffix}").streamlines
    assert [len(line) for line in theirs] == [4, 2, 3]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "x,y,z\n1,2,3\n1,two,3\n", "row 3.*not numbers"),
        ("a.csv", "x,y,z\n1,2,3\n1,2\n", "row 3 has 2 columns"),
        ("a.csv", "x,y,z\n1,nan,3\n", r"row 2.*not finite"),
        ("a.csv", "one,two\na,b\n", "no columns x, y, z"),
        ("a.csv", "", "no points"),
        ("a.csv", "x,y,z\n", "no points"),
        ("a.fcsv", "# CoordinateSystem = XYZ\nF,1,2,3\n", "coordinate system 'xyz'"),
        ("a.fcsv", "F,1,2\n", "row 1 has fewer"),
        ("a.mrk.json", '{"markups": [{"controlPoints": [{"position": [1, 2]}]}]}', "three coordinates"),
        ("a.mrk.json", '{"markups": []}', "not a Slicer"),
        ("a.mrk.json", "[" * 10, "not a Slicer"),
        ("a.tck", "hello", "not readable streamlines"),
        ("a.vtk", "hello", "not a file of points"),
    ],
)
def test_bad_files_name_the_row(tmp_path: Path, name: str, text: str, words: str):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=words):
        read_points(tmp_path / name, space="ras")


def test_pairs_are_matched_by_name_or_order_and_must_be_as_many():
    fixed, moving = Points(RAS, ("a", "b", "c")), Points(RAS[::-1] + 1, ("c", "b", "a"))
    one, other, names = matched(fixed, moving)
    assert np.allclose(other - one, 1)
    assert names == ("a", "b", "c")
    assert np.allclose(matched(fixed, Points(RAS + 1, ("x", "y", "z")))[1] - RAS, 1)
    with pytest.raises(InputError, match="row 3 has no partner"):
        matched(fixed, Points(RAS[:2]))


def test_a_landmark_outside_its_image_is_named():
    at = (GRID.affine @ [3, 4, 5, 1])[:3]
    inside(at[None], GRID, ["in"], "file.csv")
    with pytest.raises(InputError, match=r"landmark 2 \(out\).*1 of 2.*--points-space"):
        inside(np.stack([at, at + 500]), GRID, ["in", "out"], "file.csv")
