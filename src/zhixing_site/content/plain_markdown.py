"""Write a page as Markdown for machines: code with what it printed, formulas as TeX, figures as links to their files.

The files have the same folders as the pages' sources, so that links between articles lead from one to another. Links to
other pages, which have no such file, lead to the page.
"""

import posixpath
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path

from zhixing_site.content.expand import Expander, figure_path
from zhixing_site.content.page import API, HEADING_ID, Page, is_article

BOX = re.compile(r'^(?:\?{3}\+?|!!!) *(?P<kind>\w+)(?: "(?P<title>.*)")?\n(?P<body>(?:(?:[ ]{4}.*)?\n)+)', re.MULTILINE)

LINK = re.compile(r"\]\((?P<path>[\w./-]+)\.md(?=[)#])")


def page_markdown(page: Page, notebooks: Mapping[str, dict], root: Path) -> str:
    """The whole page; to be called where Expander finds no error."""
    text = BOX.sub(_unfold, PlainExpander(page, notebooks, root).expand() + "\n")
    text = LINK.sub(lambda link: _page_link(page, link), text)
    return API.sub(lambda api: _code_link(page, api[1].partition(".")[2]), text).strip() + "\n"


def _unfold(box: re.Match) -> str:
    """A box as paragraphs, of which the first is its title."""
    return f"**{box['title'] or box['kind'].capitalize()}**\n\n{textwrap.dedent(box['body']).strip()}\n\n"


def _page_link(page: Page, link: re.Match) -> str:
    """The start of a link to another page's Markdown, or to its HTML if it is no article."""
    if is_article(posixpath.normpath(posixpath.join(posixpath.dirname(page.name), link["path"]))):
        return link[0]
    return f"]({link['path'].removesuffix('index').rstrip('/') or '.'}/"


def _code_link(page: Page, module: str) -> str:
    """A link to a module's file, in place of its description."""
    path = module.replace(".", "/") + ".py"
    return f"[{path}]({'../' * (page.name.count('/') + 1)}code/{path})"


class PlainExpander(Expander):
    """Replaces marks by plain Markdown."""

    output = "text"
    expand_escape = None  # which stays as it is
    expand_value = Expander.value

    def expand_matter(self, mark: re.Match) -> str:
        return ""

    expand_comment = expand_matter

    def expand_heading(self, mark: re.Match) -> str:
        """The heading, with an anchor for links to it."""
        level, title = HEADING_ID.sub("", mark["heading"]).rstrip().split(" ", 1)
        return f'{level} <a id="{HEADING_ID.search(mark["heading"])[1]}"></a>{title.lstrip()}'

    def expand_block(self, mark: re.Match) -> str:
        return f"$${self.tex(mark['block'])}$$"

    def expand_inline(self, mark: re.Match) -> str:
        return f"${self.tex(mark['tex'])}${mark['stop']}"

    def expand_figure(self, mark: re.Match) -> str:
        path = figure_path(mark["snippet"], mark["cell"], "light")
        path = posixpath.relpath(path, posixpath.dirname(self.page.name) or ".")
        return f"![{self.caption(mark)}]({path})"
