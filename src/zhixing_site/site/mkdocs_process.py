"""The process that has MkDocs loaded, and renders pages for each request of the builder."""

import io
import logging
import os
import signal
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import MkDocsException

from zhixing_site.project import CONFIGS, site_url
from zhixing_site.site.postprocess import postprocess


def render_pages(config: str, pages: Path, site: Path, language: str, navigation: list) -> str:
    """Let MkDocs render the pages whose HTML is not there yet; returns its warnings and errors."""
    warnings = io.StringIO()
    handler = logging.StreamHandler(warnings)
    handler.addFilter(lambda record: "'dirty' build" not in record.msg)  # it warns of being asked for one
    logging.getLogger("mkdocs").handlers = [handler]
    os.environ["ZHIXING_PAGES"] = str(pages)
    try:
        where = {"site_dir": str(site / language), "site_url": f"{site_url()}{language}/"}
        build(load_config(config, nav=navigation, **where), dirty=True)
    except MkDocsException as error:
        print(error, file=warnings)
    except Exception:
        traceback.print_exc(file=warnings)
    return warnings.getvalue()


def skip_exporters() -> None:
    """Save the second in which nbconvert makes one exporter of each kind, to name them in its help."""
    from nbconvert.exporters import base  # not above: the Chinese site has no notebooks

    base.get_export_names = list


def main(config: str, root: Path, requests: Connection) -> None:
    """Answer requests until the builder is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the builder, which ends this process
    os.chdir(root)
    os.environ["NO_MKDOCS_2_WARNING"] = "1"
    logging.disable(logging.INFO)
    if config == CONFIGS["en"]:
        skip_exporters()
    with suppress(MkDocsException):  # the answer to a request will report it
        load_config(config)  # imports extensions and plugins
    with suppress(EOFError):
        while True:
            language, pages, site, navigation = requests.recv()
            reused = {*(site / language).rglob("*.html")}
            warnings = render_pages(config, pages, site, language, navigation)
            (site / language / "sitemap.xml.gz").unlink(missing_ok=True)  # we write our own
            fresh = {*(site / language).rglob("*.html")} - reused
            try:
                names = sorted(path.relative_to(site).as_posix() for path in fresh)
                rendered = postprocess(site, language, names)
            except Exception:
                warnings, rendered = warnings + traceback.format_exc(), {}
            requests.send((warnings, rendered))
