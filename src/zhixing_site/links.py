"""Check the built sites: every link, image, script and anchor leads somewhere inside."""

import posixpath
from collections.abc import Container, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import lxml.html

from zhixing_site.fault import Fault

split = cache(urlsplit)  # the navigation's references are on every page


def check_links(site: Path) -> list[Fault]:
    """A fault for each reference in the folder's HTML that names no file or no anchor; other hosts are not asked."""
    files = {path.relative_to(site).as_posix(): path for path in sorted(site.rglob("*")) if path.is_file()}
    names = [name for name in files if name.endswith(".html")]
    with ThreadPoolExecutor() as pool:  # lxml parses without Python's lock
        found = pool.map(lambda name: _read(files[name], files[name].stat().st_mtime_ns), names)
    read = dict(zip(names, found, strict=True))
    return [
        Fault(f"dead link {reference}: {cause}", name)
        for name, (_, references) in read.items()
        for reference in references
        for cause in _dead(reference, name, files, read)
    ]


@cache
def _read(path: Path, changed: int) -> tuple[frozenset[str], list[str]]:
    """The anchors and the references of a page; `changed` tells its versions apart."""
    tree = lxml.html.parse(str(path), parser=lxml.html.HTMLParser())  # one that is shared would have threads wait

    def find(what: str) -> list[str]:
        return tree.xpath(what, smart_strings=False)  # lxml's own strings would keep the whole page in memory

    return frozenset(find("//@id | //a/@name")), sorted(set(find("//@href | //@src")))


def _dead(reference: str, page: str, files: Container[str], read: Mapping[str, tuple]) -> Iterator[str]:
    """Why the reference of this page leads nowhere; names are relative to the site."""
    parts = split(reference)
    if parts.scheme or parts.netloc:
        return
    if parts.path.startswith("/") and posixpath.basename(page) != "404.html":
        yield "it starts at the server's root, which is another place under a sub-path"
        return
    target = page
    if parts.path:
        base = "" if parts.path.startswith("/") else posixpath.dirname(page)
        target = posixpath.normpath(posixpath.join(base, unquote(parts.path).lstrip("/")))
        if target not in files:
            target = posixpath.normpath(posixpath.join(target, "index.html"))
    if target not in files:
        yield "there is no such file"
    elif parts.fragment and target in read and unquote(parts.fragment) not in read[target][0]:
        yield f"there is no #{unquote(parts.fragment)} there"
