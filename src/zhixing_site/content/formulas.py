"""Convert TeX to MathML, escaped so that Markdown leaves it unchanged."""

import re
import tomllib
from functools import cache
from pathlib import Path

from math_core import LatexError, LatexToMathML

# Characters that Markdown would interpret in the text or TeX of a formula, as HTML entities.
MARKDOWN = str.maketrans({character: f"&#{ord(character)};" for character in "\\*_`[]{}|~^$#!:"} | {"\n": " "})

# The pages' policy forbids inline styles, which become classes.
CLASSES = tomllib.loads(Path(__file__).with_name("formula_styles.toml").read_text())

CONVERTER = LatexToMathML(annotation=True, fancy_error=False)


@cache
def to_html(tex: str, block: bool, stop: str = "") -> str:
    """A `<span>` with MathML, the TeX as its annotation, and the punctuation after it, which must stay on its line.

    Raises ValueError if the formula does not parse.
    """
    try:
        mathml = CONVERTER.convert_with_local_state(tex.strip(), displaystyle=block)
    except LatexError as error:
        position, _, cause = str(error).partition(": ")
        raise ValueError(f"the formula does not parse at character {position}: {cause} ({tex.strip()})") from error
    mathml = re.sub(r' style="([^"]*)"', lambda style: _classes(style[1]), mathml)
    kind = "formula formula-block" if block else "formula"
    span = f'<span class="{kind}">{mathml.translate(MARKDOWN)}</span>'
    return f'<span class="formula-line">{span}{stop}</span>' if stop else span


def _classes(style: str) -> str:
    try:
        names = [CLASSES[declaration.strip()] for declaration in style.split(";") if declaration.strip()]
    except KeyError as error:
        raise ValueError(f"the formula needs the style {error}, which pages must not contain") from None
    return f' class="{" ".join(filter(None, names))}"'
