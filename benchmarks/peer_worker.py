"""Run one peer on one pair, as its users would: `python peer_worker.py NAME FIXED MOVING FOLDER [LABELS OUT KIND]`.

Without LABELS: register, and write the warped image and the transform. With them: bring the labels onto the fixed grid
through what was written, nearest neighbour; KIND is full or affine.
"""

import sys
from pathlib import Path

THREADS = 2


def greedy(fixed: str, moving: str, folder: Path) -> None:
    from picsl_greedy import Greedy3D

    g = Greedy3D()
    common = f"-threads {THREADS} -m NCC 2x2x2 -n 100x50x10"
    g.execute(f"{common} -i {fixed} {moving} -a -dof 12 -ia-image-centers -o {folder}/affine.mat")
    g.execute(f"{common} -i {fixed} {moving} -it {folder}/affine.mat -s 1.732vox 0.707vox -o {folder}/warp.nii.gz")
    g.execute(
        f"-threads {THREADS} -rf {fixed} -rm {moving} {folder}/warped.nii.gz -r {folder}/warp.nii.gz {folder}/affine.mat"
    )


def greedy_labels(fixed: str, folder: Path, labels: str, out: str, kind: str) -> None:
    from picsl_greedy import Greedy3D

    chain = f"{folder}/warp.nii.gz {folder}/affine.mat" if kind == "full" else f"{folder}/affine.mat"
    Greedy3D().execute(f"-threads {THREADS} -rf {fixed} -ri NN -rm {labels} {out} -r {chain}")


def ants_quick(fixed: str, moving: str, folder: Path) -> None:
    import ants

    found = ants.registration(
        ants.image_read(fixed), ants.image_read(moving), "antsRegistrationSyNQuick[s]", outprefix=f"{folder}/ants_"
    )
    ants.image_write(found["warpedmovout"], f"{folder}/warped.nii.gz")


def ants_quick_labels(fixed: str, folder: Path, labels: str, out: str, kind: str) -> None:
    import ants

    affine = f"{folder}/ants_0GenericAffine.mat"
    chain = [f"{folder}/ants_1Warp.nii.gz", affine] if kind == "full" else [affine]
    moved = ants.apply_transforms(ants.image_read(fixed), ants.image_read(labels), chain, interpolator="nearestNeighbor")
    ants.image_write(moved, out)


def elastix(fixed: str, moving: str, folder: Path) -> None:
    import itk

    parameters = itk.ParameterObject.New()
    for name in ("rigid", "affine", "bspline"):
        settings = parameters.GetDefaultParameterMap(name)
        if name == "rigid":
            # The origins of these headers are arbitrary.
            settings["AutomaticTransformInitialization"] = ["true"]
            settings["AutomaticTransformInitializationMethod"] = ["CenterOfGravity"]
        parameters.AddParameterMap(settings)
    # Setting the number of threads crashes this build of elastix; by default it uses both cores.
    method = itk.ElastixRegistrationMethod.New(itk.imread(fixed, itk.F), itk.imread(moving, itk.F))
    method.SetParameterObject(parameters)
    method.SetLogToConsole(False)
    method.SetOutputDirectory(str(folder))
    method.UpdateLargestPossibleRegion()
    itk.imwrite(method.GetOutput(), f"{folder}/warped.nii.gz")


def elastix_labels(fixed: str, folder: Path, labels: str, out: str, kind: str) -> None:
    import itk

    parameters = itk.ParameterObject.New()
    for k in range(3 if kind == "full" else 2):
        parameters.AddParameterFile(f"{folder}/TransformParameters.{k}.txt")
    for k in range(parameters.GetNumberOfParameterMaps()):
        parameters.SetParameter(k, "FinalBSplineInterpolationOrder", "0")
        parameters.SetParameter(k, "ResampleInterpolator", "FinalNearestNeighborInterpolator")
    itk.imwrite(itk.transformix_filter(itk.imread(labels, itk.F), parameters), out)


RUN = {"greedy": greedy, "ants-synquick": ants_quick, "elastix": elastix}
LABELS = {"greedy": greedy_labels, "ants-synquick": ants_quick_labels, "elastix": elastix_labels}

if __name__ == "__main__":
    name, fixed, moving, folder, *rest = sys.argv[1:]
    if rest:
        LABELS[name](fixed, Path(folder), *rest)
    else:
        RUN[name](fixed, moving, Path(folder))
