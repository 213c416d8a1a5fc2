"""Presets: settings of the solvers, measured on training subjects (benchmarks/presets.md)."""

from warpwise.errors import InputError
from warpwise.registrars.affine import AffineSettings
from warpwise.registrars.descent import DescentSettings, LevelSettings
from warpwise.settings import Settings


class Preset(Settings):
    """Settings of both stages."""

    affine: AffineSettings
    deformable: DescentSettings


_COARSE = LevelSettings(image=2, field=2, iterations=20, radius=3)
_MIDDLE = LevelSettings(image=1, field=1, iterations=15, radius=2, step=0.6)
_FINE = LevelSettings(image=0, field=1, iterations=20, radius=4)
_FULL = LevelSettings(image=0, field=0, iterations=15, radius=4)

PRESETS: dict[str, Preset] = {
    "fast": Preset(
        affine=AffineSettings(),
        deformable=DescentSettings(
            levels=(
                _COARSE.replace(iterations=12),
                _MIDDLE.replace(iterations=12, step=0.5),
                _FINE.replace(iterations=6),
            )
        ),
    ),
    "balanced": Preset(
        affine=AffineSettings(),
        deformable=DescentSettings(levels=(_COARSE, _MIDDLE, _FULL.replace(iterations=5, step=0.7))),
    ),
    "accurate": Preset(
        affine=AffineSettings(),
        deformable=DescentSettings(levels=(_COARSE, _MIDDLE, _FINE, _FULL)),
    ),
}


def preset(name: str) -> Preset:
    """The preset of this name.

    Raises:
        InputError: there is none.
    """
    if name not in PRESETS:
        raise InputError(f"Unknown preset {name!r}.", hint=f"Known: {', '.join(PRESETS)}.")
    return PRESETS[name]
