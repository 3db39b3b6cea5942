"""Draw a live matplotlib figure as SVG, in both languages and both colour schemes."""

import io
import re
import tomllib
from functools import cache
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
from matplotlib import font_manager
from matplotlib.text import Text

HERE = Path(__file__).parent
STYLE = HERE / "figure.mplstyle"
NUMBER = re.compile(r"[-+−]?\d[\d,]*(?:\.\d+)?(?:e[-+−]?\d+)?%?")

# Every colour of the style file, and what it becomes on a dark ground.
DARK = {
    "#000000": "#d8dee4",
    "#ffffff": "#1e2129",
    "#24292f": "#d8dee4",  # text, axes
    "#d0d7de": "#444c56",  # grid
    "#0b62b8": "#58a6ff",
    "#c2410c": "#f59e5b",
    "#0f766e": "#2dd4bf",
    "#9333a8": "#d69bf0",
    "#8a6d00": "#e3c341",
    "#6b7280": "#9aa4b2",
}


class UnknownLabel(Exception):
    """Labels that have no Chinese in the catalogue."""


@cache
def house_style() -> None:
    """Make the style and its Chinese font those of every figure drawn in this process."""
    font_manager.fontManager.addfont(HERE / "fonts" / "NotoSansSC-figures.otf")
    matplotlib.rcdefaults()
    plt.switch_backend("svg")
    plt.style.use(STYLE)


def warm_up() -> None:
    """Draw once, which loads the fonts: a tenth of a second in the first drawing of a process."""
    house_style()
    plt.figure().text(0, 0, "知 $x^2$")
    to_svg(plt.gcf())
    plt.close("all")


def translate(label: str, catalogue: dict[str, dict]) -> str:
    """The label in Chinese. Mathematics, numbers and names stay; anything else must be in the catalogue."""
    texts, names = catalogue.get("text", {}), catalogue.get("names", {}).get("keep", [])
    if label in texts or label in texts.values():
        return texts.get(label, label)
    numbers = NUMBER.findall(label)
    pattern = NUMBER.sub("{}", label)
    if numbers and pattern in texts:
        return texts[pattern].format(*numbers)
    rest = re.sub(r"\$[^$]*\$", "", label)
    for name in sorted(names, key=len, reverse=True):
        rest = rest.replace(name, "")
    if any(character.isalpha() for character in NUMBER.sub("", rest)):
        raise UnknownLabel(label)
    return label


def _read_catalogue(root: Path, path: str) -> dict[str, dict]:
    """Opens the file even if there is none, so that the run records that it was absent."""
    try:
        return tomllib.loads((root / path).read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def draw(figure, snippet: str, root: Path) -> dict[str, str]:
    """{'en-light': svg, 'en-dark': …, 'zh-light': …, 'zh-dark': …}

    The file beside the snippet has the labels in Chinese; raises UnknownLabel with those that it lacks.
    """
    path = snippet.removesuffix(".py") + ".toml"
    catalogue, unknown = _read_catalogue(root, path), []
    english = to_svg(figure)
    get_text = Text.get_text

    def chinese_text(self: Text) -> str:
        try:
            return translate(get_text(self), catalogue)
        except UnknownLabel as error:
            unknown.append(repr(str(error)))
            return ""

    # Tick labels are made while the figure is drawn, so the text is translated where it is read.
    Text.get_text = chinese_text
    try:
        chinese = to_svg(figure)
    finally:
        Text.get_text = get_text
    if unknown:
        raise UnknownLabel(f"no Chinese in {path}, below [text] or [names], for {', '.join(dict.fromkeys(unknown))}")
    return {
        "en-light": english,
        "en-dark": _darken(english),
        "zh-light": chinese,
        "zh-dark": _darken(chinese),
    }


def to_svg(figure) -> str:
    """The figure with transparent ground; the same bytes for the same figure."""
    buffer = io.StringIO()
    no_metadata = dict.fromkeys(["Creator", "Date", "Format", "Type"])
    figure.savefig(buffer, format="svg", transparent=True, metadata=no_metadata)
    # matplotlib does not write black as a fill; written out, it can be replaced like any other colour.
    return buffer.getvalue().replace("<svg ", '<svg fill="#000000" ', 1)


def _darken(svg: str) -> str:
    return re.sub("|".join(DARK), lambda colour: DARK[colour[0]], svg)
