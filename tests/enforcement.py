"""Shapes in signatures and dataclasses, enforced while tests run: what `warpwise.shapes` and `warpwise.ops.shapes` say.

Names of either module are annotations with a shape in words, which mean nothing at run time. Here they become jaxtyping's,
and whatever is annotated by them is checked by beartype. Kernels are not, and nor are other annotations, many of which
name what is imported for type checkers alone.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import beartype
import jaxtyping
import numpy as np

SOURCE = Path(__file__).parent.parent / "src" / "warpwise"
OUTSIDE = ("ops", "models")
WITHIN_OPS = ("functions", "kernels", "matching", "operation", "reference", "statistics")
REAL = jaxtyping.jaxtyped
CHECKED: set[str] = set()
"""What is checked, by its full name."""


def install() -> None:
    """Have every module that is imported from now on checked."""
    shaped = []
    for name in ("warpwise.shapes", "warpwise.ops.shapes"):
        module = import_module(name)
        for alias, hint in vars(module).items():
            if in_words(hint):
                setattr(module, alias, enforced(hint))
                shaped.append(alias)
    early = [
        name
        for name in sys.modules
        if name.startswith("warpwise.") and not name.startswith(("warpwise.ops", "warpwise.shapes"))
    ]
    assert not set(early) - {"warpwise.errors", "warpwise.extras"}, f"imported before shapes could be enforced: {early}"
    rooms = [path.stem for path in SOURCE.iterdir() if path.suffix in ("", ".py") and path.stem[:1] not in "_."]
    modules = [f"warpwise.{room}" for room in rooms if room not in OUTSIDE]
    # The hook decorates whatever is defined, by this name; most of it has no shapes, and should not pay for them.
    jaxtyping.jaxtyped = jaxtyped
    jaxtyping.install_import_hook([*modules, *(f"warpwise.ops.{name}" for name in WITHIN_OPS)], "enforcement.check")


def jaxtyped(*, typechecker: Any) -> Callable[[Any], Any]:
    """jaxtyping's decorator for what has a shape; what is defined anew at every call is left alone, for speed."""

    def decorate(defined: Any) -> Any:
        inner = "<locals>" in defined.__qualname__
        shaped = any(map(has_shape, getattr(defined, "__annotations__", {}).values()))
        return REAL(typechecker=typechecker)(defined) if shaped and not inner else defined

    return decorate


def in_words(hint: Any) -> bool:
    """Whether an alias is an array with a shape in words, or a tuple of some."""
    return get_origin(hint) is Annotated or (get_origin(hint) is tuple and any(map(in_words, get_args(hint))))


def enforced(hint: Any) -> Any:
    """An annotation with a shape in words as jaxtyping's."""
    if get_origin(hint) is tuple:
        return tuple[*map(enforced, get_args(hint))]
    kind, shape = get_args(hint)
    if not getattr(kind, "__module__", "").startswith("torch"):
        dtype = get_args(get_args(kind)[1])[0]
        by_dtype = {np.float32: jaxtyping.Float32, np.float64: jaxtyping.Float64, np.int16: jaxtyping.Int16}
        return {**by_dtype, np.int64: jaxtyping.Int64}[dtype][np.ndarray, shape]
    return jaxtyping.Float[kind, shape]


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with beartype on what has a shape."""
    shaped = {name: hint for name, hint in getattr(function, "__annotations__", {}).items() if has_shape(hint)}
    if not shaped:
        return function
    CHECKED.add(f"{function.__module__}.{function.__qualname__}")
    function.__annotations__ = shaped
    return beartype.beartype(function)


def has_shape(hint: Any) -> bool:
    """Whether a shape, and nothing that cannot be looked up, is in a hint."""
    if isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    parts = get_args(hint)
    return any(map(has_shape, parts)) and not any(isinstance(part, str) for part in parts)
