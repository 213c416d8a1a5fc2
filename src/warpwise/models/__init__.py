"""Networks that come with the package, a folder each."""

from pathlib import Path
from typing import Any

CARD = "model.json"
PLACES = ("", "best", "last")
"""Where a model's card lies in its folder, or in that of a training run."""


def holds_model(folder: Path) -> bool:
    """Whether a folder is that of a model or of a training run."""
    return any((folder / place / CARD).is_file() for place in PLACES)


def installed() -> dict[str, Path]:
    """Their folders by name; nothing of them is read."""
    return {folder.name: folder for folder in sorted(Path(__file__).parent.glob("*")) if (folder / CARD).is_file()}


def written(model: Any) -> str:
    """What a model is called where it is written down: an installed one by its name, else by a path that holds anywhere."""
    if not isinstance(model, str | Path) and model.path is None:
        return f"{model.card.name or 'a model'} (in memory)"
    word = model if isinstance(model, str | Path) else model.path
    known = installed()
    if str(word) in known or not Path(word).exists():
        return str(word)
    place = Path(word).absolute()
    return next((name for name, folder in known.items() if folder == place), str(place))
