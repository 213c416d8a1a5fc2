"""Networks that take a fixed and a moving image on one grid, and say where each voxel goes."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from warpwise.errors import InputError
from warpwise.tables import Table

if TYPE_CHECKING:
    from warpwise.networks.base import NetworkSettings

NETWORKS = Table(
    "network",
    {
        "voxelmorph": "warpwise.networks.unet:VoxelMorphSettings",
        "vm-diff": "warpwise.networks.unet:VMDiffSettings",
        "transmorph": "warpwise.networks.transformer:TransMorphSettings",
        "pyramid": "warpwise.networks.pyramid:PyramidSettings",
        "symmetric": "warpwise.networks.symmetric:SymmetricSettings",
        "features": "warpwise.networks.probabilistic:MatchingSettings",
        "cascade": "warpwise.networks.propagation:CascadeSettings",
        "segmentation": "warpwise.networks.segmentation:SegmentationSettings",
    },
)
"""Name → settings, whose `build(dim=…, channels=…)` makes the network."""


def parse_network(values: Mapping[str, Any] | str) -> "NetworkSettings":
    """Settings of a network from plain data: its name, or a mapping of `kind`, which is its name, and its options.

    Example:
        >>> parse_network({"kind": "pyramid", "hidden": 16}).hidden
        16

    Raises:
        InputError: the network or one of its options is not known, or a value does not fit.
    """
    given = {"kind": values} if isinstance(values, str) else values
    kind = given.get("kind") if isinstance(given, Mapping) else None  # pyright: ignore[reportUnnecessaryIsInstance]
    if not isinstance(kind, str):
        raise InputError(f"A network is named by its kind (got {values!r}).", hint=f"Known: {', '.join(NETWORKS)}.")
    return NETWORKS[kind].parse(given)
