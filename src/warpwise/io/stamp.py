"""A short name for what is made of files, which changes with them."""

import hashlib
import json
from pathlib import Path

VERSION = 2  # of what is kept on disk: another one is made anew


def stamp(*files: Path, **options: object) -> str:
    """A short name for files in their present state under these options.

    Raises:
        OSError: a file is not there.
    """
    facts = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    text = json.dumps([VERSION, facts, options], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:20]
