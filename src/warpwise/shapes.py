"""Arrays by type and shape. Tests enforce the shapes (tests/enforcement.py); axes of one name in a signature are equal."""

from typing import Annotated

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
"""Of any shape."""

Points = NDArray[np.float64]
"""(n, dim) or (..., dim), mm or voxels as is said."""

Triple = tuple[int, int, int]

Channels = Annotated[NDArray[np.float32], "c x y z"]
"""An image's channels."""

ChannelsElsewhere = Annotated[NDArray[np.float32], "c p q r"]
"""Channels on another grid than what is named beside them."""

Codes = Annotated[NDArray[np.float32], "k x y z"]
"""Labels as channels that may be interpolated."""

Map = Annotated[NDArray[np.float32], "x y z"]
"""One number a voxel."""

Map1 = Annotated[NDArray[np.float32], "1 x y z"]
"""The same as a channel."""

MapElsewhere = Annotated[NDArray[np.float32], "p q r"]

LabelMap = Annotated[NDArray[np.int16], "x y z"]

VectorField = Annotated[NDArray[np.float32], "3 x y z"]
"""A vector a node or voxel, in voxels."""

VectorFieldElsewhere = Annotated[NDArray[np.float32], "3 p q r"]

Nodes = Annotated[NDArray[np.int64], "n 3"]
"""Indices."""

Matrix = Annotated[NDArray[np.float64], "n n"]
"""Homogeneous, (dim + 1, dim + 1)."""

Matrix4 = Annotated[NDArray[np.float64], "4 4"]

Normal = tuple[Annotated[NDArray[np.float64], "p"], Annotated[NDArray[np.float64], "p p"]]
"""Gradient and Hessian of a Gauss-Newton step."""

NormalAffine = tuple[Annotated[NDArray[np.float64], "3 4"], Annotated[NDArray[np.float64], "12 12"]]
"""The same by the entries of an affine's matrix."""

VoxelPoints = Annotated[NDArray[np.float64], "n 3"]

Shares = Annotated[NDArray[np.float32], "c"]
"""One number a channel."""
