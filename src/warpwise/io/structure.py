"""The bones of a file, looked at before a C++ reader sees it: sizes that lie make ITK take memory, or crash."""

import struct
from pathlib import Path

from warpwise.errors import InputError

_HEAD = 1 << 16  # bytes in which a text header must end
_PNG = b"\x89PNG\r\n\x1a\n"
_MATLAB_BYTES = {0: 8, 1: 4, 2: 4, 3: 2, 4: 2, 5: 1}
_COUNTS = ("ndims", "dimsize", "elementnumberofchannels", "headersize")
_REALS = (
    "elementspacing", "elementsize", "transformmatrix", "rotation", "orientation", "offset", "origin", "position",
    "centerofrotation", "elementmin", "elementmax",
)  # fmt: skip


def check(path: Path) -> None:
    """Refuse a file whose own numbers cannot be true.

    Raises:
        InputError: they are not.
    """
    looks = {".mha": meta_image, ".mhd": meta_image, ".png": png, ".mat": matlab}
    look = looks.get(path.suffix.lower())
    if look is not None:
        try:
            look(path)
        except (ValueError, struct.error) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path}: not a readable {path.suffix[1:].upper()} file ({error}).") from None


def meta_image(path: Path) -> None:
    """The text header of a MetaImage: as many sizes, spacings and origins as it says it has axes, all of them numbers."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    lines = []
    for line in head.split(b"\n"):
        lines.append(line.decode("ascii", "replace"))
        if line.strip().lower().startswith(b"elementdatafile"):
            break
    else:
        raise ValueError("its header does not end")
    fields = {k.strip().lower(): v.strip() for k, v in (line.split("=", 1) for line in lines if "=" in line)}
    axes = int(fields.get("ndims", "x"))
    if not 1 <= axes <= 5:
        raise ValueError(f"{axes} axes")
    for name in fields:
        if name in _COUNTS:
            values = [int(word) for word in fields[name].split()]
            if name == "dimsize" and (len(values) != axes or min(values, default=0) < 1):
                raise ValueError(f"sizes {values} for {axes} axes")
        elif name in _REALS:
            count = len([float(word) for word in fields[name].split()])
            if count not in (1, axes, axes * axes):
                raise ValueError(f"{count} numbers of {name} for {axes} axes")
    if not 1 <= int(fields.get("elementnumberofchannels", "1")) <= 64:
        raise ValueError("its number of channels")
    if any((ord(c) < 32 and c not in "\r\t") or ord(c) > 126 for line in lines for c in line):
        raise ValueError("its header is not text")


def png(path: Path) -> None:
    """The chunks of a PNG: each as long as it says, the first of them the header."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(8) != _PNG:
            raise ValueError("it does not begin as one")
        first = True
        while (at := file.tell()) < size:
            length, kind = struct.unpack(">I4s", file.read(8))
            if at + 12 + length > size:
                raise ValueError(f"truncated: a chunk of {length} bytes at byte {at} of {size}")
            if first and (kind != b"IHDR" or length != 13):
                raise ValueError("it has no header")
            first = False
            file.seek(length + 4, 1)
            if kind == b"IEND":
                return
    raise ValueError("truncated: it does not end")


def matlab(path: Path) -> None:
    """The matrices of a MATLAB 4 file, as ITK and ANTs write `.mat` transforms: their sizes add up to the file's."""
    size = path.stat().st_size
    with path.open("rb") as file:
        while (at := file.tell()) < size:
            kind, rows, columns, imaginary, name = struct.unpack("<5i", file.read(20))
            digits = (kind // 10) % 10
            if not 0 <= kind < 5000 or digits not in _MATLAB_BYTES or imaginary not in (0, 1):
                raise ValueError(f"a matrix of type {kind}")
            if not (0 < rows <= 10_000 and 0 < columns <= 10_000 and 0 < name <= 256):
                raise ValueError(f"a matrix of {rows} × {columns} with a name of {name} letters")
            length = name + rows * columns * _MATLAB_BYTES[digits] * (1 + imaginary)
            if at + 20 + length > size:
                raise ValueError(f"truncated at byte {size} of {at + 20 + length}")
            file.seek(length, 1)
