"""The areas and their articles in reading order, as their front matter describes them, and the site's navigation.

An area is a folder whose `index.md` gives its `order`; its other pages are articles. Keys that hold for both languages
are in the English page.
"""

import html
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import yaml
from jsonschema import Draft202012Validator, validators

from zhixing_site.content.page import Page, Pages, pairs
from zhixing_site.errors import BuildError
from zhixing_site.project import LANGUAGES

KEYS = yaml.safe_load(Path(__file__).with_name("front_matter.yml").read_text())
PATHS = tuple(KEYS["english"]["start"]["properties"])  # the ways through the articles that the home page offers
TYPES = Draft202012Validator.TYPE_CHECKER.redefine("date", lambda _, value: type(value) is date)
VALIDATOR = validators.extend(Draft202012Validator, type_checker=TYPES)


@dataclass(frozen=True)
class Article:
    """An article's pages by language, and what the English front matter says about both."""

    name: str
    pages: Pages

    @property
    def english(self) -> Page:
        return self.pages["en"]

    @property
    def date(self) -> date:
        return self.english.meta["date"]

    @property
    def requires(self) -> list[str]:
        return self.english.meta.get("requires", [])


@dataclass(frozen=True)
class Area:
    """An area, its index pages by language, and its articles in reading order."""

    name: str
    pages: Pages
    articles: tuple[Article, ...]


def menu(page: Page) -> str:
    """The page's title in the navigation and in other short links."""
    return page.meta.get("menu") or page.title


def navigation(areas: Iterable[Area], pages: Pages) -> list:
    """MkDocs' `nav` for the pages of one language: home, areas, and the other pages at the root."""

    def entry(page: Page) -> dict[str, str]:
        return {menu(page): f"{page.name}.md"}

    home = [entry(page) for name, page in pages.items() if name == "index"]
    rest = [entry(page) for name, page in pages.items() if "/" not in name and name != "index"]
    sections = []
    for area in areas:
        index = pages[f"{area.name}/index"]
        articles = [entry(pages[article.name]) for article in area.articles]
        sections.append({menu(index): [{html.escape(index.title): f"{index.name}.md"}, *articles]})
    return home + sections + rest


def read_areas(english: Pages, chinese: Pages) -> tuple[list[Area], list[BuildError]]:
    """The areas in their order, without pages that have errors, and these errors."""
    both = pairs(english, chinese)
    errors, indexes, articles = [], {}, {}
    for name, pair in both.items():
        pages, area = dict(zip(LANGUAGES, pair, strict=True)), _area(name)
        if name == f"{area}/index":
            found = [error for page in pair for error in _errors(_check_keys(page, KEYS["other pages"], KEYS["area"]))]
            indexes |= {area: pages} if not found else {}
        elif f"{area}/index" in both:
            found = [error for page in pair for error in _errors(_check_article(page))]
            articles |= {name: Article(name, pages)} if not found else {}
        elif "/" not in name:
            found = [error for page in pair for error in _errors(_check_keys(page, KEYS["other pages"], {}))]
        else:
            continue  # in no area; MkDocs warns about it
        errors += found
    errors += _check_requires(articles, {error.path for error in errors})
    try:
        order = [*TopologicalSorter({name: article.requires for name, article in articles.items()}).static_order()]
    except CycleError as error:
        cycle = error.args[1][::-1]
        errors.append(_error(articles[cycle[0]].english, "requires", f"is circular: {' → '.join(cycle)}"))
    names = articles if errors else _in_reading_order(articles, order)
    areas = [
        Area(area, pages, tuple(articles[name] for name in names if _area(name) == area))
        for area, pages in indexes.items()
    ]
    return sorted(areas, key=lambda area: area.pages["en"].meta["order"]), errors


def _area(name: str) -> str:
    return name.partition("/")[0]


def leads_to(article: Article, areas: Iterable[Area]) -> list[Article]:
    """The articles that require this one."""
    return [other for area in areas for other in area.articles if article.name in other.requires]


def _in_reading_order(articles: Mapping[str, Article], order: Iterable[str]) -> list[str]:
    """Each after those of its area that it requires, also by way of another area; else by date, then by name.

    In `order`, each comes after all that it requires.
    """
    before = {}  # {name: the articles that it requires, directly or not}
    for name in order:
        required = articles[name].requires
        before[name] = {*required, *(more for each in required for more in before[each])}
    waiting, placed = sorted(articles, key=lambda name: (articles[name].date, name)), []
    while waiting:
        name = next(name for name in waiting if _area(name) not in map(_area, before[name].intersection(waiting)))
        waiting.remove(name)
        placed.append(name)
    return placed


def _errors(check: Iterator[BuildError]) -> list[BuildError]:
    """The errors that the check yields or raises."""
    try:
        return [*check]
    except BuildError as error:
        return [error]


def _check_article(page: Page) -> Iterator[BuildError]:
    """Check that the keys are those of an article, their values, and that the cover is one of the page's figures."""
    figures = [use.name for use in page.uses if use.figure and use.path == page.snippet]
    keys = KEYS["both languages"] | (KEYS["english"] if page.language == "en" else {})
    yield from _check_keys(page, KEYS["both languages"], KEYS["english"])
    if "cover" in page.meta and "cover" in keys and page.meta["cover"] not in figures:
        drawn = ", ".join(figures) or "none"
        yield _error(page, "cover", f"is not a figure of this page's snippet, which has: {drawn}")
    if "cover" not in page.meta and "cover" in keys and figures:
        yield _error(page, "cover", f"is missing: {keys['cover']['description']}")


def _check_keys(page: Page, both: Mapping[str, dict], english: Mapping[str, dict]) -> Iterator[BuildError]:
    """An error for each key that is missing or unknown, or whose value does not fit its schema."""
    keys = both | (english if page.language == "en" else {})
    for key in page.meta:
        if key not in keys and key in english:
            yield _error(page, key, "belongs in the English page alone, for both")
        elif key not in keys:
            yield _error(page, key, f"is not a key of such a page; valid keys are {', '.join(keys)}")
    for key, schema in keys.items():
        if key not in page.meta and "default" not in schema:
            yield _error(page, key, f"is missing: {schema['description']}")
        elif key in page.meta and not VALIDATOR(schema).is_valid(page.meta[key]):
            yield _error(page, key, f"must be {schema['description']}")


def _check_requires(articles: Mapping[str, Article], wrong: set[str]) -> list[BuildError]:
    """An error for each name that is no article, unless its page is among the wrong ones."""
    return [
        _error(article.english, "requires", f"names {name}, which is not an article")
        for article in articles.values()
        for name in article.requires
        if name not in articles and not {f"docs/{language}/{name}.md" for language in LANGUAGES} & wrong
    ]


def _error(page: Page, key: str, cause: str) -> BuildError:
    """An error in the line of the key, or in the first line if the page does not have it."""
    found = re.search(rf"^{re.escape(str(key))}\s*:", page.text, re.MULTILINE)
    return BuildError(f"`{key}` {cause}", page.path, page.line(found) if found else 1)
