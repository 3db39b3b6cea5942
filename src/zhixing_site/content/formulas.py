"""Convert TeX to MathML, escaped so that Markdown leaves it unchanged."""

import re
import tomllib
from contextlib import suppress
from functools import cache
from pathlib import Path

from math_core import LatexError, LatexToMathML

# Characters that Markdown would interpret in the text or TeX of a formula, as HTML entities.
MARKDOWN = str.maketrans({character: f"&#{ord(character)};" for character in "\\*_`[]{}|~^$#!:"} | {"\n": " "})

# The pages' policy forbids inline styles, which become classes.
CLASSES = tomllib.loads(Path(__file__).with_name("formula_styles.toml").read_text())

POWER = re.compile(r"(?<=\d)e(?:\+|(-))0*(\d+)$")
DIGITS = re.compile(r"[-+]?\d[\d.,_]*%?")
WANTS_ARGUMENT = re.compile(r"([\^_}\]]|\\[A-Za-z]+(\s*\w)?)\s*$")

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
    mathml = re.sub(r' style="([^"]*)"', lambda style: _classes(style[1], tex, block), mathml)
    kind = "formula formula-block" if block else "formula"
    span = f'<span class="{kind}">{mathml.translate(MARKDOWN)}</span>'
    return f'<span class="formula-line">{span}{stop}</span>' if stop else span


def value_tex(value: str, before: str) -> str:
    """A formatted value as TeX: 4.7e-04 is 4.7\\times10^{-4}, and where `before` wants an argument, 12 is {12}."""
    power = POWER.search(value)
    value = value[: power.start()] if power else value
    if DIGITS.fullmatch(value):  # with separators, which TeX would take for a subscript or for the end of a number
        value = value.replace("_", r"\_").replace(",", "{,}")
    value += rf"\times10^{{{power[1] or ''}{power[2]}}}" if power else ""
    return f"{{{value}}}" if len(value) > 1 and WANTS_ARGUMENT.search(before) else value


def _classes(style: str, tex: str, block: bool) -> str:
    try:
        names = [CLASSES[declaration] for declaration in _declarations(style)]
    except KeyError as error:
        cause = f"{_command_with(style, tex, block)} needs the style {error}, which pages must not contain"
        raise ValueError(f"{cause}; write the formula without it ({tex.strip()})") from None
    return f' class="{" ".join(filter(None, names))}"'


def _declarations(style: str) -> list[str]:
    return [re.sub(r"\s*:\s*", ":", declaration.strip()) for declaration in style.split(";") if declaration.strip()]


def _command_with(style: str, tex: str, block: bool) -> str:
    """The first command of the formula without which it does not have the style."""
    for command in re.finditer(r"\\([A-Za-z]+|.)", tex):
        with suppress(LatexError):
            rest = f"{tex[: command.start()]} {tex[command.end() :]}"
            if style not in CONVERTER.convert_with_local_state(rest.strip(), displaystyle=block):
                return f"`{command[0]}`"
    return "the formula"
