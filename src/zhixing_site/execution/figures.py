"""Draw live matplotlib figures as SVG, in both languages and both colour schemes."""

import io
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text

from zhixing_site.files import decode

MAX_SIZE = 1_000_000  # characters of a drawing, of which a page has two for each of its figures

HERE = Path(__file__).parent
STYLE = HERE / "figure.mplstyle"
NUMBER = re.compile(r"[-+−]?\d[\d,]*(?:\.\d+)?(?:e[-+−]?\d+)?%?")

DARK = tomllib.loads((HERE / "dark.toml").read_text())  # {colour of the style: the same on a dark ground}


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


def translate(label: str, catalogue: dict[str, dict]) -> str | None:
    """The label in Chinese, in which mathematics, numbers and names stay; None if the catalogue lacks anything else."""
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
    return None if any(map(str.isalpha, NUMBER.sub("", rest))) else label


def read_catalogue(path: str, root: Path) -> dict[str, dict]:
    """The labels of figures in Chinese, from this file if there is one; raises ValueError or BuildError."""
    try:  # opens the file even if there is none, so that the run records that it was absent
        catalogue = tomllib.loads(decode((root / path).read_bytes(), path))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    texts, names = catalogue.get("text", {}), catalogue.get("names", {"keep": []})
    kept = names.get("keep") if isinstance(names, dict) else None
    is_valid = isinstance(texts, dict) and isinstance(kept, list) and catalogue.keys() <= {"text", "names"}
    if not is_valid or not all(isinstance(text, str) for text in [*texts.values(), *kept]):
        raise ValueError(f'{path} may contain [text], with lines "label" = "标签", and [names], with keep = ["name"]')
    return catalogue


def in_chinese(labels: Iterable[str], snippet: str, root: Path) -> dict[str, str]:
    """{label: the label in Chinese}, from the file beside the snippet; raises ValueError with those that it lacks."""
    path = snippet.removesuffix(".py") + ".toml"
    catalogue = read_catalogue(path, root)
    texts = {label: translate(label, catalogue) for label in labels}
    if unknown := [repr(label) for label, text in texts.items() if text is None]:
        raise ValueError(f"no Chinese in {path}, below [text] or [names], for {', '.join(unknown)}")
    return texts


def draw(figures: list[Figure], snippet: str, root: Path) -> list[dict[str, str]]:
    """Of each figure, {'en-light': svg, 'en-dark': …, 'zh-light': …, 'zh-dark': …}.

    The axes of all figures are where the layout has put those of the first. Raises ValueError if labels have
    no Chinese, or if a drawing is too large for a page.
    """
    labels = {}
    english = _with_texts(figures, lambda label: labels.setdefault(label, label))
    largest = max(english, key=len)
    if len(largest) > MAX_SIZE:
        raise ValueError(_too_large(largest))
    texts = in_chinese(labels, snippet, root)

    def chinese_text(label: str) -> str:  # longer labels may leave room for other ticks
        return texts[label] if label in texts else in_chinese([label], snippet, root)[label]

    chinese = english if texts == labels else _with_texts(figures, chinese_text)
    return [
        {"en-light": light, "en-dark": _darken(light), "zh-light": other, "zh-dark": _darken(other)}
        for light, other in zip(english, chinese, strict=True)
    ]


def _with_texts(figures: list[Figure], replace: Callable[[str], str]) -> list[str]:
    """The figures with each of their texts replaced, in the layout of the first."""
    get_text = Text.get_text
    # Tick labels are made while the figure is drawn, so a text is replaced where it is read.
    Text.get_text = lambda self: replace(get_text(self))
    first, *others = figures
    try:
        drawings = [to_svg(first)]
        for figure in others:
            with plt.rc_context({"figure.constrained_layout.use": False}):
                figure.set_layout_engine(None)  # with one, savefig draws twice
            for axes, model in zip(figure.axes, first.axes, strict=True):
                axes.set_position(model.get_position(original=True))
            drawings.append(to_svg(figure))
    finally:
        Text.get_text = get_text
    return drawings


def to_svg(figure) -> str:
    """The figure with transparent ground, in whole pixels; the same bytes for the same figure."""
    buffer = io.StringIO()
    no_metadata = dict.fromkeys(["Creator", "Date", "Format", "Type"])
    figure.savefig(buffer, format="svg", transparent=True, metadata=no_metadata)
    # A page reserves whole pixels: with points, a scaled figure would be of another height when it has loaded.
    svg = re.sub('="([0-9.]+)pt"', lambda points: f'="{round(float(points[1]) * 96 / 72)}"', buffer.getvalue(), count=2)
    # matplotlib does not write black as a fill; written out, it can be replaced like any other colour.
    return svg.replace("<svg ", '<svg fill="#000000" ', 1)


def _too_large(svg: str) -> str:
    """Why the drawing is too large, with its largest part, which matplotlib names PathCollection_1 or QuadMesh_1."""
    sizes = Counter()
    pieces = re.split(r'<(?:g id=")?(image|\w+(?=_\d+"))', svg)
    for part, text in zip(pieces[1::2], pieces[2::2], strict=True):
        sizes[part] += len(text)
    ((part, _),) = sizes.most_common(1)
    size, most = (round(number / 1e6, 1) for number in (len(svg), MAX_SIZE))
    return f"it has {size} MB, and a page bears {most}; most of it is {part}: draw less of it, or with rasterized=True"


def _darken(svg: str) -> str:
    return re.sub("|".join(DARK), lambda colour: DARK[colour[0]], svg)
