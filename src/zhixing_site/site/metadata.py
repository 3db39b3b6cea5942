"""Let the site be found and sent on: what each page says of itself in its head, sitemaps, feeds, cards, plain Markdown.

Every address follows from that of the site: SITE_URL in the environment, else what pyproject.toml says.
"""

import html
import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from email.utils import format_datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

from zhixing_copy.standalone import digest
from zhixing_site.content.page import MARK, Page
from zhixing_site.content.plain_markdown import plain
from zhixing_site.errors import BuildError
from zhixing_site.project import LANGUAGES, file_digest
from zhixing_site.site.cards import FONT, HEIGHT, WIDTH, card, png

HREFLANG = {"en": "en", "zh": "zh-Hans"}
LOCALES = {"en": "en_US", "zh": "zh_CN"}
LANGUAGE_NAMES = {"en": "English", "zh": "中文"}
LOGO = "theme/images/logo.svg"
CARDS = Path(".cache/cards")

SITEMAP = "http://www.sitemaps.org/schemas/sitemap/0.9"
XHTML = "http://www.w3.org/1999/xhtml"
ATOM = "http://www.w3.org/2005/Atom"
for prefix, namespace in {"": SITEMAP, "xhtml": XHTML, "atom": ATOM}.items():
    ElementTree.register_namespace(prefix, namespace)

Pages = Mapping[str, Page]


@dataclass(frozen=True)
class Site:
    """All pages, by name in each language, and the address below which they will lie."""

    english: Pages
    chinese: Pages
    url: str

    def pages(self, language: str) -> Pages:
        return self.english if language == "en" else self.chinese

    def home(self, language: str) -> Page:
        return self.pages(language).get("index", Page(f"docs/{language}/index.md", ""))

    def address(self, name: str, language: str) -> str:
        return self.url + folder(name, language)

    def articles(self, language: str) -> list[Page]:
        """The pages that are no list of others."""
        return [page for name, page in self.pages(language).items() if name.rpartition("/")[2] != "index"]

    def about(self, page: Page) -> str:
        """What the page says of itself in plain text: its summary, else its first paragraph if that is all prose."""
        text = re.sub(r"^---\n.*?\n---\n", "", page.text, flags=re.DOTALL)
        paragraphs = re.split(r"\n\s*\n", re.sub(r"\A\s*# .*", "", text).strip())
        prose = "" if MARK.search(paragraphs[0]) or re.search(r"[<\[*]", paragraphs[0]) else paragraphs[0]
        return page.meta.get("summary") or " ".join(prose.split())

    def neutral(self, page: Page, key: str) -> object:
        """What the English page alone says for both languages; None where it does not."""
        return self.english[page.name].meta.get(key) if page.name in self.english else None

    def day(self, page: Page) -> date | None:
        """When the article was published."""
        day = self.neutral(page, "date")
        if day is not None and type(day) is not date:
            raise BuildError(f"`date: {day}` is no day: `date: 2026-05-04`", f"docs/en/{page.name}.md", 1)
        return day


def folder(name: str, language: str) -> str:
    """Where a page lies below the site: en/activations/gelu/."""
    return re.sub(r"(?<=/)index/$", "", f"{language}/{name}/")


# The head of a page


def with_head(text: str, page: Page, site: Site) -> str:
    """The expanded page, whose front matter tells the theme its title, its description and more for its head."""
    told = page.meta | {"head": head(page, site)}
    if about := site.about(page):
        told["description"] = html.escape(about)
    if page.name != "index":  # which bears the name of the site
        told["title"] = html.escape(page.title)
    mark = MARK.match(text)
    rest = text[mark.end() :] if mark and mark["matter"] else text
    return f"---\n{json.dumps(told, ensure_ascii=False, default=str)}\n---\n{rest}"  # JSON is YAML


