"""MkDocs, loaded and waiting: for each request on standard input a build; standard output says what came of it."""

import io
import json
import logging
import os
import pickle
import sys
import traceback
from pathlib import Path

from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import MkDocsException

from zhixing_site.project import CONFIGS, site_url
from zhixing_site.site.postprocess import postprocess


def render(config: str, pages: str, site: Path, language: str, navigation: list) -> str:
    """Let MkDocs render the pages whose HTML is not there yet; returns its warnings and errors."""
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    handler.addFilter(lambda record: "'dirty' build" not in record.msg)  # it warns of being asked for one
    logging.getLogger("mkdocs").handlers = [handler]
    os.environ["ZHIXING_PAGES"] = pages
    try:
        where = {"site_dir": str(site / language), "site_url": f"{site_url()}{language}/"}
        build(load_config(config, nav=navigation, **where), dirty=True)
    except MkDocsException as error:
        print(error, file=said)
    except Exception:
        traceback.print_exc(file=said)
    return said.getvalue()


def skip_exporters() -> None:
    """Save the second in which nbconvert makes one exporter of each kind, to name them in its help."""
    from nbconvert.exporters import base  # not above: the Chinese site has no notebooks

    base.get_export_names = list


def main(config: str) -> None:
    """Answer requests until standard input ends."""
    logging.disable(logging.INFO)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a plugin prints is no answer
    if config == CONFIGS["en"]:
        skip_exporters()
    load_config(config)  # imports extensions and plugins
    for line in sys.stdin:
        language, pages, site, navigation = json.loads(line)
        folder = Path(site, language)
        reused = {*folder.rglob("*.html")}
        said = render(config, pages, Path(site), language, navigation)
        fresh = [path.relative_to(site).as_posix() for path in folder.rglob("*.html") if path not in reused]
        try:
            rendered = postprocess(Path(site), language, fresh)
        except Exception:
            said, rendered = said + traceback.format_exc(), {}
        answers.write(pickle.dumps((said, rendered)))
        answers.flush()


if __name__ == "__main__":
    main(sys.argv[1])
