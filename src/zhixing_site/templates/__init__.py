"""Jinja templates of the HTML in pages and of other files, and the words of both languages that they contain."""

import tomllib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

WORDS = tomllib.loads((Path(__file__).parent / "words.toml").read_text())  # {language: {key: text}}
ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=select_autoescape(["html", "svg", "xml"]),
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=StrictUndefined,
)


def render(template: str, **values: object) -> str:
    """The template filled in; in HTML, SVG and XML, text is escaped unless it is marked `safe`."""
    return ENVIRONMENT.get_template(template).render(values)
