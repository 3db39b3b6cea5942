"""MkDocs, loaded and waiting: for each request on standard input a build, and on standard output what went wrong."""

import io
import json
import logging
import os
import sys
import tempfile
import traceback
from pathlib import Path

from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import MkDocsException


def render(config: str, pages: str, site: str, dirty: bool) -> str:
    """Let MkDocs build the site, the pages that differ if `dirty`; returns its warnings and errors."""
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    handler.addFilter(lambda record: "'dirty' build" not in record.msg)  # it warns of being asked for one
    logging.getLogger("mkdocs").handlers = [handler]
    os.environ["ZHIXING_PAGES"] = pages
    try:
        build(load_config(config, site_dir=site), dirty=dirty)
    except MkDocsException as error:
        print(error, file=said)
    except Exception:
        traceback.print_exc(file=said)
    return said.getvalue()


if __name__ == "__main__":
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as pages, tempfile.TemporaryDirectory() as site:
        Path(pages, "index.md").write_text("# A page")
        render(sys.argv[1], pages, site, dirty=False)  # loads what it uses: extensions, plugins, the theme
    for line in sys.stdin:
        print(json.dumps(render(sys.argv[1], *json.loads(line))), flush=True)
