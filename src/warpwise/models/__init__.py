"""Networks that come with the package, a folder each."""

from pathlib import Path


def installed() -> dict[str, Path]:
    """Their folders by name; nothing of them is read."""
    return {folder.name: folder for folder in sorted(Path(__file__).parent.glob("*")) if (folder / "model.json").is_file()}
