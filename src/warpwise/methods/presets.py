"""Presets: methods chosen on four pairs of training subjects of oasis-mals (docs/performance.md)."""

from warpwise.methods.method import Cautious, Method, standard_objective
from warpwise.registrars.deformable.descent import Greedy
from warpwise.registrars.deformable.energy import Energy, EnergyScale
from warpwise.registrars.deformable.work import ScaleSettings
from warpwise.registrars.linear.affine import LinearSettings
from warpwise.regularizers.smoothness import Diffusion

# Large ventricles and wide sulci are reached on coarse images: 8 mm where a brain has voxels of 1 mm, and patience.
# Of a heart in voxels of 12 mm too little is left (Dice 0.852 with such a scale, 0.865 without, on training people).
_COARSEST = ScaleSettings(image=3, field=3, iterations=40, largest_mm=11)
_COARSE = ScaleSettings(image=2, field=2, iterations=40)
_MIDDLE = ScaleSettings(image=1, field=1, iterations=15, step=0.6)
_FINE = ScaleSettings(image=0, field=1, iterations=20, radius=4)
_FULL = ScaleSettings(image=0, field=0, iterations=15, radius=4)


_CAUTIOUS = Cautious(
    registrar=Energy(scales=tuple(EnergyScale(image=k, iterations=10) for k in (3, 2, 1))),
    smoothness=Diffusion(weight=2.5),
)


def fast() -> Method:
    """The field on every second voxel, few iterations."""
    coarse = _COARSEST.replace(iterations=25), _COARSE.replace(iterations=25)
    scales = (*coarse, _MIDDLE.replace(iterations=12, step=0.5), _FINE.replace(iterations=6))
    return Method(registrar=Greedy(scales=scales), cautious=_CAUTIOUS)


def balanced() -> Method:
    """A few iterations on every voxel."""
    scales = (_COARSEST, _COARSE, _MIDDLE.replace(iterations=25), _FULL.replace(iterations=5, step=0.7))
    return Method(registrar=Greedy(scales=scales), cautious=_CAUTIOUS)


def accurate() -> Method:
    """More of them, and one scale more."""
    return Method(registrar=Greedy(scales=(_COARSEST, _COARSE, _MIDDLE, _FINE, _FULL)), cautious=_CAUTIOUS)


def affine() -> Method:
    """The affine stage alone."""
    return Method()


def rigid() -> Method:
    """The rigid stage alone: one subject, nothing bent."""
    return Method(linear=LinearSettings(transform="rigid"))


def energy() -> Method:
    """Second-order steps down similarity and diffusion as stated; with cubic sampling, to a stationary point."""
    return Method(registrar=Energy(), objective=standard_objective(term="diffusion", weight=0.1), cautious=_CAUTIOUS)
