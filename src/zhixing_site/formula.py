"""Turn TeX into MathML that stands in Markdown unharmed."""

from functools import cache

from math_core import LatexError, LatexToMathML

# What Markdown would read as its own in a formula's text or TeX.
MARKDOWN = str.maketrans({character: f"&#{ord(character)};" for character in "\\*_`[]{}|~^$#!:"} | {"\n": " "})

CONVERTER = LatexToMathML(annotation=True, fancy_error=False)


@cache
def to_html(tex: str, block: bool) -> str:
    """A `<span>` with MathML, the TeX kept as its annotation; raises ValueError that says what does not parse."""
    try:
        mathml = CONVERTER.convert_with_local_state(tex.strip(), displaystyle=block)
    except LatexError as error:
        position, _, cause = str(error).partition(": ")
        raise ValueError(f"the formula does not parse at character {position}: {cause} ({tex.strip()})") from error
    kind = "formula formula-block" if block else "formula"
    joiner = "" if block else "&#8288;"  # keeps a comma or full stop on the formula's line
    return f'<span class="{kind}">{mathml.translate(MARKDOWN)}{joiner}</span>'
