"""Check the built site: every link, image and script that is not on another host leads to a file and an anchor."""

import posixpath
import re
from collections.abc import Container, Iterable, Mapping
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from zhixing_site.content.page import API, Page
from zhixing_site.errors import BuildError
from zhixing_site.project import CONFIGS
from zhixing_site.site.postprocess import Rendered

split = cache(urlsplit)  # the references of the navigation are on every page


WARNING = re.compile(r"Doc file '(?P<file>[^']*)' contains an? .*?link '(?P<link>[^']*)'.*")


def located(errors: Iterable[BuildError], pages: Mapping[str, Page], root: Path) -> list[BuildError]:
    """The errors, of which what MkDocs warns of a link becomes one with the line that has it, if that is found.

    `pages` are all pages by their path.
    """
    found = []
    for error in errors:
        folder = next(f"docs/{language}" for language, config in CONFIGS.items() if config == error.path)
        rest = []
        for line in error.cause.splitlines():
            warning = WARNING.match(line)
            page = warning and pages.get(f"{folder}/{warning['file']}")
            place = page and place_of(warning["link"], page, root)
            found += [BuildError(line.partition("' ")[2], *place)] if place else []
            rest += [] if place else [line]
        found += [BuildError("\n".join(rest), error.path)] if rest else []
    return found


def place_of(reference: str, page: Page, root: Path) -> tuple[str, int] | None:
    """Path and line of a link in the page's source, or in that of a module whose API it shows."""
    files = [root / "src" / f"{name.replace('.', '/')}.py" for name in API.findall(page.text)]
    sources = {page.path: page.text} | {
        path.relative_to(root).as_posix(): path.read_text(errors="replace") for path in files if path.is_file()
    }
    link = re.compile(rf"""(?:\]\(|\]:[ ]|=["']|<){re.escape(reference)}(?=[)"'>\s]|$)""", re.MULTILINE)
    for path, text in sources.items():
        if found := link.search(text):
            return path, text.count("\n", 0, found.start()) + 1
    return None


def in_docstrings(errors: Iterable[BuildError], pages: Mapping[str, Page], root: Path) -> list[BuildError]:
    """The dead links, of which those in a docstring name its file. `pages` are all pages by their HTML file."""
    found = []
    for error in errors:
        page = pages.get(error.path)
        place = page and place_of(error.cause.removeprefix("dead link ").partition(": ")[0], page, root)
        is_elsewhere = place and place[0] != page.path
        found.append(BuildError(error.cause, *place, pages=(error.path,)) if is_elsewhere else error)
    return found


def check_links(site: Path, pages: Mapping[str, Rendered], url: str) -> list[BuildError]:
    """Return an error for each reference of these pages to a file or an anchor that does not exist."""
    files = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    return [
        BuildError(f"dead link {reference}: {cause}", name)
        for name in sorted(pages)
        for reference in pages[name].references
        if (cause := _why_dead(_relative(reference, name, url), name, files, pages))
    ]


def check_published(site: Path, pages: Mapping[str, Rendered], url: str) -> list[BuildError]:
    """Return an error for each address below `url` that a page's head names and at which there is no file."""
    published = sorted((address, name) for name in pages for address in pages[name].published)
    return [
        BuildError(f"dead address {address}: there is no such file", name)
        for address, name in published
        if address.startswith(url)
        and not any((site / unquote(address.removeprefix(url)) / file).is_file() for file in ("", "index.html"))
    ]


def _relative(reference: str, page: str, url: str) -> str:
    """The reference as others are; only an error page's start at the server's root, since it is shown anywhere."""
    root = split(url).path
    if posixpath.basename(page) == "404.html" and reference.startswith(root) and not reference.startswith("//"):
        return posixpath.relpath("/" + reference.removeprefix(root), "/" + posixpath.dirname(page))
    return reference


def _why_dead(reference: str, page: str, files: Container[str], pages: Mapping[str, Rendered]) -> str:
    """Why the page's reference leads nowhere; empty if it leads somewhere. Names are relative to the site."""
    try:
        parts, target = split(reference), page
    except ValueError as error:
        return f"it is no address: {error}"
    if parts.scheme or parts.netloc:
        return ""
    if parts.path.startswith("/"):
        return "it starts at the server's root, which breaks if the site is hosted below a path"
    if "//" in parts.path:
        return "its path has an empty component"
    if parts.path:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page), unquote(parts.path)))
        if target not in files:
            target = posixpath.normpath(posixpath.join(target, "index.html"))
    if target not in files:
        return "there is no such file"
    anchor = unquote(parts.fragment)
    return f"the page has no #{anchor}" if anchor and target in pages and anchor not in pages[target].anchors else ""
