"""What search engines, feed readers, link previews and language models read: heads, sitemaps, feeds, cards, Markdown.

All addresses begin with the site's own: SITE_URL in the environment, else what pyproject.toml says.
"""

import html
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time
from email.utils import format_datetime
from pathlib import Path
from typing import Any

from zhixing_site.content.expand import drawings, figure_path
from zhixing_site.content.page import MARK, Page, Pages, is_article
from zhixing_site.content.plain_markdown import page_markdown
from zhixing_site.errors import BuildError
from zhixing_site.files import read_text
from zhixing_site.project import LANGUAGES
from zhixing_site.site.cards import HEIGHT, WIDTH, cached_png, card
from zhixing_site.store import Files
from zhixing_site.templates import WORDS, render

LOGO = "theme/images/logo.svg"
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\([^)]*\)")
MATTER = re.compile(r"\A---\n.*?\n---[ ]*\n", re.DOTALL)


@dataclass(frozen=True)
class Site:
    """All pages, {language: {name: page}}, and the address of the site."""

    pages: Mapping[str, Pages]
    url: str

    @property
    def all_pages(self) -> list[Page]:
        return [page for pages in self.pages.values() for page in pages.values()]

    def home(self, language: str) -> Page:
        return self.pages[language].get("index", Page(f"docs/{language}/index.md", ""))

    def address(self, name: str, language: str) -> str:
        return self.url + folder(name, language)

    def alternates(self, name: str) -> dict[str, str]:
        """{hreflang: address of the page}; readers of other languages get English, or the choice at the root."""
        addresses = {WORDS[language]["hreflang"]: self.address(name, language) for language in LANGUAGES}
        return addresses | {"x-default": self.url if name == "index" else addresses["en"]}

    def articles(self, language: str) -> list[Page]:
        """The pages that are not an index of others."""
        return [page for page in self.pages[language].values() if is_article(page.name)]

    def description(self, page: Page) -> str:
        """The page's summary, else its first paragraph if that is nothing but prose and links; as plain text."""
        text = re.sub(r"\A\s*# .*", "", MATTER.sub("", page.text))
        paragraph = LINK.sub(r"\1", re.split(r"\n\s*\n", text.strip())[0])
        prose = "" if MARK.search(paragraph) or re.search(r"[<\[*$]", paragraph) else paragraph
        return page.meta.get("summary") or " ".join(prose.split())

    def shared(self, page: Page, key: str) -> Any:
        """The value of a key of the English page, which holds for both languages; None if it is missing."""
        return self.pages["en"][page.name].meta.get(key) if page.name in self.pages["en"] else None


def folder(name: str, language: str) -> str:
    """The page's folder below the site: en/activations/gelu/."""
    return re.sub(r"(?<=/)index/$", "", f"{language}/{name}/")


def with_head(text: str, page: Page, site: Site) -> str:
    """The expanded page with front matter for the theme: title, description, and HTML for the head."""
    values = {"site": site, "page": page, "words": WORDS[page.language], "is_article": is_article(page.name)}
    meta = page.meta | {"head": render("head.html", width=WIDTH, height=HEIGHT, **values)}
    if description := site.description(page):
        meta["description"] = html.escape(description)
    if page.name != "index":  # which has the name of the site
        meta["title"] = html.escape(page.title)
    matter = json.dumps(meta, ensure_ascii=False, default=str)  # JSON is YAML
    return f"---\n{matter}\n---\n{MATTER.sub('', text)}"


def text_files(site: Site) -> Files:
    """{path: text} of the feeds (RSS 2.0), the index of the sitemaps, robots.txt, and llms.txt (https://llmstxt.org)."""
    values = {"site": site, "words": WORDS, "home": site.home("en")}
    names = {"sitemap.xml": "sitemap_index.xml", "robots.txt": "robots.txt", "llms.txt": "llms.txt"}
    texts = {path: render(template, **values).strip() + "\n" for path, template in names.items()}
    for language in LANGUAGES:
        days = {page: site.shared(page, "date") for page in site.articles(language)}
        dated = sorted(filter(days.get, days), key=days.get, reverse=True)  # the newest first
        items = [(page, format_datetime(datetime.combine(days[page], time(), UTC))) for page in dated]
        values = {"site": site, "language": language, "words": WORDS[language], "home": site.home(language)}
        texts[f"{language}/feed.xml"] = render("feed.xml", items=items, **values) + "\n"
    return texts


def sitemaps(site: Site, names: Iterable[str]) -> Files:
    """The sitemap of each language with all its HTML files, each with its translations."""
    files = {}
    for language in LANGUAGES:
        paths = sorted(name.removesuffix("index.html") for name in names)
        paths = [path for path in paths if path.startswith(f"{language}/") and path.endswith("/")]
        alternates = {folder(name, language): site.alternates(name) for name in site.pages[language]}
        text = render("sitemap.xml", site=site, paths=paths, alternates=alternates)
        files[f"{language}/sitemap.xml"] = text + "\n"
    return files


def metadata_files(site: Site, notebooks: Mapping[str, dict], root: Path) -> tuple[Files, list[BuildError]]:
    """Feeds, cards, Markdown: what does not depend on rendered pages; and an error for each card that fails."""
    files, errors, logo = text_files(site), [], read_text(root / LOGO, root)
    if "<svg " not in logo:
        raise BuildError("is not an SVG drawing", LOGO)
    figures = {language: drawings(notebooks, language) for language in LANGUAGES}
    for page in site.all_pages:
        if is_article(page.name):
            files[f"{page.language}/{page.name}.md"] = page_markdown(page, notebooks, root)
        cover = site.shared(page, "cover")
        figure = figures[page.language].get(figure_path(page.snippet, cover, "light"), "")  # none without a cover
        try:
            svg = card(page.title, site.home(page.language).title, logo, figure)
            files[f"{folder(page.name, page.language)}card.png"] = cached_png(svg, root)
        except ValueError as error:
            errors.append(BuildError(str(error), page.path, 1))
    return files, errors