def head(page: Page, site: Site) -> str:
    """The page in the other language, its feed, its Markdown; what is shown where others link to it."""
    here, day = site.address(page.name, page.language), site.day(page)
    tags = [
        _tag("link", rel="alternate", hreflang=HREFLANG[language], href=site.address(page.name, language))
        for language in LANGUAGES
    ]
    tags.append(_tag("link", rel="alternate", hreflang="x-default", href=_default(page.name, site)))
    folder, name = f"{site.url}{page.language}/", site.home(page.language).title
    tags.append(_tag("link", rel="alternate", type="application/rss+xml", title=name, href=folder + "feed.xml"))
    if article := page in site.articles(page.language):
        tags.append(_tag("link", rel="alternate", type="text/markdown", href=f"{folder}{page.name}.md"))
    shown = {
        "og:type": "article" if article else "website",
        "og:site_name": name,
        "og:title": page.title,
        "og:description": site.about(page),
        "og:url": here,
        "og:locale": LOCALES[page.language],
        "article:published_time": day and day.isoformat(),
        "og:image": here + "card.png",
        "og:image:type": "image/png",
        "og:image:width": WIDTH,
        "og:image:height": HEIGHT,
        "og:image:alt": page.title,
    }
    tags += [_tag("meta", property=key, content=value) for key, value in shown.items() if value]
    tags.append(_tag("meta", name="twitter:card", content="summary_large_image"))
    return "\n".join(tags)


def _default(name: str, site: Site) -> str:
    """The page for readers of other languages: at the root their browser chooses."""
    return site.url if name == "index" else site.address(name, "en")


def _tag(element: str, /, **attributes: object) -> str:
    told = [f'{key}="{html.escape(str(value))}"' for key, value in attributes.items()]
    return f"<{element} {' '.join(told)}>"


# Files for machines


def files(site: Site) -> dict[str, str]:
    """{path: text} of what tells of the site's articles, and of where its sitemaps are."""
    index = ElementTree.Element(f"{{{SITEMAP}}}sitemapindex")
    for language in LANGUAGES:
        _add(_add(index, f"{{{SITEMAP}}}sitemap"), f"{{{SITEMAP}}}loc", f"{site.url}{language}/sitemap.xml")
    return {
        **{f"{language}/feed.xml": feed(language, site) for language in LANGUAGES},
        "sitemap.xml": _xml(index),
        "robots.txt": f"User-agent: *\nAllow: /\n\nSitemap: {site.url}sitemap.xml\n",
        "llms.txt": llms(site),
    }


def sitemap(names: Iterable[str], language: str, site: Site) -> str:
    """All pages of the language, with those that are the same in the other one."""
    twins = {folder(name, language): name for name in site.pages(language)}
    urls = ElementTree.Element(f"{{{SITEMAP}}}urlset")
    for path in sorted(name.removesuffix("index.html") for name in names):
        if path.startswith(f"{language}/") and path.endswith("/"):
            url = _add(urls, f"{{{SITEMAP}}}url")
            _add(url, f"{{{SITEMAP}}}loc", site.url + path)
            if path in twins:
                same = {HREFLANG[each]: site.address(twins[path], each) for each in LANGUAGES}
                for code, address in {**same, "x-default": _default(twins[path], site)}.items():
                    _add(url, f"{{{XHTML}}}link", rel="alternate", hreflang=code, href=address)
    return _xml(urls)


def feed(language: str, site: Site) -> str:
    """RSS 2.0 of the articles that say since when they are there and what they are about, the newest first."""
    home = site.home(language)
    feed = ElementTree.Element("rss", version="2.0")
    channel = _add(feed, "channel")
    _add(channel, "title", home.title)
    _add(channel, "link", site.address("index", language))
    _add(channel, "description", site.about(home))
    _add(channel, "language", HREFLANG[language])
    address = f"{site.url}{language}/feed.xml"
    _add(channel, f"{{{ATOM}}}link", rel="self", type="application/rss+xml", href=address)
    dated = [page for page in site.articles(language) if site.day(page)]
    for page in sorted(dated, key=site.day, reverse=True):
        item, address = _add(channel, "item"), site.address(page.name, language)
        _add(item, "title", page.title)
        _add(item, "link", address)
        _add(item, "guid", address)
        _add(item, "description", site.about(page))
        _add(item, "pubDate", format_datetime(datetime.combine(site.day(page), time(), UTC)))
    return _xml(feed)


