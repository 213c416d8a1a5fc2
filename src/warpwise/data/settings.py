"""What a person may set about training data: which pairs, how they are changed at random, or how they are made."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from warpwise.settings import Settings


class TeacherSettings(Settings):
    """Deformations to learn from, by the term `endpoint`.

    Attributes:
        method: as `register --method` takes it: a preset, a model, a file; each training pair is registered once.
        refine: go on from the model with a solver, so that a network learns from its own answer, made better.
        labels: let the method be guided by the label maps of training people, if its objective has such a term.
    """

    method: str
    refine: bool = False
    labels: bool = False


class DataSettings(Settings):
    """Which pairs, and how they are brought to the network.

    Attributes:
        dataset: dataset.json or its folder; none for synthetic training.
        pairs: all (every ordered pair of training images), subject (those of one person, also in several contrasts),
            listed (registration_train), or atlas.
        atlas: the image that is always fixed, for `pairs: atlas`.
        spacing_mm: of the network's voxels, one number or one an axis; the images' median where it is not given.
        crop: training looks at windows of so many voxels along each axis, or along all alike, anywhere in the fixed
            image: more pairs in the same time and memory. Who selects is registered whole.
        alignment: linear part found beforehand by the solver: none, rigid or affine.
        labels: values that train and are averaged over; those the dataset names where it is empty.
        people: who is in which part, by subject, or by file name where the dataset names no subject: weights learn from
            `train` and are chosen by pairs of `select`, `test` is for figures, further parts are other levels' own. Where
            nobody is named, they learn from all of `training` and are chosen by the dataset's validation pairs.
        labels_at_once: so many labels, drawn at random, take part in a step.
        groups: of label values, by name: each is one structure to the terms that look at labels, all in every step.
        label_codes: in so many channels all labels take part in every step, as signed codes, for the term `labels`; 0: as
            above, a channel each.
        teacher: what deforms the training pairs for the network to learn from; none: they learn from images and labels.
        allow_outside: whether the dataset may name images outside its folder.
    """

    dataset: Path | None = None
    pairs: Literal["all", "subject", "listed", "atlas"] = "all"
    atlas: Path | None = None
    spacing_mm: float | tuple[float, ...] | None = None
    crop: int | tuple[int, ...] | None = None
    alignment: Literal["none", "rigid", "affine"] = "affine"
    labels: tuple[int, ...] = ()
    people: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    labels_at_once: int = Field(default=8, ge=1)
    groups: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    label_codes: int = Field(default=0, ge=0)
    teacher: TeacherSettings | None = None
    allow_outside: bool = False

    @model_validator(mode="after")
    def _groups(self) -> Self:
        if self.groups and self.label_codes:
            raise ValueError("groups and label_codes: labels take part in one way, not in both")
        members = [value for group in self.groups.values() for value in group]
        if len(members) > len(set(members)) or 0 in members or not all(self.groups.values()):
            raise ValueError("groups: each label value but 0 belongs to one group at most, and no group is empty")
        return self

    @field_validator("crop")
    @classmethod
    def _window(cls, crop: int | tuple[int, ...] | None) -> int | tuple[int, ...] | None:
        sides = (crop,) if isinstance(crop, int) else crop
        if sides is not None and (len(sides) > 3 or min(sides, default=0) < 16):
            raise ValueError("one, two or three numbers of at least 16 voxels are needed")
        return crop

    @field_validator("people")
    @classmethod
    def _parts(cls, people: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        empty = [part for part in ("train", "select") if people and not people.get(part)]
        if empty:
            raise ValueError(f"nobody is in {' and '.join(map(repr, empty))}")
        return people


class AugmentationSettings(Settings):
    """What is changed at random, anew at every step.

    Attributes:
        rotation_degrees, scaling, shift_voxels: of both images together, up to so much.
        flip: mirror both along the first axis, half of the time.
        apart: share of that motion which the moving image makes on its own: what an affine start leaves.
        elastic_voxels: typical length of a smooth deformation of the moving image.
        noise: up to this standard deviation, of intensities 0 … 1.
        bias: largest relative change of a smooth shading.
        gamma: exponent up to 1 + gamma, or its inverse.
        contrast: probability that intensities of an image are mapped through a random curve, each image by its own.
        contrast_of: of both images, or of the moving one alone, where the fixed one always shows tissue as it is.
        judge_clean: the objective looks at intensities without these changes, the network alone sees them: so it learns
            to register through noise, shading and contrast what would be registered without.
    """

    rotation_degrees: float = Field(default=10.0, ge=0)
    scaling: float = Field(default=0.1, ge=0, lt=1)
    shift_voxels: float = Field(default=3.0, ge=0)
    flip: bool = True
    apart: float = Field(default=0.2, ge=0, le=1)
    elastic_voxels: float = Field(default=0.0, ge=0)
    noise: float = Field(default=0.02, ge=0)
    bias: float = Field(default=0.1, ge=0)
    gamma: float = Field(default=0.2, ge=0)
    contrast: float = Field(default=0.0, ge=0, le=1)
    contrast_of: Literal["both", "moving"] = "both"
    judge_clean: bool = False


class SyntheticSettings(Settings):
    """Pairs that are made, not read: random shapes, contrasts and deformations.

    Attributes:
        shape: voxels of an image, two or three axes.
        labels: of a label map, fewest and most.
        shape_voxels: smoothness of the shapes, from … to; a pair draws its own.
        warp_voxels: typical length of the true deformation, up to.
        warp_smoothness_voxels: from … to.
        blur_voxels, noise, bias: artefacts, up to.
        brains: share of pairs that show a brain-like phantom instead of random shapes (3-D only).
    """

    shape: tuple[int, ...] = (64, 64, 64)
    labels: tuple[int, int] = (6, 20)
    shape_voxels: tuple[float, float] = (3.0, 10.0)
    warp_voxels: float = Field(default=3.0, ge=0)
    warp_smoothness_voxels: tuple[float, float] = (4.0, 12.0)
    blur_voxels: float = Field(default=1.0, ge=0)
    noise: float = Field(default=0.06, ge=0)
    bias: float = Field(default=0.3, ge=0)
    brains: float = Field(default=0.5, ge=0, le=1)

    @field_validator("shape")
    @classmethod
    def _axes(cls, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) not in (2, 3) or min(shape) < 8:
            raise ValueError("two or three axes of at least 8 voxels are needed")
        return shape
