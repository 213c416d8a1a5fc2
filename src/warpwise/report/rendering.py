"""What all pages are made of: a template, one style sheet, and pictures inside the file."""

import base64
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure

from warpwise import __version__
from warpwise.report.figures import drawn

TEMPLATES = files("warpwise.report") / "templates"
MEDIA = {"svg": "image/svg+xml", "png": "image/png"}


def text_of(name: str) -> str:
    """A file among the templates."""
    return (TEMPLATES / name).read_text(encoding="utf-8")


def rendered(template: str, **values: Any) -> str:
    """A page as text: a template with these values, the style sheet and the version."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(text_of(template)).render(css=text_of("report.css"), version=__version__, **values)


def address(name: str, figure: Figure, kind: str) -> str:
    """A figure, svg or png, as an address that holds all of it."""
    return f"data:{MEDIA[kind]};base64,{base64.b64encode(drawn(name, figure, kind)).decode('ascii')}"