def llms(site: Site) -> str:
    """The articles as language models are told of them: https://llmstxt.org."""
    home = site.home("en")
    parts = [f"# {home.title}\n\n> {site.about(home)}\n"]
    for language in LANGUAGES:
        parts.append(f"\n## {LANGUAGE_NAMES[language]}\n\n")
        for page in site.articles(language):
            parts.append(f"- [{page.title}]({site.url}{language}/{page.name}.md): {site.about(page)}\n")
    return "".join(parts)


def _add(parent: ElementTree.Element, name: str, text: str | None = None, **attributes: str) -> ElementTree.Element:
    child = ElementTree.SubElement(parent, name, attributes)
    child.text = text
    return child


def _xml(root: ElementTree.Element) -> str:
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True).decode() + "\n"


# Cards


def cards(site: Site, notebooks: Mapping[str, dict], root: Path) -> tuple[dict[str, str], list[BuildError]]:
    """{path: SVG} of all pages' cards, and an error for each that cannot be drawn."""
    found, errors, logo = {}, [], (root / LOGO).read_text()
    for language in LANGUAGES:
        for page in site.pages(language).values():
            try:
                figure = _cover(page, site, notebooks)
                path = f"{folder(page.name, language)}card.png"
                found[path] = card(page.title, site.home(language).title, logo, figure)
            except ValueError as error:
                errors.append(BuildError(str(error), page.path, 1))
    return found, errors


def _cover(page: Page, site: Site, notebooks: Mapping[str, dict]) -> str:
    """The figure of the cell that the page names, for a white ground; nothing where it names none."""
    name = site.neutral(page, "cover")
    if name is None:
        return ""
    for cell in notebooks.get(page.snippet, {"cells": []})["cells"]:
        if cell["id"] == name and cell["metadata"]["drawings"]:
            return cell["metadata"]["drawings"][f"{page.language}-light"]
    raise ValueError(f"`cover: {name}` names no cell of snippets/{page.snippet} that draws a figure")


@cache
def _drawn_with() -> tuple[str, str]:
    return version("resvg_py"), file_digest(FONT)


def _draw(svg: str, root: Path) -> bytes:
    """The card's bytes; kept, since nearly all are as they were in the last build."""
    key = digest("".join([svg, *_drawn_with()]))
    path = root / CARDS / key
    if path.exists():
        seal, _, content = path.read_bytes().partition(b"\n")
        if seal == digest(content).encode():
            return content
    content = png(svg)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(digest(content).encode() + b"\n" + content)
    os.replace(file.name, path)
    return content


# All of it


def write_found(site: Site, notebooks: Mapping[str, dict], root: Path, target: Path) -> list[BuildError]:
    """Write what is to be found beside the pages, and does not wait for them."""
    for language in LANGUAGES:
        for page in site.articles(language):
            _write(target / language / f"{page.name}.md", plain(page, notebooks, root).encode())
    for path, text in files(site).items():
        _write(target / path, text.encode())
    found, errors = cards(site, notebooks, root)
    for path, svg in found.items():
        _write(target / path, _draw(svg, root))
    return errors


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def write_maps(site: Site, names: Iterable[str], target: Path) -> None:
    """Write into the folder of the rendered site the maps of all its HTML files, and the page of errors at its root."""
    for language in LANGUAGES:
        (target / language / "sitemap.xml").write_text(sitemap(names, language, site))
        (target / language / "sitemap.xml.gz").unlink(missing_ok=True)  # MkDocs' own
    # A host that knows one such page shows the one at the root.
    (target / "404.html").write_bytes((target / "en" / "404.html").read_bytes())
