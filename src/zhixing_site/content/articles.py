"""What pages say of themselves in front matter: areas, their articles in reading order, and the navigation.

An area is a folder whose `index.md` gives its `order`; its other pages are articles. Keys that hold for both languages
stand in the English page.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from graphlib import CycleError, TopologicalSorter
from heapq import heappop, heappush

from zhixing_site.content.page import Page
from zhixing_site.errors import BuildError
from zhixing_site.project import LANGUAGES

PATHS = ("new", "paper", "interview")  # the ways through the articles that the home page offers
ARXIV = re.compile(r"\d{4}\.\d{4,5}|[a-z-]+/\d{7}")

Pages = Mapping[str, Page]


@dataclass(frozen=True)
class Article:
    """Its two pages; each key as `Page.meta` has it."""

    pages: Mapping[str, Page]

    @property
    def english(self) -> Page:
        return self.pages["en"]

    @property
    def name(self) -> str:
        return self.english.name

    @property
    def area(self) -> str:
        return self.name.partition("/")[0]

    @property
    def date(self) -> date:
        return self.english.meta["date"]

    @property
    def requires(self) -> list[str]:
        return self.english.meta.get("requires", [])


@dataclass(frozen=True)
class Area:
    name: str
    pages: Mapping[str, Page]  # that introduce it
    articles: tuple[Article, ...]  # in reading order


def menu(page: Page) -> str:
    """The page's title in the navigation and wherever else a link to it must be short."""
    return page.meta.get("menu") or page.title


def navigation(areas: Iterable[Area], pages: Pages) -> list:
    """What MkDocs takes for `nav`, in the language of these pages: home, areas, and the other pages at the root."""

    def entry(page: Page) -> dict[str, str]:
        return {menu(page): f"{page.name}.md"}

    home = [page for name, page in pages.items() if name == "index"]
    rest = [page for name, page in pages.items() if "/" not in name and name != "index"]
    sections = []
    for area in areas:
        page = pages[f"{area.name}/index"]
        sections.append({menu(page): [f"{page.name}.md", *(entry(pages[each.name]) for each in area.articles)]})
    return [*map(entry, home), *sections, *map(entry, rest)]


def read_areas(english: Pages, chinese: Pages) -> tuple[list[Area], list[BuildError]]:
    """The areas in their order; what has errors is left out."""
    twins = [{"en": english[name], "zh": chinese[name]} for name in sorted(english.keys() & chinese.keys())]
    errors, introductions, articles = [], {}, {}
    names = {pair["en"].name.removesuffix("/index") for pair in twins if pair["en"].name.endswith("/index")}
    for pair in twins:
        area, _, name = pair["en"].name.partition("/")
        if name == "index":
            found = _check_area(pair["en"])
            introductions |= {area: pair} if not found else {}
        elif area in names:
            found = [error for page in pair.values() for error in _check_article(page)]
            articles |= {pair["en"].name: Article(pair)} if not found else {}
        else:
            continue  # in no area: a page at the root, or a warning of MkDocs
        errors += found
    errors += _check_requires(articles, {error.path for error in errors})
    placed = articles.values() if errors else _in_reading_order(articles)
    order = sorted(introductions, key=lambda area: (introductions[area]["en"].meta["order"], area))
    return [
        Area(name, introductions[name], tuple(each for each in placed if each.area == name)) for name in order
    ], errors


def leads_to(article: Article, areas: Iterable[Area]) -> list[Article]:
    """The articles that require this one."""
    return [other for area in areas for other in area.articles if article.name in other.requires]


def _in_reading_order(articles: Mapping[str, Article]) -> list[Article]:
    """Each after all of its area that it builds on, also by way of another area; else the older, then by name."""
    before = {}
    for name in TopologicalSorter({each.name: each.requires for each in articles.values()}).static_order():
        required = articles[name].requires
        before[name] = {*required, *(more for each in required for more in before[each])}
    sorter = TopologicalSorter(
        {
            each.name: [name for name in before[each.name] if articles[name].area == each.area]
            for each in articles.values()
        }
    )
    sorter.prepare()
    placed, free = [], []
    while sorter.is_active():
        for name in sorter.get_ready():
            heappush(free, (articles[name].date, name))
        _, name = heappop(free)
        placed.append(articles[name])
        sorter.done(name)
    return placed


