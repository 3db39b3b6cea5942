"""Draw the card of a page, which other sites show with a link to it: title, figure, logo. It uses no installed font."""

import re
from functools import cache
from importlib.metadata import version
from pathlib import Path

import resvg_py
from fontTools.ttLib import TTFont

from zhixing_copy.standalone import digest
from zhixing_site import store
from zhixing_site.project import file_digest
from zhixing_site.templates import render

CACHE = Path(".cache/cards")
WIDTH, HEIGHT, PANEL, MARGIN, TOP = 1200, 630, 520, 56, 130
FONT = Path(__file__).parents[1] / "execution/fonts/NotoSansSC-figures.otf"
SIZES = 64, 56, 48, 42, 36  # of titles
LEADING = 1.3
# A line may end after a Chinese character with the punctuation that must not begin the next line, else after a word.
WORD = re.compile(r"[\u2e80-\u9fff][，。：；！？、）》」]*|[^\s\u2e80-\u9fff]+\s*|\s+")


def card(title: str, name: str, logo: str, figure: str = "") -> str:
    """The card as SVG, from the page's title, the site's name and two drawings; without a figure, a large logo.

    Raises ValueError for a title that is too long and for a character that the font lacks.
    """
    size, lines = _fit(title, PANEL - 2 * MARGIN, HEIGHT - TOP - MARGIN)
    _width(name, 1)  # raises for its characters
    leading, right = LEADING * size, WIDTH - PANEL
    baseline = (TOP + HEIGHT - MARGIN - leading * len(lines)) / 2 + size
    if figure:
        picture = _place(figure, PANEL + 30, 30, right - 60, HEIGHT - 60)
    else:
        picture = _place(logo, PANEL + right / 2 - 130, HEIGHT / 2 - 130, 260, 260)
    layout = {"width": WIDTH, "height": HEIGHT, "panel": PANEL, "margin": MARGIN}
    text = {"name": name, "lines": lines, "size": size, "leading": leading, "baseline": baseline}
    return render("card.svg", picture=picture, logo=_place(logo, MARGIN, 60, 52, 52), **layout, **text)


def png(svg: str) -> bytes:
    return resvg_py.svg_to_bytes(svg_string=svg, width=WIDTH, font_files=[str(FONT)], skip_system_fonts=True)


def cached_png(svg: str, root: Path) -> bytes:
    """The card as PNG, drawn only if it differs from all earlier ones."""
    path = root / CACHE / digest("".join([svg, version("resvg_py"), file_digest(FONT)]))
    content = store.load(path)
    if content is None:
        content = png(svg)
        store.save(path, content)
    return content


def _place(drawing: str, x: float, y: float, width: float, height: float) -> str:
    """A drawing with a viewBox, scaled to fit this rectangle and centred in it."""
    head, rest = re.search(r"<svg ([^>]*)>(.*)", drawing, re.DOTALL).groups()
    head = re.sub(r'\b(width|height)="[^"]*"', "", head)
    return f'<svg x="{x}" y="{y}" width="{width}" height="{height}" {head}>{rest}'


def _fit(title: str, width: float, height: float) -> tuple[int, list[str]]:
    """The largest size at which the title fits, and its lines; rather one at which the last line is not short."""
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
    if missing := [character for character in text if character not in widths]:
        raise ValueError(f"the font of cards and figures lacks {' '.join(missing)}: see {FONT.parent.name}/README.md")
    return size * sum(map(widths.get, text))


@cache
def _widths() -> dict[str, float]:
    """{character: its width at size 1}"""
    with TTFont(FONT, lazy=True) as font:
        unit, advances = font["head"].unitsPerEm, font["hmtx"].metrics
        return {chr(code): advances[glyph][0] / unit for code, glyph in font.getBestCmap().items()}
