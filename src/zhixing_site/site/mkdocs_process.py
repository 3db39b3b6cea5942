"""The process that has MkDocs loaded and renders pages for each request of the builder, and the hooks of MkDocs.

The hooks complete the pages of notebooks, and keep each page independent of the others.
"""

import io
import logging
import os
import re
import signal
import traceback
from collections.abc import Iterable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import MkDocsException
from mkdocs.structure.pages import Page
from mkdocs.structure.toc import AnchorLink, get_toc
from mkdocs_autorefs import fix_refs

from zhixing_site.project import CONFIGS, site_url
from zhixing_site.site.postprocess import postprocess

HEADING = re.compile(r'<h([12]) id="([^"]*)">(.*?)<a class="headerlink"')

log = logging.getLogger("mkdocs.hooks")


def render_pages(config: str, folder: Path, language: str, navigation: list) -> str:
    """Let MkDocs render the pages whose HTML is not there yet; returns its warnings and errors."""
    warnings = io.StringIO()
    handler = logging.StreamHandler(warnings)
    handler.addFilter(lambda record: "'dirty' build" not in record.msg)  # it warns of being asked for one
    logging.getLogger("mkdocs").handlers = [handler]
    os.environ["ZHIXING_PAGES"] = str(folder / "pages" / language)
    try:
        where = {"site_dir": str(folder / "site" / language), "site_url": f"{site_url()}{language}/"}
        build(load_config(config, nav=navigation, **where), dirty=True)
    except MkDocsException as error:
        print(error, file=warnings)
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        place = next((frame for frame in reversed(frames) if "site-packages" not in frame.filename), frames[-1])
        print(f"{type(error).__name__}: {error} ({place.filename}:{place.lineno})", file=warnings)
    return warnings.getvalue()


def main(config: str, root: Path, requests: Connection) -> None:
    """Answer requests until the builder is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the builder, which ends this process
    os.chdir(root)
    # nbconvert finds the template of notebooks, and not a contributor's own configuration.
    jupyter = str(Path(__file__).parent / "jupyter")
    os.environ.update(NO_MKDOCS_2_WARNING="1", JUPYTER_PATH=jupyter, JUPYTER_CONFIG_DIR=jupyter)
    logging.disable(logging.INFO)
    if config == CONFIGS["en"]:  # the Chinese site has no notebooks
        from nbconvert.exporters import base

        base.get_export_names = list  # to name them in its help, nbconvert makes an exporter of each kind for a second
    with suppress(MkDocsException):  # the answer to a request will report it
        load_config(config)  # imports extensions and plugins
    with suppress(EOFError):
        while True:
            language, folder, navigation = requests.recv()
            site = folder / "site"
            reused = {*(site / language).rglob("*.html")}
            warnings = render_pages(config, folder, language, navigation)
            (site / language / "sitemap.xml.gz").unlink(missing_ok=True)  # we write our own
            fresh = {*(site / language).rglob("*.html")} - reused
            try:
                names = sorted(path.relative_to(site).as_posix() for path in fresh)
                rendered = postprocess(site, language, names)
            except Exception:
                warnings, rendered = warnings + traceback.format_exc(), {}
            requests.send((warnings, rendered))


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
