"""Tensors by shape, as `warpwise.shapes` has arrays: b items, c channels, d axes of space."""

from typing import Annotated

from torch import Tensor

Image = Annotated[Tensor, "b c *space"]
Elsewhere = Annotated[Tensor, "b c *elsewhere"]
"""An image on a grid of its own."""

Displacement = Annotated[Tensor, "b d *space"]
Map = Annotated[Tensor, "b *space"]
Weight = Annotated[Tensor, "#b #c *space"]
"""Of voxels, for all items or channels where there is one."""

Labels = Annotated[Tensor, "b k *space"]
PerItem = Annotated[Tensor, "b"]
PerChannel = Annotated[Tensor, "b c"]
Matrices = Annotated[Tensor, "b d d *space"]
"""One a voxel."""
