"""Draw the card that stands for a page where others link to it: title, figure, logo. No font of the machine is used."""

import html
import re
from functools import cache
from pathlib import Path

import resvg_py
from fontTools.ttLib import TTFont

WIDTH, HEIGHT, PANEL, MARGIN, TOP = 1200, 630, 520, 56, 130
FONT = Path(__file__).parents[1] / "execution/fonts/NotoSansSC-figures.otf"
SIZES = 64, 56, 48, 42, 36  # of titles
LEADING = 1.3
# What a line may end after: a Chinese character with the punctuation that must not begin the next, else a word.
WORD = re.compile(r"[\u2e80-\u9fff][，。：；！？、）》」]*|[^\s\u2e80-\u9fff]+\s*|\s+")

CARD = """\
<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 {WIDTH} {HEIGHT}">
<rect width="100%" height="100%" fill="#ffffff"/>
<rect width="{PANEL}" height="100%" fill="#12395c"/>
{figure}
{logo}
<g font-family="Noto Sans CJK SC" fill="#ffffff">
<text x="128" y="97" font-size="30">{name}</text>
{title}
</g>
</svg>
"""


def card(title: str, name: str, logo: str, figure: str = "") -> str:
    """The card as SVG, from the page's title, the site's name, and drawings; raises ValueError for a strange character.

    Without a figure the logo has its place.
    """
    size, lines = _fit(title, PANEL - 2 * MARGIN, HEIGHT - TOP - MARGIN)
    _width(name, 1)  # for its characters
    first = (TOP + HEIGHT - MARGIN - LEADING * size * len(lines)) / 2 + size
    texts = [
        f'<text x="{MARGIN}" y="{first + LEADING * size * number:.0f}" font-size="{size}">{html.escape(line)}</text>'
        for number, line in enumerate(lines)
    ]
    right = WIDTH - PANEL
    return CARD.format(
        **globals(),
        figure=_place(figure, PANEL + 30, 30, right - 60, HEIGHT - 60)
        if figure
        else _place(logo, PANEL + right / 2 - 130, HEIGHT / 2 - 130, 260, 260),
        logo=_place(logo, MARGIN, 60, 52, 52),
        name=html.escape(name),
        title="\n".join(texts),
    )


def png(svg: str) -> bytes:
    return resvg_py.svg_to_bytes(svg_string=svg, width=WIDTH, font_files=[str(FONT)], skip_system_fonts=True)


def _place(drawing: str, x: float, y: float, width: float, height: float) -> str:
    """A drawing with a viewBox, as large as the place allows, in its middle."""
    head, rest = re.search(r"<svg ([^>]*)>(.*)", drawing, re.DOTALL).groups()
    head = re.sub(r'\b(width|height)="[^"]*"', "", head)
    return f'<svg x="{x}" y="{y}" width="{width}" height="{height}" {head}>{rest}'


def _fit(title: str, width: float, height: float) -> tuple[int, list[str]]:
    """The largest size at which the title fits, and its lines; rather one at which the last is no mere rest."""
    fitting = []
    for size in SIZES:
        lines = _lines(title, width, size)
        widths = [_width(line, size) for line in lines]
        if max(widths) <= width and LEADING * size * len(lines) <= height:
            if widths[-1] >= max(widths) / 2:
                return size, lines
            fitting.append((size, lines))
    if not fitting:
        raise ValueError(f"the title is too long for a card: {title}")
    return fitting[0]


def _lines(title: str, width: float, size: int) -> list[str]:
    lines = [""]
    for word in WORD.findall(title):
        if lines[-1] and _width((lines[-1] + word).rstrip(), size) > width:
            lines.append("")
        lines[-1] += word
    return [line.strip() for line in lines]


def _width(text: str, size: float) -> float:
    widths = _widths()
    if strange := [character for character in text if character not in widths]:
        raise ValueError(f"the font of cards and figures lacks {' '.join(strange)}: see {FONT.parent.name}/README.md")
    return size * sum(map(widths.get, text))


@cache
def _widths() -> dict[str, float]:
    """{character: its width at size 1}"""
    with TTFont(FONT, lazy=True) as font:
        unit, advances = font["head"].unitsPerEm, font["hmtx"].metrics
        return {chr(code): advances[glyph][0] / unit for code, glyph in font.getBestCmap().items()}
