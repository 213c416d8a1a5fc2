"""Other programs read our transforms, and we read theirs: both must bring the moving image to the same place.

    python benchmarks/interoperability.py [--data FOLDER]

Each row is the mean |difference| of two warped images inside the object, in % of its intensity range (0.5 allowed), or
the largest distance of mapped points, mm. Writes benchmarks/results/interoperability.json and docs/interoperability.md.
The tests run the same rows on a synthetic pair (tests/unit/test_interoperability.py).
"""

import argparse
import json
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from common import machine
from scipy import ndimage

import warpwise as ww
from warpwise.image import Image
from warpwise.io.images import write_image
from warpwise.io.transforms import Space, Spaces, read_transform, write_transform
from warpwise.resampling import resample
from warpwise.transforms.base import Transform
from warpwise.transforms.gridded import dense, gridded, split

LIMIT_PERCENT = 0.5
LIMIT_MM = 0.01


@dataclass(frozen=True)
class Row:
    """One direction of one format, checked by one program."""

    format: str
    direction: str
    program: str
    measure: str
    value: float
    limit: float


class Case:
    """A registered pair on disk, and what we make of it ourselves."""

    def __init__(self, fixed: Image, moving: Image, transform: Transform, inside: np.ndarray, folder: Path) -> None:
        self.fixed, self.moving, self.transform, self.inside, self.folder = fixed, moving, transform, inside, folder
        self.paths = folder / "fixed.nii.gz", folder / "moving.nii.gz"
        for path, image in zip(self.paths, (fixed, moving), strict=True):
            write_image(path, Image(image.data.astype(np.float32), image.grid))
        self.spaces = Spaces(*[
            Space(i.grid.shape, i.grid.affine, p.name) for i, p in zip((fixed, moving), self.paths, strict=True)
        ])
        self.affine = split(transform, fixed.grid)[1]
        at = np.argwhere(inside)[:: max(1, int(inside.sum()) // 500)]
        self.points = at @ fixed.grid.affine[:3, :3].T + fixed.grid.affine[:3, 3]

    def warped(self, transform: Transform | None = None) -> np.ndarray:
        moving = Image(self.moving.data.astype(np.float32), self.moving.grid)
        return resample(moving, self.fixed.grid, transform or self.transform).data[0]

    def percent(self, theirs: np.ndarray, transform: Transform | None = None) -> float:
        ours = self.warped(transform)
        values = ours[self.inside]
        return 100 * float(np.abs(theirs[self.inside] - values).mean() / (values.max() - values.min()))

    def path(self, name: str) -> Path:
        return self.folder / name


def lps(points: np.ndarray) -> np.ndarray:
    return points * [-1, -1, 1]


def itk_warp(case: Case, transform: Any) -> np.ndarray:
    images = [sitk.ReadImage(str(p), sitk.sitkFloat32) for p in case.paths]
    out = sitk.Resample(images[1], images[0], transform, sitk.sitkLinear, 0.0)
    return sitk.GetArrayFromImage(out).transpose()


def ants_warp(case: Case, files: list[Path], invert: list[bool] | None = None) -> np.ndarray:
    import ants

    images = [ants.image_read(str(p)) for p in case.paths]
    out = ants.apply_transforms(
        images[0], images[1], [str(f) for f in files], interpolator="linear", whichtoinvert=invert or [False] * len(files)
    )
    return out.numpy()


def nitransforms_warp(case: Case, transform: Any) -> np.ndarray:
    from nitransforms.resampling import apply

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = apply(transform, str(case.paths[1]), reference=str(case.paths[0]), order=1, prefilter=False)
    return np.asarray(out.dataobj)


def write_rows(case: Case) -> Iterator[tuple[str, str, Callable[[], float], str]]:
    """Our files, read by others."""
    import nitransforms as nt
    from nitransforms.io import x5 as _x5  # noqa: F401 - registers the format

    def wrote(name: str, transform: Transform, kind: str | None = None) -> Path:
        path = case.path(name)
        if path.exists():
            path.unlink()
        write_transform(path, transform, kind=kind, spaces=case.spaces)
        return path

    h5 = wrote("chain.h5", case.transform)
    field = wrote("field.nii.gz", case.transform, "displacement")
    yield "ITK composite .h5", "SimpleITK", lambda: case.percent(itk_warp(case, sitk.ReadTransform(str(h5)))), "%"
    yield "ITK composite .h5", "ANTs", lambda: case.percent(ants_warp(case, [h5])), "%"
    yield (
        "ITK composite .h5",
        "nitransforms",
        lambda: case.percent(nitransforms_warp(case, nt.manip.load(h5, fmt="itk"))),
        "%",
    )

    def by_field() -> float:
        image = sitk.ReadImage(str(field), sitk.sitkVectorFloat64)
        return case.percent(itk_warp(case, sitk.DisplacementFieldTransform(image)))

    yield "displacement .nii.gz (LPS mm)", "SimpleITK", by_field, "%"
    yield "displacement .nii.gz (LPS mm)", "ANTs", lambda: case.percent(ants_warp(case, [field])), "%"
    yield (
        "displacement .nii.gz (LPS mm)", "nitransforms",
        lambda: case.percent(nitransforms_warp(case, nt.nonlinear.load(field, fmt="itk"))), "%",
    )  # fmt: skip
    prefix = case.path("pair_")
    write_transform(prefix, case.transform, kind="ants", spaces=case.spaces)
    warp, back, matrix = (case.path(f"pair_{n}") for n in ("1Warp.nii.gz", "1InverseWarp.nii.gz", "0GenericAffine.mat"))
    yield "0GenericAffine.mat + 1Warp.nii.gz", "ANTs", lambda: case.percent(ants_warp(case, [warp, matrix])), "%"

    def inverse_pair() -> float:
        import ants

        images = [ants.image_read(str(p)) for p in case.paths]
        out = ants.apply_transforms(images[1], images[0], [str(matrix), str(back)], whichtoinvert=[True, False]).numpy()
        warp_field = dense(split(case.transform, case.fixed.grid)[0].inverse(), case.fixed.grid)
        ours = resample(case.fixed, case.moving.grid, case.affine.inverse().then(warp_field)).data[0]
        inside = resample(Image(case.inside[None].astype(np.uint8), case.fixed.grid, "mask"), case.moving.grid,
                          case.transform.inverse(), interpolation="nearest").data[0] > 0  # fmt: skip
        return 100 * float(np.abs(out - ours)[inside].mean() / (ours[inside].max() - ours[inside].min()))

    yield "0GenericAffine.mat⁻¹ + 1InverseWarp.nii.gz", "ANTs", inverse_pair, "%"
    for name in ("affine.tfm", "affine.txt", "affine.mat"):
        path = wrote(name, case.affine)
        yield (
            f"ITK {path.suffix} (affine)",
            "SimpleITK",
            lambda p=path: case.percent(itk_warp(case, sitk.ReadTransform(str(p))), case.affine),
            "%",
        )
        yield f"ITK {path.suffix} (affine)", "ANTs", lambda p=path: case.percent(ants_warp(case, [p]), case.affine), "%"
    lta = wrote("affine.lta", case.affine)
    flirt = wrote("flirt.mat", case.affine, "flirt")
    x5 = wrote("chain.x5", case.transform)
    yield (
        "X5", "nitransforms", lambda: case.percent(nitransforms_warp(case, nt.manip.load(x5, fmt="X5", x5_chain=0))), "%",
    )  # fmt: skip
    yield (
        "FreeSurfer .lta", "nitransforms",
        lambda: apart(nt.linear.load(lta, fmt="fs").map, case.affine.points, case.points), "mm",
    )  # fmt: skip

    def by_surfa() -> float:
        import surfa

        found = surfa.load_affine(str(lta)).convert(space="world")
        return apart(inverse_map(np.asarray(found.matrix)), case.affine.points, case.points)

    yield "FreeSurfer .lta", "surfa", by_surfa, "mm"
    yield (
        "FSL FLIRT matrix", "nitransforms",
        lambda: apart(
            lambda p: nt.linear.load(flirt, fmt="fsl", reference=str(case.paths[0]), moving=str(case.paths[1])).map(p),
            case.affine.points, case.points,
        ), "mm",
    )  # fmt: skip

    def by_fslpy() -> float:
        from fsl.data.image import Image as FslImage
        from fsl.transform import flirt as module

        images = [FslImage(str(p)) for p in case.paths]
        matrix = module.fromFlirt(module.readFlirt(str(flirt)), images[1], images[0], "world", "world")
        return apart(inverse_map(matrix), case.affine.points, case.points)

    yield "FSL FLIRT matrix", "fslpy", by_fslpy, "mm"
    fnirt = wrote("fnirt.nii.gz", case.transform, "fnirt")

    def by_fnirt() -> float:
        from fsl.data.image import Image as FslImage
        from fsl.transform import fnirt as module
        from fsl.transform.nonlinear import applyDeformation

        images = [FslImage(str(p)) for p in case.paths]
        field = module.readFnirt(str(fnirt), images[1], images[0])
        return case.percent(applyDeformation(images[1], field, mode="constant", cval=0))

    yield "FSL FNIRT field", "fslpy", by_fnirt, "%"
    submission = wrote("disp_0001_0002.nii.gz", case.transform, "learn2reg")

    def by_challenge() -> float:
        moves = np.asarray(nib.load(submission).dataobj)
        at = np.indices(moves.shape[:3]) + np.moveaxis(moves, -1, 0)
        return case.percent(ndimage.map_coordinates(case.moving.data[0].astype(np.float32), at, order=1))

    yield "Learn2Reg field", "the challenge's formula (SciPy)", by_challenge, "%"


def inverse_map(matrix: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """FSL and FreeSurfer keep moving → fixed."""
    back = np.linalg.inv(matrix)
    return lambda p: p @ back[:3, :3].T + back[:3, 3]


def apart(one: Callable, other: Callable, points: np.ndarray) -> float:
    return float(np.linalg.norm(one(points) - other(points), axis=1).max())


def read_rows(case: Case) -> Iterator[tuple[str, str, Callable[[], float], str]]:
    """Their files, read by us."""
    import nitransforms as nt

    def ants_run() -> dict:
        import ants

        images = [ants.image_read(str(p)) for p in case.paths]
        return ants.registration(
            images[0], images[1], "SyNOnly", initial_transform=_ants_affine(case), reg_iterations=(20, 10, 0),
            random_seed=1, outprefix=str(case.path("ants_")),
        )  # fmt: skip

    found = ants_run()
    forward = [Path(p) for p in found["fwdtransforms"]]
    inverse = [Path(p) for p in found["invtransforms"]]

    def chain(files: list[Path], invert: list[bool]) -> Transform:
        parts = [read_transform(p) for p in files]
        parts = [p.inverse() if i else p for p, i in zip(parts, invert, strict=True)]
        return reduce(lambda a, b: a.then(b), parts)

    yield (
        "ANTs 1Warp.nii.gz + 0GenericAffine.mat", "antsRegistration",
        lambda: case.percent(found["warpedmovout"].numpy(), chain(forward, [False] * len(forward))), "%",
    )  # fmt: skip

    def ants_inverse() -> float:
        flags = [str(p).endswith(".mat") for p in inverse]
        ours = resample(case.fixed, case.moving.grid, chain(inverse, flags)).data[0]
        theirs = found["warpedfixout"].numpy()
        inside = theirs > np.percentile(theirs[theirs > 0], 20)
        return 100 * float(np.abs(ours - theirs)[inside].mean() / (theirs.max() - theirs.min()))

    yield "ANTs [0GenericAffine.mat,1] + 1InverseWarp.nii.gz", "antsRegistration", ants_inverse, "%"

    def itk_kinds() -> float:
        worst = 0.0
        euler = sitk.Euler3DTransform((3.0, -4.0, 5.0), 0.1, -0.2, 0.3, (1.0, 2.0, 3.0))
        versor = sitk.ScaleSkewVersor3DTransform()
        versor.SetRotation((0, 0.6, 0.8), 0.3)
        versor.SetScale((1.1, 0.9, 1.2))
        versor.SetTranslation((5, 6, 7))
        both = sitk.CompositeTransform([euler, versor])
        for n, made in enumerate((euler, versor, both)):
            for suffix in ("tfm", "h5"):
                path = case.path(f"kind{n}.{suffix}")
                sitk.WriteTransform(made, str(path))
                ours = read_transform(path)
                theirs = np.array([made.TransformPoint(p) for p in lps(case.points).tolist()])
                worst = max(worst, float(np.linalg.norm(lps(theirs) - ours.points(case.points), axis=1).max()))
        return worst

    yield "ITK Euler, versor, scale, skew, chains (.tfm, .h5)", "SimpleITK", itk_kinds, "mm"

    def itk_field() -> float:
        path = case.path("theirs.h5")
        image = sitk.ReadImage(str(case.path("field.nii.gz")), sitk.sitkVectorFloat64)
        made = sitk.DisplacementFieldTransform(image)
        sitk.WriteTransform(made, str(path))
        ours = read_transform(path)
        theirs = np.array([made.TransformPoint(p) for p in lps(case.points).tolist()])
        return float(np.linalg.norm(lps(theirs) - ours.points(case.points), axis=1).max())

    write_transform(case.path("field.nii.gz"), case.transform, kind="displacement", spaces=case.spaces)
    yield "ITK displacement field .h5", "SimpleITK", itk_field, "mm"

    def by_nitransforms(name: str, fmt: str, kind: str | None) -> float:
        path = case.path(name)
        made = nt.linear.Affine(case.affine.matrix, reference=str(case.paths[0]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made.to_filename(str(path), fmt=fmt, moving=str(case.paths[1]))
        return apart(read_transform(path, kind=kind, spaces=case.spaces).points, case.affine.points, case.points)

    yield "FSL FLIRT matrix", "nitransforms", lambda: by_nitransforms("nt.mat", "fsl", "flirt"), "mm"
    yield "FreeSurfer .lta", "nitransforms", lambda: by_nitransforms("nt.lta", "fs", None), "mm"
    yield "X5", "nitransforms", lambda: by_nitransforms("nt.x5", "X5", None), "mm"

    def from_surfa(space: str) -> float:
        import surfa

        places = [surfa.load_volume(str(p)).geom for p in case.paths]
        made = surfa.Affine(np.linalg.inv(case.affine.matrix), source=places[1], target=places[0], space="world")
        path = case.path(f"surfa_{space}.lta")
        made.convert(space=space).save(str(path))
        return apart(read_transform(path).points, case.affine.points, case.points)

    yield "FreeSurfer .lta (RAS to RAS)", "surfa", lambda: from_surfa("world"), "mm"
    yield "FreeSurfer .lta (voxel to voxel)", "surfa", lambda: from_surfa("vox"), "mm"

    def from_fslpy() -> float:
        from fsl.data.image import Image as FslImage
        from fsl.transform import flirt as module

        images = [FslImage(str(p)) for p in case.paths]
        matrix = module.toFlirt(np.linalg.inv(case.affine.matrix), images[1], images[0], "world", "world")
        path = case.path("fslpy.mat")
        module.writeFlirt(matrix, str(path))
        return apart(read_transform(path, spaces=case.spaces).points, case.affine.points, case.points)

    yield "FSL FLIRT matrix", "fslpy", from_fslpy, "mm"

    def from_fnirt(kind: str) -> float:
        from fsl.data.image import Image as FslImage
        from fsl.transform.fnirt import toFnirt
        from fsl.transform.nonlinear import DeformationField, convertDeformationType

        images = [FslImage(str(p)) for p in case.paths]
        moves = np.moveaxis(case.transform.displacement(case.fixed.grid), 0, -1)
        made = DeformationField(
            moves, images[1], images[0], srcSpace="world", refSpace="world", defType="relative", header=images[0].header
        )
        theirs = toFnirt(made)
        data = theirs.data if kind == "relative" else convertDeformationType(theirs, "absolute")
        path = case.path(f"fslpy_{kind}.nii.gz")
        image = nib.Nifti1Image(np.asarray(data, np.float32), case.fixed.grid.affine)
        image.header["intent_code"] = 2006
        image.to_filename(path)
        return apart(read_transform(path, spaces=case.spaces).points, case.transform.points, case.points)

    yield "FSL FNIRT field, relative", "fslpy", lambda: from_fnirt("relative"), "mm"
    yield "FSL FNIRT field, absolute", "fslpy", lambda: from_fnirt("absolute"), "mm"

    def ants_points() -> float:
        import ants
        import pandas as pd

        at = lps(case.points)
        table = pd.DataFrame({"x": at[:, 0], "y": at[:, 1], "z": at[:, 2]})
        path = case.path("chain.h5")
        write_transform(path, case.transform)
        theirs = lps(ants.apply_transforms_to_points(3, table, [str(path)])[["x", "y", "z"]].to_numpy())
        return float(np.linalg.norm(theirs - case.transform.points(case.points), axis=1).max())

    yield "points through .h5", "ANTs", ants_points, "mm"


def _ants_affine(case: Case) -> str:
    path = case.path("start.mat")
    write_transform(path, case.affine)
    return str(path)


def rows(case: Case) -> list[Row]:
    out: list[Row] = []
    for direction, made in (("written", write_rows), ("read", read_rows)):
        for kind, program, measure, unit in made(case):
            value = measure()
            limit = LIMIT_PERCENT if unit == "%" else LIMIT_MM
            out.append(Row(kind, direction, program, unit, value, limit))
    return out


def case_of(fixed: Image, moving: Image, inside: np.ndarray, folder: Path) -> Case:
    found = ww.register(fixed, moving, method="balanced")
    return Case(fixed, moving, gridded(found.transform), inside, folder)


def table(found: list[Row], about: dict) -> str:
    lines = [
        "# Interoperability",
        "",
        "Every transform format in both directions, checked by the program it belongs to. *Written*: that program, given",
        "our file, warps the moving image; the figure is the mean |difference| from our warped image inside the brain, in",
        "% of its range (allowed: 0.5 %), or the largest distance between points mapped by both, mm (allowed: 0.01 mm).",
        "*Read*: we are given that program's file.",
        "",
        f"Pair 1000←1001 at 1 mm, {about['date']}, commit {about['commit']}; `{about['command']}`.",
        "The tests repeat every row on an oblique, left-handed, anisotropic synthetic pair",
        "(`tests/unit/test_interoperability.py`).",
        "",
        "| direction | format | checked by | difference |",
        "| --- | --- | --- | --- |",
    ]
    for row in found:
        unit = "%" if row.measure == "%" else "mm"
        lines.append(f"| {row.direction} | {row.format} | {row.program} | {row.value:.2g} {unit} |")
    return "\n".join(lines) + "\n"


NOTES = """
Images: NIfTI-1 and -2 (.nii, .nii.gz), MetaImage (.mha, .mhd), NRRD (.nrrd, .nhdr), DICOM folders and files, and pictures
(.png, .tif, .jpg, .bmp) for 2-D; `tests/unit/test_image_formats.py` holds that one scan gives the same registration, in
world mm, whatever format, axes, flips, crop or type it is stored in.

Points: .csv and .tsv (columns r, a, s or l, p, s say their space; x, y, z need `--points-space`), 3D Slicer's .fcsv and
.mrk.json, .tck and .trk streamlines.

Not read: ITK B-spline transforms, FNIRT coefficient files (make fields of them with fnirtfileutils), FreeSurfer .m3z,
AFNI. `greedy -ro` warps are ITK displacement images and are read as such.
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    options = parser.parse_args()
    folder = options.data / "oasis-mals"
    fixed, moving = (ww.load_image(folder / "images" / f"{n}.nii.gz") for n in (1000, 1001))
    inside = ww.load_image(folder / "labels" / "1000.nii.gz", kind="labels").data[0] > 0
    with tempfile.TemporaryDirectory() as scratch:
        found = rows(case_of(fixed, moving, inside, Path(scratch)))
    about = machine()
    for row in found:
        print(f"{row.direction:8} {row.format:50} {row.program:32} {row.value:.3g} {row.measure}")
    root = Path(__file__).resolve().parents[1]
    text = json.dumps({**about, "rows": [asdict(row) for row in found]}, indent=1, ensure_ascii=False)
    (root / "benchmarks" / "results" / "interoperability.json").write_text(text + "\n", encoding="utf-8")
    (root / "docs" / "interoperability.md").write_text(table(found, about) + NOTES, encoding="utf-8")


if __name__ == "__main__":
    main()
