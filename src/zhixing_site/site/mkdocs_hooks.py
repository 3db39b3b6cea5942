"""Hooks of MkDocs: complete the pages of notebooks, and keep each page independent of the others."""

import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.pages import Page
from mkdocs.structure.toc import AnchorLink, get_toc
from mkdocs_autorefs import fix_refs

HEADING = re.compile(r'<h([12]) id="([^"]*)">(.*?)<a class="headerlink"')

log = logging.getLogger("mkdocs.hooks")


def on_config(config: MkDocsConfig) -> None:
    """Let nbconvert find the template of notebooks, and not a contributor's own configuration."""
    folder = str(Path(__file__).parent / "jupyter")
    os.environ.update(JUPYTER_PATH=folder, JUPYTER_CONFIG_DIR=folder)


def on_page_content(html: str, page: Page, **_: object) -> str:
    """The page's HTML before the theme is put around it."""
    if page.file.src_uri.endswith(".ipynb"):
        html = html.partition("<style>")[0]  # which mkdocs-jupyter appends
        _describe(page, html)
    return _resolve_references(html, page)


def _describe(page: Page, html: str) -> None:
    """Set the title, the table of contents and the anchors of a notebook's page from its headings."""
    headings = [
        {"level": int(level), "id": anchor, "name": re.sub("<[^>]*>", "", title), "children": []}
        for level, anchor, title in HEADING.findall(html)
    ]
    headings[0]["children"] = headings[1:]
    page.title = headings[0]["name"]
    page.toc = get_toc(headings[:1])
    page.present_anchor_ids = {heading["id"] for heading in headings}


def _resolve_references(html: str, page: Page) -> str:
    """Link what mkdocstrings refers to where it is on the same page, or a page would depend on others."""
    titles = dict(_titles(page.toc))
    html, unresolved = fix_refs(html, lambda name: (f"#{name}", titles[name]), strip_title_tags=True)
    for name, context in unresolved:
        place = f" ({context.filepath}:{context.lineno})" if context else ""
        log.warning(f"{page.file.src_uri}: the cross-reference [{name}] has no target on this page{place}")
    return html


def _titles(toc: Iterable[AnchorLink]) -> Iterable[tuple[str, str]]:
    """The id and title of each entry of a table of contents."""
    for entry in toc:
        yield entry.id, entry.title
        yield from _titles(entry.children)
