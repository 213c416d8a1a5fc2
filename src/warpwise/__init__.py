"""warpwise aligns medical images by smooth, invertible deformations, and learns how to do so.

Example:
    >>> import warpwise as ww
    >>> pair = ww.brain_pair((32, 38, 30), seed=1)
    >>> result = ww.register(pair.fixed, pair.moving, method="fast")
    >>> result.certificate.percent_ndv
    0.0
"""

from typing import TYPE_CHECKING, Any

from warpwise.errors import InputError, RunError, WarpwiseError
from warpwise.extras import imported

__version__ = "0.1.0"

# Where public names live; each is imported when first used, so that `import warpwise` costs nothing.
_LAZY = {
    "Grid": "warpwise.grid",
    "Image": "warpwise.image",
    "Method": "warpwise.methods",
    "Model": "warpwise.networks.model",
    "Result": "warpwise.registration.result",
    "Scan": "warpwise.io.scan",
    "apply": "warpwise.registration.apply",
    "brain_pair": "warpwise.synthetic.phantoms",
    "evaluate": "warpwise.evaluation.metrics",
    "load_image": "warpwise.io.images",
    "load_points": "warpwise.io.points",
    "load_transform": "warpwise.io.transforms",
    "models": "warpwise.networks.model",
    "register": "warpwise.registration.register",
    "save_image": "warpwise.io.images",
    "save_points": "warpwise.io.points",
    "save_transform": "warpwise.io.transforms",
    "set_threads": "warpwise.ops.runtime",
}
_RENAMED = {
    "apply": "apply_transform",
    "load_image": "read_image",
    "load_points": "read_points",
    "load_transform": "read_transform",
    "models": "cards",
    "save_image": "write_image",
    "save_points": "write_points",
    "save_transform": "write_transform",
}

if TYPE_CHECKING:
    from warpwise.evaluation.metrics import evaluate
    from warpwise.grid import Grid
    from warpwise.image import Image
    from warpwise.io.images import read_image as load_image
    from warpwise.io.images import write_image as save_image
    from warpwise.io.points import read_points as load_points
    from warpwise.io.points import write_points as save_points
    from warpwise.io.scan import Scan
    from warpwise.io.transforms import read_transform as load_transform
    from warpwise.io.transforms import write_transform as save_transform
    from warpwise.methods import Method
    from warpwise.networks.model import Model
    from warpwise.networks.model import cards as models
    from warpwise.ops.runtime import set_threads
    from warpwise.registration.apply import apply_transform as apply
    from warpwise.registration.register import register
    from warpwise.registration.result import Result
    from warpwise.synthetic.phantoms import brain_pair

__all__ = [
    "Grid", "Image", "InputError", "Method", "Model", "Result", "RunError", "Scan", "WarpwiseError", "apply",
    "brain_pair", "evaluate", "load_image", "load_points", "load_transform", "models", "register", "save_image",
    "save_points", "save_transform", "set_threads",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(imported(_LAZY[name]), _RENAMED.get(name, name))
    raise AttributeError(f"module 'warpwise' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
