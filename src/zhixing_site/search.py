"""Write what the search box reads: search.json in each language's folder, the sections of all its pages."""

import json
import re
from functools import cache
from pathlib import Path

import lxml.html

from zhixing_site.page import LANGUAGES

# What nobody searches for.
SILENT = {"button", "script", "style", "svg"}
LINKS = {"headerlink", "headertwin"}  # the classes of the signs beside a heading
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
CAPTIONS = {"caption", "filename"}  # the classes of spans that stand alone as blocks do


def write_index(site: Path) -> None:
    """A list of sections: id (the address in the language's folder), place on the page, title, page, text, code."""
    for language in LANGUAGES:
        home = site / language
        pages = sorted(home.glob("*/**/index.html"))  # not the home page, which lists the others
        sections = [each for path in pages for each in _read(path, home, path.stat().st_mtime_ns)]
        (home / "search.json").write_text(json.dumps(sections, ensure_ascii=False, separators=(",", ":")))


@cache
def _read(path: Path, home: Path, changed: int) -> list[dict[str, str | int]]:
    """The sections of a page; `changed` tells its versions apart."""
    article = lxml.html.parse(str(path), parser=lxml.html.HTMLParser(encoding="utf-8")).find(".//article")
    sections = [{"id": "", "title": "", "text": "", "code": ""}]
    _collect(article, sections, "text")
    titled = [
        {key: re.sub(r"\s+", " ", text.replace("\u2061", "")).strip() for key, text in section.items()}
        for section in sections[1:]
    ]
    url = f"{path.parent.relative_to(home).as_posix()}/"
    for place, section in enumerate(titled):
        section |= {"id": f"{url}#{section['id']}" if place else url, "page": titled[0]["title"], "place": place}
    return titled


def _collect(element: lxml.html.HtmlElement, sections: list[dict[str, str]], key: str) -> None:
    """Add what the element and all in it say to the sections that they stand in, as title, text or code."""
    if element.tag in HEADINGS and element.get("id"):
        sections.append({"id": element.get("id"), "title": "", "text": "", "code": ""})
        key = "title"
    if element.tag == "pre":
        sections[-1]["code"] += element.text_content()
        return
    if element.tag == "math":
        sections[-1][key] += element.xpath("string(semantics/*[1])")
        return
    sections[-1][key] += element.text or ""
    for child in element:
        if isinstance(child.tag, str) and child.tag not in SILENT and child.get("class") not in LINKS:
            _collect(child, sections, key)
        alone = child.tag in BLOCKS or child.get("class") in CAPTIONS
        sections[-1][key] += (" " if alone else "") + (child.tail or "")
