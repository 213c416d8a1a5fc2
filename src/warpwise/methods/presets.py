"""Presets: settings of the solvers, measured on training subjects (benchmarks/presets.md)."""

from warpwise.errors import InputError
from warpwise.registrars.deformable.descent import DescentSettings, LevelSettings
from warpwise.registrars.linear.affine import AffineSettings
from warpwise.settings import Settings

_COARSE = LevelSettings(image=2, field=2, iterations=20, radius=3)
_MIDDLE = LevelSettings(image=1, field=1, iterations=15, radius=2, step=0.6)
_FINE = LevelSettings(image=0, field=1, iterations=20, radius=4)
_FULL = LevelSettings(image=0, field=0, iterations=15, radius=4)


class Preset(Settings):
    """Settings of both stages.

    Attributes:
        refining: the deformable stage after a network's prediction.
        cautious: the deformable stage where the images do not show tissue alike (`contrast.agreement`): steps have the
            same length whatever the evidence, so weak evidence gets smooth, short ones.
    """

    affine: AffineSettings
    deformable: DescentSettings
    cautious: DescentSettings
    refining: DescentSettings = DescentSettings(levels=(_MIDDLE.replace(iterations=10), _FINE.replace(iterations=8)))


def _cautious(half: int, full: int) -> DescentSettings:
    return DescentSettings(
        levels=(
            LevelSettings(image=1, field=2, iterations=half, radius=3, step=0.3),
            LevelSettings(image=0, field=1, iterations=full, radius=4, step=0.3),
        ),
        update_sigma=2.0,
        field_sigma=1.5,
    )


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
        cautious=_cautious(8, 5),
    ),
    "balanced": Preset(
        affine=AffineSettings(),
        deformable=DescentSettings(levels=(_COARSE, _MIDDLE, _FULL.replace(iterations=5, step=0.7))),
        cautious=_cautious(15, 10),
    ),
    "accurate": Preset(
        affine=AffineSettings(),
        deformable=DescentSettings(levels=(_COARSE, _MIDDLE, _FINE, _FULL)),
        cautious=_cautious(30, 20),
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
