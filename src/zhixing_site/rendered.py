"""What MkDocs has rendered, page by page: finish it, and read what checking links and searching need of it."""

import re
from collections.abc import Container
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import lxml.html

from zhixing_site.finish import PLACE, finish

# What nobody searches for.
SILENT = {"button", "script", "style", "svg"}
# The classes of the signs beside a heading, of offers, and of what parts.py says of articles.
LINKS = {"headerlink", "headertwin", "take", "facts", "evidence", "cards", "reading-path"}
HEADINGS = {f"h{level}" for level in range(1, 7)}
BLOCKS = HEADINGS | {
    "br",
    "dd",
    "details",
    "div",
    "dl",
    "dt",
    "li",
    "ol",
    "p",
    "pre",
    "summary",
    "td",
    "th",
    "tr",
    "ul",
}
# What stands between the parts of a formula in a line.
SIGNS = {"mfrac": "/", "msub": "_", "munder": "_", "msup": "^", "msubsup": "_^", "munderover": "_^"}
CAPTIONS = {"caption", "filename"}  # the classes of spans that stand alone as blocks do
NAVIGATION = re.compile(
    r'<div class="md-sidebar md-sidebar--primary".*?(?=<div class="md-(sidebar|content)\b)', re.DOTALL
)


@dataclass(frozen=True)
class Rendered:
    """A page as read; a section is its id, title, text and code; `published` are addresses that it tells others."""

    anchors: frozenset[str]
    references: list[str]
    published: list[str]
    sections: list[dict[str, str]]


def take_up(site: Path, language: str, anew: bool) -> dict[str, Rendered]:
    """Finish the pages of a language that are fresh from MkDocs, and read them, or all if `anew`: {path: Rendered}."""
    names = [path.relative_to(site).as_posix() for path in (site / language).rglob("*.html")]
    # The navigation, most of a page where there are many, differs only in how deep it stands.
    first = {name.count("/"): name for name in reversed(names)}
    one = partial(_take_up_one, site, language, anew, frozenset(first.values()))
    if not anew:  # nearly all are as they were
        return {name: page for name, page in map(one, names) if page}
    with ProcessPoolExecutor(mp_context=get_context("fork")) as pool:
        return {name: page for name, page in pool.map(one, names, chunksize=16) if page}


def _take_up_one(
    site: Path, language: str, anew: bool, whole: Container[str], name: str
) -> tuple[str, Rendered | None]:
    path = site / name
    page = path.read_text()
    fresh = PLACE in page
    try:
        if fresh:
            page = finish(page, language)
            path.write_text(page)
        return name, read(page if name in whole else NAVIGATION.sub("", page, 1)) if fresh or anew else None
    except Exception as error:
        raise ValueError(f"{name} cannot be read: {error}") from None  # lxml's own cannot go to another process


def read(page: str) -> Rendered:
    tree = lxml.html.document_fromstring(page.encode(), parser=lxml.html.HTMLParser(encoding="utf-8"))

    def find(what: str) -> set[str]:
        return {str(each) for each in tree.xpath(what, smart_strings=False)}

    article = tree.find(".//article")
    sections = [] if article is None else _sections(article)
    published = sorted(find("//link/@href | //meta[@property='og:image' or @property='og:url']/@content"))
    return Rendered(frozenset(find("//@id | //a/@name")), sorted(find("//@href | //@src")), published, sections)


def _sections(article: lxml.html.HtmlElement) -> list[dict[str, str]]:
    sections = [{"id": "", "title": "", "text": "", "code": ""}]
    _collect(article, sections, "text")
    return [
        {key: re.sub(r"\s+", " ", text.replace("\u2061", "")).strip() for key, text in section.items()}
        for section in sections[1:]
    ]


def _collect(element: lxml.html.HtmlElement, sections: list[dict[str, str]], key: str) -> None:
    """Add what the element and all in it say to the sections that they stand in, as title, text or code."""
    if element.tag in HEADINGS and element.get("id"):
        sections.append({"id": element.get("id"), "title": "", "text": "", "code": ""})
        key = "title"
    if element.tag == "pre":
        sections[-1]["code"] += element.text_content()
        return
    if element.tag == "math":
        sections[-1][key] += _line(element)
        return
    sections[-1][key] += element.text or ""
    for child in element:
        if isinstance(child.tag, str) and child.tag not in SILENT and child.get("class") not in LINKS:
            _collect(child, sections, key)
        alone = child.tag in BLOCKS or child.get("class") in CAPTIONS
        sections[-1][key] += (" " if alone else "") + (child.tail or "")


def _line(element: lxml.html.HtmlElement) -> str:
    """A formula in a line of text: (a+b)/2, x_i^2, √(x)."""
    parts = [_line(child) for child in element]
    if element.tag == "annotation":
        return ""
    if element.tag in SIGNS:
        whole = [part if len(part) < 2 or part.replace(".", "").isalnum() else f"({part})" for part in parts]
        return "".join(
            sign * (part not in "′″") + part for sign, part in zip(("", *SIGNS[element.tag]), whole, strict=True)
        )
    inner = (element.text or "") + "".join(parts) + " " * (element.tag == "mtd")
    return f"√({inner})" if element.tag == "msqrt" else inner
