"""The hot path: operators on tensors, a reference and kernels for each; `functions` lists them.

Names resolve on use, so that solvers, which call the CPU kernels on NumPy arrays, never import torch.
"""

from typing import Any

from warpwise.extras import imported

_NAMES = (
    "warp", "warp_with_gradient", "compose", "exponential", "inverse", "gaussian", "box", "pyramid", "lncc", "ncc",
    "mse", "mutual_information", "mind_ssc", "cost_volume", "symmetric_kl",
    "diffusion", "bending", "jacobian_determinant", "digital_determinants",
)  # fmt: skip
_MATCHING = ("match", "match_deviation")


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(imported("warpwise.ops.functions"), name)
    if name in _MATCHING:
        return getattr(imported("warpwise.ops.matching"), name)
    raise AttributeError(name)


def __dir__() -> list[str]:
    return [*_NAMES, *_MATCHING]
