"""result.json: what a registration was, written and read here alone."""

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import Field

from warpwise.errors import InputError
from warpwise.methods.method import RECORD as NAME
from warpwise.methods.method import SCHEMA, Method, record_of
from warpwise.settings import Settings


class StepRow(Settings):
    """One iteration."""

    stage: str
    scale: int
    iteration: int
    energy: float


class Choices(Settings):
    """What was decided on the way, and by what.

    Attributes:
        similarity: that a deformable solver minimised, empty where none did; linear_measure: of the linear stage.
        start: where that began.
        contrast_agreement: 1 where tissue looks the same, below 0.88 images are compared in both contrasts.
        guides: what guided besides images, and its weight.
        evidence: by how much deforming raised the share of variance that one image explains in the other, where contrasts
            differ; cautious: whether that was so little that the method's cautious registrar went instead.
        shading: SD of the logarithm of the slow gain that the images do not share; without_shading: stages that saw them
            without it.
        voxels: that were used: all, or one in so many along each axis.
    """

    similarity: str
    linear_measure: str
    start: str
    contrast_agreement: float
    guides: dict[str, float] = Field(default_factory=dict)
    evidence: float | None = None
    cautious: bool = False
    shading: float = 0.0
    without_shading: list[str] = Field(default_factory=list)
    voxels: str = "all"
    threads: int = 1
    device: str = "cpu"


class Record(Settings):
    """A registration as result.json holds it.

    Attributes:
        schema_version: of this file; this version of warpwise reads 3.
        warpwise: version that made it; versions: of what it stood on.
        fixed, moving: the images' paths, empty for images in memory.
        method: how it was registered; `Method.named` reads it from here.
        choices: what was decided on the way.
        similarity: energy before and after, on the finest images of each stage; the lower the better.
        stop_reasons: why each scale ended, by stage; energies: every iteration.
        affine: the linear part, fixed mm → moving mm.
        certificate: folds, and how well forward and inverse agree; scores: of labels and landmarks.
        warnings: reasons not to trust the result.
        timings_s, memory_mb: what it took; files: what was written, by kind.
    """

    schema_version: int = SCHEMA
    warpwise: str
    fixed: str = ""
    moving: str = ""
    method: Method
    choices: Choices
    similarity: dict[str, float]
    stop_reasons: dict[str, list[str]]
    energies: list[StepRow]
    affine: list[list[float]]
    certificate: dict[str, float]
    scores: dict[str, Any] = Field(default_factory=dict)
    warnings: list[str] = Field(default_factory=list)
    timings_s: dict[str, float]
    memory_mb: dict[str, float | None]
    versions: dict[str, str] = Field(default_factory=dict)
    files: dict[str, str] = Field(default_factory=dict)

    def write(self, path: Path) -> None:
        """As JSON."""
        content = self.model_dump(mode="json")
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "Record":
        """From a result.json, under whatever name BIDS gave it.

        Raises:
            InputError: it is missing, no record, or of another version.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: not a result of warpwise register.") from error
        if not isinstance(content, dict) or "schema_version" not in content:
            raise InputError(
                f"{path}: not a result of warpwise register.", hint="Earlier versions of warpwise wrote another form."
            )
        if content["schema_version"] != SCHEMA:
            raise InputError(f"{path}: is of version {content['schema_version']}, this program reads {SCHEMA}.")
        try:
            return cls.parse(content)
        except InputError as error:
            raise InputError(f"{path}: not a result of warpwise register: {error}") from error


def find(folder: Path) -> Path:
    """The record of a folder that warpwise register wrote.

    Raises:
        InputError: there is none, or more than one.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder.")
    record = record_of(folder)
    if record is None:
        several = len(list(folder.glob("*_xfm.json")))
        problem = f"{several} results" if several else f"no {NAME}"
        raise InputError(f"{folder}: {problem} here.", hint="Give a folder that warpwise register wrote.")
    return record


def versions(method: Method) -> dict[str, str]:
    """Of Python and of the packages that made a result."""
    learned = method.registrar is not None and method.registrar.kind in ("network", "refined")
    packages = ("numba", "numpy", "nibabel", "SimpleITK", *(("torch",) if learned else ()))
    out = {"python": platform.python_version()}
    for name in packages:
        try:
            out[name] = version(name)
        except PackageNotFoundError:  # a package that was put on the path by hand
            continue
    return out
