"""Check the built sites: every link, image, script and anchor leads somewhere inside."""

import posixpath
from collections.abc import Container, Iterator, Mapping
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from zhixing_site.errors import BuildError
from zhixing_site.site.postprocess import Rendered

split = cache(urlsplit)  # the navigation's references are on every page


def check_links(site: Path, pages: Mapping[str, Rendered], url: str) -> list[BuildError]:
    """An error for each reference of these pages that names no file or no anchor; other hosts are not asked."""
    files = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    return [
        BuildError(f"dead link {reference}: {cause}", name)
        for name in sorted(pages)
        for reference in pages[name].references
        for cause in _dead(_from_root(reference, name, url), name, files, pages)
    ]


def check_published(site: Path, pages: Mapping[str, Rendered], url: str) -> list[BuildError]:
    """An error for each address that these pages tell others of themselves, below `url`, where there is no file."""
    told = {(address, name) for name in pages for address in pages[name].published if address.startswith(url)}
    return [
        BuildError(f"dead address {address}: there is no such file", name)
        for address, name in sorted(told)
        if not (site / address.removeprefix(url)).is_file()
        and not (site / address.removeprefix(url) / "index.html").is_file()
    ]


def _from_root(reference: str, page: str, url: str) -> str:
    """Only the page of a host that finds none starts at the server's root, since it is shown anywhere."""
    root = split(url).path
    if posixpath.basename(page) == "404.html" and reference.startswith(root) and not reference.startswith("//"):
        return posixpath.relpath("/" + reference.removeprefix(root), "/" + posixpath.dirname(page))
    return reference


def _dead(reference: str, page: str, files: Container[str], pages: Mapping[str, Rendered]) -> Iterator[str]:
    """Why the reference of this page leads nowhere; names are relative to the site."""
    parts = split(reference)
    if parts.scheme or parts.netloc:
        return
    if parts.path.startswith("/"):
        yield "it starts at the server's root, which is another place under a sub-path"
        return
    if "//" in parts.path:
        yield "it has a step without a name"
        return
    target = page
    if parts.path:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page), unquote(parts.path)))
        if target not in files:
            target = posixpath.normpath(posixpath.join(target, "index.html"))
    if target not in files:
        yield "there is no such file"
    elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
        yield f"there is no #{unquote(parts.fragment)} there"
