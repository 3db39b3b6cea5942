"""Check the built sites: every link, image, script and anchor leads somewhere inside."""

import posixpath
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import lxml.html

from zhixing_site.fault import Fault


def check_links(site: Path) -> list[Fault]:
    """A fault for each reference in the folder's HTML that names no file or no anchor; other hosts are not asked."""
    read = {path: _read(path, path.stat().st_mtime_ns) for path in sorted(site.rglob("*.html"))}
    anchors = {path: anchors for path, (anchors, _) in read.items()}
    return [
        Fault(f"dead link {reference}: {cause}", path.relative_to(site).as_posix())
        for path, (_, references) in read.items()
        for reference in references
        for cause in _dead(reference, path, site, anchors)
    ]


@cache
def _read(path: Path, changed: int) -> tuple[frozenset[str], list[str]]:
    """The anchors and the references of a page; `changed` tells its versions apart."""
    tree = lxml.html.parse(str(path))
    return frozenset(tree.xpath("//@id | //a/@name")), sorted(set(tree.xpath("//@href | //@src")))


def _dead(reference: str, path: Path, site: Path, anchors: dict[Path, frozenset[str]]) -> Iterator[str]:
    parts = urlsplit(reference)
    if parts.scheme or parts.netloc:
        return
    if parts.path.startswith("/") and path.name != "404.html":
        yield "it starts at the server's root, which is another place under a sub-path"
        return
    target = path
    if parts.path:
        base = site if parts.path.startswith("/") else path.parent
        target = Path(posixpath.normpath(base / unquote(parts.path).lstrip("/")))
        if target.is_dir():
            target /= "index.html"
    if not target.is_relative_to(site) or not target.is_file():
        yield "there is no such file"
    elif parts.fragment and target in anchors and unquote(parts.fragment) not in anchors[target]:
        yield f"there is no #{unquote(parts.fragment)} there"
