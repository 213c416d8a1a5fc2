"""Presets: methods chosen on four pairs of training subjects of oasis-mals (docs/performance.md)."""

from warpwise.methods.method import Cautious, Method
from warpwise.registrars.deformable.descent import Greedy
from warpwise.registrars.deformable.work import DescentSettings, ScaleSettings
from warpwise.registrars.linear.affine import LinearSettings
from warpwise.regularizers.gaussian import Gaussian

_COARSE = ScaleSettings(image=2, field=2, iterations=20, radius=3)
_MIDDLE = ScaleSettings(image=1, field=1, iterations=15, radius=2, step=0.6)
_FINE = ScaleSettings(image=0, field=1, iterations=20, radius=4)
_FULL = ScaleSettings(image=0, field=0, iterations=15, radius=4)


def _cautious(half: int, full: int) -> Cautious:
    scales = (
        ScaleSettings(image=1, field=2, iterations=half, radius=3, step=0.3),
        ScaleSettings(image=0, field=1, iterations=full, radius=4, step=0.3),
    )
    return Cautious(descent=DescentSettings(scales=scales), smoothness=Gaussian(update_sigma=2.0, field_sigma=1.5))


def fast() -> Method:
    """The field on every second voxel, few iterations."""
    scales = (_COARSE.replace(iterations=12), _MIDDLE.replace(iterations=12, step=0.5), _FINE.replace(iterations=6))
    return Method(registrar=Greedy(scales=scales), cautious=_cautious(8, 5))


def balanced() -> Method:
    """A few iterations on every voxel."""
    scales = (_COARSE, _MIDDLE, _FULL.replace(iterations=5, step=0.7))
    return Method(registrar=Greedy(scales=scales), cautious=_cautious(15, 10))


def accurate() -> Method:
    """More of them, and one scale more."""
    return Method(registrar=Greedy(scales=(_COARSE, _MIDDLE, _FINE, _FULL)), cautious=_cautious(30, 20))


def affine() -> Method:
    """The affine stage alone."""
    return Method()


def rigid() -> Method:
    """The rigid stage alone: one subject, nothing bent."""
    return Method(linear=LinearSettings(transform="rigid"))
