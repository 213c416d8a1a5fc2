"""Presets: settings of the solvers, measured on training subjects (benchmarks/presets.md)."""

from warpwise.errors import InputError
from warpwise.registrars.affine import AffineSettings
from warpwise.registrars.descent import DescentSettings, LevelSettings
from warpwise.settings import Settings


class Preset(Settings):
    """Settings of both stages."""

    affine: AffineSettings
    deformable: DescentSettings


PRESETS: dict[str, Preset] = {
    "fast": Preset(
        affine=AffineSettings(),
        deformable=DescentSettings(
            levels=(
                LevelSettings(image=2, field=2, iterations=20, step=0.35),
                LevelSettings(image=1, field=1, iterations=20, step=0.5),
                LevelSettings(image=0, field=1, iterations=6, step=0.5),
            )
        ),
    ),
    "balanced": Preset(
        affine=AffineSettings(),
        deformable=DescentSettings(
            levels=(
                LevelSettings(image=2, field=2, iterations=20, step=0.35),
                LevelSettings(image=1, field=1, iterations=40, step=0.35),
                LevelSettings(image=0, field=1, iterations=20, step=0.5),
            )
        ),
    ),
    "accurate": Preset(
        affine=AffineSettings(),
        deformable=DescentSettings(
            levels=(
                LevelSettings(image=2, field=2, iterations=40, step=0.35),
                LevelSettings(image=1, field=1, iterations=60, step=0.35),
                LevelSettings(image=0, field=1, iterations=60, step=0.5),
            )
        ),
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
