"""Check the built sites: every link, image, script and anchor leads somewhere inside."""

import posixpath
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import lxml.html

from zhixing_site.fault import Fault


def check_links(site: Path) -> list[Fault]:
    """A fault for each reference in the folder's HTML that names no file or no anchor; other hosts are not asked."""
    paths = {path.relative_to(site).as_posix(): path for path in sorted(site.rglob("*")) if path.is_file()}
    names = [name for name in paths if name.endswith(".html")]
    with ThreadPoolExecutor() as pool:  # lxml parses without Python's lock
        read = pool.map(lambda name: _read(paths[name], paths[name].stat().st_mtime_ns), names)
    pages = dict(zip(names, read, strict=True))
    anchors = {**dict.fromkeys(paths), **{name: anchors for name, (anchors, _) in pages.items()}}
    return [
        Fault(f"dead link {reference}: {cause}", name)
        for name, (_, references) in pages.items()
        for reference in references
        if (cause := _dead(reference, name, anchors))
    ]


@cache
def _read(path: Path, changed: int) -> tuple[frozenset[str], list[str]]:
    """The anchors and the references of a page; `changed` tells its versions apart."""
    tree = lxml.html.parse(str(path), parser=lxml.html.HTMLParser())  # one that is shared would have threads wait

    def find(what: str) -> list[str]:
        return tree.xpath(what, smart_strings=False)  # lxml's own strings would keep the whole page in memory

    return frozenset(find("//@id | //a/@name")), sorted(set(find("//@href | //@src")))


@cache  # pages share most of their references: those of the navigation
def _split(reference: str) -> tuple[bool, str, str]:
    """Whether it leads elsewhere; its path; its anchor."""
    parts = urlsplit(reference)
    return bool(parts.scheme or parts.netloc), unquote(parts.path), unquote(parts.fragment)


def _dead(reference: str, page: str, anchors: dict[str, frozenset[str] | None]) -> str:
    """Why the reference leads nowhere, or nothing; `anchors` has all files, with None for those that are no pages."""
    elsewhere, path, anchor = _split(reference)
    if elsewhere:
        return ""
    if path.startswith("/") and posixpath.basename(page) != "404.html":
        return "it starts at the server's root, which is another place under a sub-path"
    target = page
    if path:
        folder = "" if path.startswith("/") else posixpath.dirname(page)
        target = posixpath.normpath(f"{folder or '.'}/{path.lstrip('/')}")
        if target not in anchors:
            target = posixpath.normpath(f"{target}/index.html")
    if target not in anchors:
        return "there is no such file"
    if anchor and anchors[target] is not None and anchor not in anchors[target]:
        return f"there is no #{anchor} there"
    return ""
