"""Turn TeX into MathML that stands in Markdown unharmed."""

from functools import cache

from math_core import LatexError, LatexToMathML

# What Markdown would read as its own in a formula's text or TeX.
MARKDOWN = str.maketrans({character: f"&#{ord(character)};" for character in "\\*_`[]{}|~^$#!:"} | {"\n": " "})

CONVERTER = LatexToMathML(annotation=True, fancy_error=False)


@cache
def to_html(tex: str, block: bool, stop: str = "") -> str:
    """A `<span>` with MathML, the TeX kept as its annotation, and the punctuation that must not leave its line.

    Raises ValueError that says what does not parse.
    """
    try:
        mathml = CONVERTER.convert_with_local_state(tex.strip(), displaystyle=block)
    except LatexError as error:
        position, _, cause = str(error).partition(": ")
        raise ValueError(f"the formula does not parse at character {position}: {cause} ({tex.strip()})") from error
    kind = "formula formula-block" if block else "formula"
    span = f'<span class="{kind}">{mathml.translate(MARKDOWN)}</span>'
    return f'<span class="formula-line">{span}{stop}</span>' if stop else span
