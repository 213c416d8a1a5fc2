"""Networks that come with the package, a folder each."""

from pathlib import Path

CARD = "model.json"
PLACES = ("", "best", "last")
"""Where a model's card lies in its folder, or in that of a training run."""


def holds_model(folder: Path) -> bool:
    """Whether a folder is that of a model or of a training run."""
    return any((folder / place / CARD).is_file() for place in PLACES)


def installed() -> dict[str, Path]:
    """Their folders by name; nothing of them is read."""
    return {folder.name: folder for folder in sorted(Path(__file__).parent.glob("*")) if (folder / CARD).is_file()}
