"""The kernels of each operator: one class with `forward`, and `backward` where a kernel has the derivative.

They take float32 arrays of the tensors' shapes, (B, C, *space) or (B, D, *space), in the order of the reference's tensors,
and its options by name. `forward` returns the value and what `backward` wants to keep (or None). `backward` is also told
the gradient by the value, what was kept, and which inputs need a gradient; it names what it uses, and returns a gradient
(or None) for each input. A plane is computed as one slice (X, 1, Y), so that rows stay long.
"""

from warpwise.ops.cpu.bridges.features import CostVolume
from warpwise.ops.cpu.bridges.fields import Inverse, JacobianDeterminant
from warpwise.ops.cpu.bridges.filters import Box, Gaussian
from warpwise.ops.cpu.bridges.matching import Curved, MatchGradient, NormalField, NormalSolve
from warpwise.ops.cpu.bridges.sampling import Warp, WarpWithGradient
from warpwise.ops.cpu.bridges.similarity import LNCC, MSE, NCC, MutualInformation, SymmetricKL

__all__ = [
    "LNCC",
    "MSE",
    "NCC",
    "Box",
    "CostVolume",
    "Curved",
    "Gaussian",
    "Inverse",
    "JacobianDeterminant",
    "MatchGradient",
    "MutualInformation",
    "NormalField",
    "NormalSolve",
    "SymmetricKL",
    "Warp",
    "WarpWithGradient",
]
