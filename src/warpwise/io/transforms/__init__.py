"""Transform files: one module a format, found by what is in a file rather than by its name alone."""

from dataclasses import dataclass
from pathlib import Path

from warpwise.errors import InputError
from warpwise.grid import Grid
from warpwise.io.checks import Affine4
from warpwise.tables import Table
from warpwise.transforms.base import Transform

FORMATS = Table(
    "transform format",
    {
        "itk": "warpwise.io.transforms.itk:Itk",
        "displacement": "warpwise.io.transforms.dense:Dense",
        "ants": "warpwise.io.transforms.ants:Ants",
        "flirt": "warpwise.io.transforms.flirt:Flirt",
        "fnirt": "warpwise.io.transforms.fnirt:Fnirt",
        "lta": "warpwise.io.transforms.lta:Lta",
        "x5": "warpwise.io.transforms.x5:X5",
        "learn2reg": "warpwise.io.transforms.learn2reg:Learn2Reg",
    },
)
"""Each is a class with `suffixes` that it may have and two static functions: `read(path, spaces)` gives the transform in a
file that exists, `write(path, transform, spaces)` writes one under a scratch name beside the final one."""

SUFFIXES = (".h5", ".hdf5", ".tfm", ".txt", ".mat", ".xfm", ".lta", ".x5", ".nii", ".nii.gz")


@dataclass(frozen=True, eq=False)
class Space:
    """An image's place, as formats need it that measure from its corner: shape, 4×4 RAS+ affine, and its name."""

    shape: tuple[int, ...]
    affine: Affine4
    name: str = "image"

    @property
    def grid(self) -> Grid:
        """The grid of a volume.

        Raises:
            InputError: the image is a plane.
        """
        if len(self.shape) != 3:
            raise InputError(f"{self.name}: this format is for volumes; the image has {len(self.shape)} axes.")
        return Grid(self.shape, self.affine)


@dataclass(frozen=True, eq=False)
class Spaces:
    """Of the fixed and the moving image, where they are known."""

    fixed: Space | None = None
    moving: Space | None = None

    def both(self, path: Path, kind: str) -> tuple[Space, Space]:
        """Both, for a format that means nothing without them.

        Raises:
            InputError: one is missing.
        """
        if self.fixed is None or self.moving is None:
            raise InputError(
                f"{path}: {kind} needs the geometry of both images.", hint="Pass --fixed IMAGE and --moving IMAGE."
            )
        return self.fixed, self.moving


NOWHERE = Spaces()


def read_transform(path: str | Path, *, kind: str | None = None, spaces: Spaces = NOWHERE) -> Transform:
    """A transform from a file: fixed mm → moving mm, RAS+.

    Args:
        path: an ITK file (.h5, .tfm, .txt, .mat), an ITK or ANTs displacement image, a FLIRT matrix, an FNIRT field, a
            FreeSurfer .lta, an X5 file or a Learn2Reg field. `0GenericAffine.mat` and `1Warp.nii.gz` are two transforms.
        kind: the format, where the file does not tell.
        spaces: of the two images; FLIRT, FNIRT and Learn2Reg files mean nothing without them.

    Raises:
        InputError: missing, of no known kind, not finite, singular, or in need of `spaces`.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: {'is a folder, not' if path.is_dir() else 'no such file:'} a transform.")
    kind = kind or detect(path)
    try:
        return FORMATS[kind].read(path, spaces)
    except InputError as error:
        message = error.message if str(path) in error.message else f"{path}: {error.message}"
        raise InputError(message, hint=error.hint) from None


def write_transform(path: str | Path, transform: Transform, *, kind: str | None = None, spaces: Spaces = NOWHERE) -> None:
    """Write a transform as this kind of file, by default the kind of its suffix.

    Raises:
        InputError: the format cannot hold it, or needs `spaces`.
    """
    path = Path(path)
    FORMATS[kind or kind_by_name(path)].write(path, transform, spaces)


def kind_by_name(path: Path) -> str:
    """The format to write under a name.

    Raises:
        InputError: no format has that suffix.
    """
    name = path.name.lower()
    for kind, row in ((kind, FORMATS[kind]) for kind in ("itk", "displacement", "lta", "x5")):
        if name.endswith(row.suffixes):
            return kind
    raise InputError(f"{path}: not a transform file name.", hint=f"Known: {', '.join(SUFFIXES)}.")


def detect(path: Path) -> str:
    """The format of a file, by its content where names are shared.

    Raises:
        InputError: it is of no known format, or could be of several.
    """
    name = path.name.lower()
    if not name.endswith(SUFFIXES):
        raise InputError(f"{path}: not a transform file name.", hint=f"Known: {', '.join(SUFFIXES)}.")
    if name.endswith((".nii", ".nii.gz")):
        from warpwise.io.transforms.dense import kind_of_field  # noqa: PLC0415 - it is built of what stands here

        return kind_of_field(path)
    if name.endswith((".lta", ".x5")):
        return name.rsplit(".", 1)[1]
    with path.open("rb") as file:
        start = file.read(4096)
    if not start:
        raise InputError(f"{path}: the file is empty.")
    if name.endswith((".mat", ".txt", ".xfm")) and not start.startswith(b"#") and is_matrix(start):
        return "flirt"
    return "itk"


def is_matrix(start: bytes) -> bool:
    """Whether a file begins with rows of four numbers, as FLIRT writes them."""
    try:
        rows = [line.split() for line in start.decode("ascii").splitlines() if line.strip()]
        return len(rows) == 4 and all(len([float(word) for word in row]) == 4 for row in rows)
    except (UnicodeDecodeError, ValueError):
        return False
