"""Registration as tests ask for it: a preset and a few words, as the command line has them."""

from typing import Any

import warpwise as ww
from warpwise.cli.method_options import FLAGS
from warpwise.io.scan import read_both
from warpwise.methods import Method
from warpwise.pair import Pair
from warpwise.registration.prepare import prepare

NEITHER = (None, None)


def method_of(preset: str = "balanced", *, model: Any = None, refine: bool = False, **words: Any) -> Method:
    """A preset or a model, changed by flags of the command line and by paths (`path__to__field=value`)."""
    method = Method.named(preset) if model is None else Method.of_model(model)
    method = method.refined() if refine else method
    for name, value in words.items():
        paths = FLAGS[name].paths(value, method) if name in FLAGS else {name.replace("__", "."): value}
        method = method.changed(paths)
    return method


def register(
    fixed: Any,
    moving: Any,
    *,
    masks: Any = NEITHER,
    exclude: Any = NEITHER,
    labels: Any = NEITHER,
    landmarks: Any = NEITHER,
    initial: Any = None,
    on_step: Any = None,
    **words: Any,
) -> ww.Result:
    """Two images with what belongs to them, fixed first."""
    scans = [
        ww.Scan(image=image, mask=mask, exclude=lesion, labels=map_, landmarks=points, name=name)
        for image, mask, lesion, map_, points, name in zip(
            (fixed, moving), masks, exclude, labels, landmarks, ("fixed", "moving"), strict=True
        )
    ]
    more = {} if on_step is None else {"on_step": on_step}
    return ww.register(*scans, method=method_of(**words), initial=initial, **more)


def prepared(fixed: Any, moving: Any, *, reduction: int = 1, landmarks: Any = NEITHER, **words: Any) -> Pair:
    """The pair that solvers see of two images."""
    scans = [ww.Scan(image=image, landmarks=points) for image, points in zip((fixed, moving), landmarks, strict=True)]
    method = method_of(**words)
    return prepare(read_both(*scans), method.images, method.terms(), reduction=reduction).pair