# What a key must be


def _is_line(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and not re.search(r"[`$*<\n]|\{\{|\]\(", value)


def _is_paper(value: object) -> bool:
    if isinstance(value, dict):
        return value.keys() == {"title", "url"} and all(map(_is_line, value.values()))
    return isinstance(value, str) and bool(ARXIV.fullmatch(value))


def _is_list(of: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and all(map(of, value))


def _is_start(value: object) -> bool:
    return isinstance(value, dict) and {*value} <= {*PATHS} and all(type(place) is int for place in value.values())


OWN = {
    "menu": (_is_line, "a short title for the navigation"),
    "summary": (_is_line, "a sentence of plain text"),
}
NEUTRAL = {
    "date": (lambda value: type(value) is date, "the day of the first publication: 2026-11-21"),
    "cover": (_is_line, "the name of the cell that draws the figure to show it by"),
    "requires": (_is_list(_is_line), "a list of articles: [activations/gelu]"),
    "papers": (_is_list(_is_paper), 'a list of arXiv numbers in quotes, or of a title and url: ["1606.08415"]'),
    "start": (_is_start, f"a place in one or more of {', '.join(PATHS)}: {{new: 1}}"),
}
REQUIRED = {*OWN, "date"}


def _check_article(page: Page) -> list[BuildError]:
    """An error for each key that is wrong, missing, or strange, and for a cover that is none of the page's figures."""
    try:
        meta, keys = page.meta, OWN if page.language != LANGUAGES[0] else OWN | NEUTRAL
        figures = [use.name for use in page.uses if use.figure and use.path == page.snippet]
    except BuildError as error:
        return [error]
    errors = []
    for key, value in meta.items():
        if key in NEUTRAL.keys() - keys.keys():
            errors.append(_error(page, key, "stands in the English page alone, for both"))
        elif key not in keys:
            errors.append(_error(page, key, f"is no key of an article; there are {', '.join(keys)}"))
        elif not keys[key][0](value):
            errors.append(_error(page, key, f"must be {keys[key][1]}"))
    for key in keys:
        if key not in meta and (key in REQUIRED or (key == "cover" and figures)):
            errors.append(_error(page, key, f"is missing: {keys[key][1]}"))
    if "cover" in meta and "cover" in keys and meta["cover"] not in figures:
        drawn = ", ".join(figures) or "none"
        errors.append(_error(page, "cover", f"is no figure of this page's own snippet, whose figures are: {drawn}"))
    return errors


def _check_area(page: Page) -> list[BuildError]:
    try:
        order = page.meta.get("order")
    except BuildError as error:
        return [error]
    return [] if type(order) is int else [_error(page, "order", "must be the area's place among the others: 3")]


def _check_requires(articles: Mapping[str, Article], told: set[str]) -> list[BuildError]:
    """An error for each name that is no article, unless its pages are with errors already, and for a circle."""
    errors = [
        _error(article.english, "requires", f"names {name}, which is no article")
        for article in articles.values()
        for name in article.requires
        if name not in articles and not {f"docs/{language}/{name}.md" for language in LANGUAGES} & told
    ]
    try:
        TopologicalSorter({each.name: each.requires for each in articles.values()}).prepare()
    except CycleError as error:
        circle = error.args[1][::-1]
        errors.append(_error(articles[circle[0]].english, "requires", f"leads in a circle: {' → '.join(circle)}"))
    return errors


def _error(page: Page, key: str, cause: str) -> BuildError:
    found = re.search(rf"^{re.escape(str(key))}\s*:", page.text, re.MULTILINE)
    return BuildError(f"`{key}` {cause}", page.path, page.text.count("\n", 0, found.start()) + 1 if found else 1)
