"""Post-process the rendered HTML; extract anchors, links and search sections.

Pages get plainer code, links to twin sections, marks of language, and a policy of what a browser may load.
"""

import base64
import hashlib
import re
from collections.abc import Container
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import lxml.html

PLACE = "{content-security-policy}"  # theme/main.html leaves it in the head of each page
COMMIT, DAY = "zhixing-build-commit", "zhixing-build-day"  # stand for what is known at the end of a build
# The theme's icons and our math font lie in stylesheets as data: nothing is asked for them.
POLICY = "default-src 'self'; img-src 'self' data:; font-src 'self' data:; base-uri 'none'; object-src 'none'"
INSIDE = {
    "script-src": re.compile(r"<script(?![^>]*\b(?:src|type)\s*=)[^>]*>(.*?)</script>", re.DOTALL),
    "style-src": re.compile(r"<style>(.*?)</style>", re.DOTALL),
}

TWIN = re.compile(
    r'<a class="(?:[^"]* )?twin" href="(?P<href>[^"]*)" hreflang="(?P<code>\w+)"[^>]*>(?P<name>[^<]*)</a>'
)
PERMALINK = re.compile(r'<a (?=[^>]*class="headerlink")[^>]*href="(#[^"]*)"[^>]*>&para;</a>')

# Names, operators, brackets and the like have the colour of all code: most elements of a page, without a purpose.
COLOURLESS = re.compile(r'<span class="(?:fm|kc|n|o|ow|p|sa|vm|w)">([^<]*)</span>')

CHINESE = re.compile(r"[\u3400-\u9fff](?:[\u3000-\u303f\uff00-\uffef]*[\u3400-\u9fff])*")
MACHINE = re.compile(r"<(script|style|textarea|annotation)\b.*?</\1>", re.DOTALL)
MODULE = '<div class="doc doc-object doc-module"'  # an article ends in the API of its modules,
EVIDENCE = '<div class="evidence"'  # and in what speaks for it, in its own language
ENGLISH = re.compile(
    r'<(a|td|li|p|em|strong|span(?= class="filename"))(?![^>]* lang=)((?: [^>]*)?)>'
    r"([^<\u3400-\u9fff]*[A-Za-z]{2}[^<\u3400-\u9fff]*)</\1>"
)


def finish(page: str, language: str) -> str:
    """To be done once to a page, which holds a place for the policy until then."""
    page = COLOURLESS.sub(r"\1", page)
    return set_policy(_mark_languages(_link_twins(page), language))


def set_policy(page: str) -> str:
    return page.replace(PLACE, _policy(page), 1)


def stamp(page: str, commit: str, day: str) -> str:
    return page.replace(COMMIT, commit).replace(DAY, day)


def _link_twins(page: str) -> str:
    """Beside each heading's own link one to its twin, for readers whose browser runs no script."""
    twin = TWIN.search(page)
    if not twin:  # a notebook
        return page
    link = rf'\g<0><a class="headertwin" href="{twin["href"]}\1" lang="{twin["code"]}">{twin["name"]}</a>'
    return PERMALINK.sub(link, page)


def _mark_languages(page: str, language: str) -> str:
    """Say what stands in the other language: on Chinese pages the API and English links and cells, else any Chinese."""
    if language == "en":
        head, body, rest = page.partition("<body")
        return head + body + _mark_chinese(rest)
    text, module, rest = page.partition(MODULE)
    rest, end, foot = rest.partition("</article>")
    api, evidence, rest = rest.partition(EVIDENCE)
    api = (module + _mark_chinese(api)).replace(MODULE, f'{MODULE} lang="en"')
    return _mark_english(text) + api + _mark_english(evidence + rest) + end + foot


def _mark_english(text: str) -> str:
    return ENGLISH.sub(r'<\1\2 lang="en">\3</\1>', text)


def _mark_chinese(text: str) -> str:
    """From one run of Chinese to the next, since most of a page has none; what is in a tag or for a machine stays."""
    machine = [range(*each.span()) for each in MACHINE.finditer(text)]

    def mark(run: re.Match) -> str:
        at = run.start()
        is_text = text.rfind("<", 0, at) < text.rfind(">", 0, at) and not any(at in each for each in machine)
        return f'<span lang="zh">{run[0]}</span>' if is_text else run[0]

    return CHINESE.sub(mark, text)


def _policy(page: str) -> str:
    parts = [POLICY]
    for what, inside in INSIDE.items():
        digests = sorted({hashlib.sha256(text.encode()).digest() for text in inside.findall(page)})
        hashes = (f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
        parts.append(" ".join([what, "'self'", *hashes]))
    return "; ".join(parts)


# What checking links and searching need of a page

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
FEW = 8  # pages that are not worth other processes
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


def postprocess(site: Path, language: str, fresh: list[str]) -> dict[str, Rendered]:
    """Finish these pages of a language, which MkDocs has just rendered, and read them: {path: Rendered}."""
    # The navigation, most of a page where there are many, differs only in how deep it stands.
    first = {name.count("/"): name for name in reversed(fresh)}
    one = partial(_postprocess_one, site, language, frozenset(first.values()))
    if len(fresh) < FEW:
        return dict(map(one, fresh))
    with ProcessPoolExecutor(mp_context=get_context("fork")) as pool:
        return dict(pool.map(one, fresh, chunksize=16))


def _postprocess_one(site: Path, language: str, whole: Container[str], name: str) -> tuple[str, Rendered]:
    path = site / name
    try:
        page = finish(path.read_text(), language)
        path.write_text(page)
        return name, read(page if name in whole else NAVIGATION.sub("", page, 1))
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
