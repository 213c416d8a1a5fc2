"""What a registration returns."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from warpwise.image import Image
from warpwise.registrars.base import Step
from warpwise.registration.certificate import Certificate
from warpwise.registration.scores import Scores
from warpwise.transforms.base import Transform
from warpwise.transforms.velocity import VelocityField

MAPS = ("uncertainty", "feature_uncertainty")
"""Attributes of a result that are maps on the fixed grid, of networks that know theirs; written under these names."""


@dataclass(frozen=True, eq=False)
class Result:
    """A registration, complete.

    Attributes:
        transform: fixed mm → moving mm (RAS+): the field, then the affine.
        inverse: the map back, exact (Newton on the forward field).
        inverse_on_grid: the same as a field on voxels, for files and other programs.
        warped: the moving image on the fixed grid, resampled once from its native voxels.
        affine_only: the linear part, 4×4 (or 3×3), fixed mm → moving mm.
        history: every step of every stage; stops: why each level ended, by stage.
        similarity: value before and after (on the finest images of each stage; lower is better).
        settings: everything that was set; timings_s: seconds a stage; warnings: reasons not to trust the result.
        velocity: of the svf and symmetric solvers.
        uncertainty: standard deviation of where a voxel goes, mm, on the fixed grid; of networks that know it.
        feature_uncertainty: standard deviation of the fixed image's learned features, of networks whose features have one.
        scores: overlap of the labels and distance of the landmarks that were given.
    """

    transform: Transform
    inverse: Transform
    inverse_on_grid: Transform
    warped: Image
    displacement_mm: Any
    affine_only: Any
    certificate: Certificate
    history: tuple[Step, ...] = ()
    stops: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    similarity: Mapping[str, float] = field(default_factory=dict[str, float])
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    timings_s: Mapping[str, float] = field(default_factory=dict[str, float])
    warnings: tuple[str, ...] = ()
    predicted_memory_mb: float = 0.0
    velocity: VelocityField | None = None
    uncertainty: Image | None = None
    feature_uncertainty: Image | None = None
    scores: Scores | None = None
