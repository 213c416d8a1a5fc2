"""Names of BIDS derivatives.

Source: BIDS specification 1.10, and fMRIPrep's names for transforms (`from-A_to-B_mode-image_xfm`: A is moved onto B).
"""

import json
import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from warpwise.errors import InputError

_DATATYPES = ("anat", "func", "dwi", "fmap", "perf", "pet", "micr")
_ENTITY = re.compile(r"([a-zA-Z]+)-([a-zA-Z0-9+]+)")


@dataclass(frozen=True)
class Name:
    """A BIDS file name: entities in order, suffix, and the kind of data."""

    entities: tuple[tuple[str, str], ...]
    suffix: str
    datatype: str

    @classmethod
    def of(cls, path: Path) -> "Name":
        """The parts of a file's name.

        Raises:
            InputError: it is not a BIDS name.
        """
        stem = path.name.split(".")[0]
        *pairs, suffix = stem.split("_")
        found = [_ENTITY.fullmatch(pair) for pair in pairs]
        if not found or not all(found) or not suffix.isalnum():
            raise InputError(
                f"{path}: not a BIDS name.", hint="Expected like sub-01_ses-1_T1w.nii.gz, or leave --bids out."
            )
        entities = tuple((m.group(1), m.group(2)) for m in found if m)
        datatype = path.absolute().parent.name
        return cls(entities, suffix, datatype if datatype in _DATATYPES else "anat")

    def get(self, entity: str) -> str:
        """An entity's value, or nothing."""
        return dict(self.entities).get(entity, "")


def folder_of(moving: Path) -> Path:
    """Where derivatives of an image belong, below the derivatives folder.

    Raises:
        InputError: its name has no subject.
    """
    name = Name.of(moving)
    if not name.get("sub"):
        raise InputError(f"{moving}: a BIDS name begins with a subject (sub-…).")
    parts = [f"{key}-{name.get(key)}" for key in ("sub", "ses") if name.get(key)]
    return Path(*parts, name.datatype)


def names(fixed: Path, moving: Path) -> dict[str, str]:
    """BIDS names of what a registration writes, by its plain names.

    Raises:
        InputError: one of the images has no BIDS name.
    """
    to, of = Name.of(fixed), Name.of(moving)
    same = (to.get("sub"), to.get("ses")) == (of.get("sub"), of.get("ses"))
    target = to.get("tpl") or to.get("space") or (to.suffix if same else f"{to.get('sub')}{to.get('ses')}{to.suffix}")
    source = of.get("space") or (of.suffix if same or to.get("tpl") else f"{of.get('sub')}{of.get('ses')}{of.suffix}")
    if source == target:
        raise InputError(f"{moving.name} and {fixed.name} would both be called {source}.", hint="Leave --bids out.")
    kept = "_".join(f"{k}-{v}" for k, v in of.entities if k not in ("space", "desc", "from", "to", "mode"))
    there, back = (f"{kept}_from-{a}_to-{b}_mode-image" for a, b in ((source, target), (target, source)))
    return {
        "warped.nii.gz": f"{kept}_space-{target}_desc-warped_{of.suffix}.nii.gz",
        "uncertainty.nii.gz": f"{kept}_space-{target}_desc-uncertainty_{of.suffix}.nii.gz",
        "feature_uncertainty.nii.gz": f"{kept}_space-{target}_desc-featureuncertainty_{of.suffix}.nii.gz",
        "transform.h5": f"{there}_xfm.h5",
        "inverse.h5": f"{back}_xfm.h5",
        "displacement.nii.gz": f"{there}_desc-displacement_xfm.nii.gz",
        "result.json": f"{there}_xfm.json",
        "report.html": f"{kept}_from-{source}_to-{target}_report.html",
        "figures": f"{kept}_from-{source}_to-{target}_figures",
    }


def description() -> str:
    """The dataset_description.json of a derivatives folder."""
    content = {
        "Name": "warpwise registrations",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "warpwise", "Version": version("warpwise")}],
    }
    return json.dumps(content, indent=2) + "\n"
