"""Check that the HTML in a page is whole: what is not would swallow the rest of the page, or end its article."""

import re
from html.parser import HTMLParser

from zhixing_site.content.page import Page
from zhixing_site.errors import BuildError

THEME = ["article", "body", "head", "html", "script", "style", "title"]  # the theme's, once on a page
VOID = ["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"]


def check_tags(page: Page) -> list[BuildError]:
    """An error for each tag without its counterpart."""
    tags = _Tags(page.path)
    tags.feed(page.sub(_blank))
    tags.close()
    return tags.errors + [tags.error(f"<{tag}> without </{tag}>", line) for tag, line in tags.open]


def _blank(mark: re.Match) -> str:
    """Nothing but the lines of a mark, unless it may hold tags."""
    return mark[0] if mark.lastgroup in ("heading", "stray") else re.sub(r"[^\n]", " ", mark[0])


class _Tags(HTMLParser):
    def __init__(self, path: str):
        super().__init__()
        self.path = path
        self.open: list[tuple[str, int]] = []  # the tags that still need an end, and their lines
        self.errors: list[BuildError] = []

    def error(self, cause: str, line: int) -> BuildError:
        return BuildError(f"the HTML of a page must be whole, but there is {cause}", self.path, line)

    def handle_starttag(self, tag: str, attributes: list) -> None:
        if tag in THEME:
            self.errors.append(self.error(f"<{tag}>, which belongs to the theme", self.getpos()[0]))
        if tag not in VOID and re.fullmatch(r"[a-z][a-z0-9-]*", tag):  # an address in such brackets is a link
            self.open.append((tag, self.getpos()[0]))

    def handle_startendtag(self, tag: str, attributes: list) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1][0] == tag:
            self.open.pop()
        else:
            self.errors.append(self.error(f"</{tag}> that ends no <{tag}>", self.getpos()[0]))
