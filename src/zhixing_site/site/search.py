"""What the search finds: the text of each section of a page, and three files in each language's folder."""

import json
import re
from collections.abc import Mapping

import lxml.html
from lxml.html.defs import block_tags

from zhixing_site.project import LANGUAGES
from zhixing_site.store import Files

# Elements that are not searched.
SILENT = {"button", "script", "style", "svg"}
# Classes of elements that are not searched: links of headings and copies, and components, which repeat other text.
SILENT_CLASSES = {"headerlink", "headertwin", "take", "facts", "evidence", "cards", "reading-path"}
HEADINGS = {f"h{level}" for level in range(1, 7)}
BLOCKS = block_tags | {"br", "details", "summary"}
# Between the parts of a formula in a line.
SIGNS = {"mfrac": "/", "msub": "_", "munder": "_", "msup": "^", "msubsup": "_^", "munderover": "_^"}
DEFINITION = re.compile(r"\b(?:def|class) (\w+)")
CAPTIONS = {"caption", "filename"}  # classes of spans that are blocks

Section = dict[str, str]  # id, title, text and code


def read_sections(article: lxml.html.HtmlElement) -> list[Section]:
    """The sections of a rendered page, of which the first begins with the page's title."""
    sections = [{"id": "", "title": "", "text": "", "code": ""}]
    _collect(article, sections, "text")
    return [
        {key: re.sub(r"\s+", " ", text.replace("\u2061", "")).strip() for key, text in section.items()}
        for section in sections[1:]
    ]


def _collect(element: lxml.html.HtmlElement, sections: list[Section], key: str) -> None:
    """Add the text of the element and its children to the last section, as title, text or code."""
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
        if isinstance(child.tag, str) and child.tag not in SILENT and child.get("class") not in SILENT_CLASSES:
            _collect(child, sections, key)
        is_block = child.tag in BLOCKS or child.get("class") in CAPTIONS
        sections[-1][key] += " " * is_block + (child.tail or "")


def _line(element: lxml.html.HtmlElement) -> str:
    """A formula as text: (a+b)/2, x_i^2, √(x)."""
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


def search_indexes(pages: Mapping[str, list[Section]], keywords: Mapping[str, list[str]]) -> Files:
    """Three lists of sections in each language's folder, which a browser searches as they come.

    search-pages.json has the first section of each page: id (address in the folder), place (number on the page), title
    of the section and of the page, names that the code defines, and the page's keywords. search-sections.json has the
    others, without keywords; search-text.json has the text and code of all, in this order.
    """
    files = {}
    for language in LANGUAGES:
        firsts, others = [], []
        for name in sorted(pages):
            # Without the home page, which lists others, and notebooks, which repeat their articles.
            address = re.fullmatch(rf"{language}/(?!lab/)(.+/)index\.html", name)
            for place, section in enumerate(pages[name] if address else []):
                id = f"{address[1]}#{section['id']}" if place else address[1]
                names = {"title": section["title"], "page": pages[name][0]["title"]}
                defined = " ".join(DEFINITION.findall(section["code"]))
                words = {} if place else {"keywords": keywords.get(name, [])}
                title = {"id": id, "place": place, **names, "defined": defined, **words}
                (others if place else firsts).append((title, {"text": section["text"], "code": section["code"]}))
        lists = {
            "pages": [title for title, _ in firsts],
            "sections": [title for title, _ in others],
            "text": [text for _, text in firsts + others],
        }
        for name, data in lists.items():
            files[f"{language}/search-{name}.json"] = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return files
