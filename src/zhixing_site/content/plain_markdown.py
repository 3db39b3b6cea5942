"""Write a page as Markdown for machines: code with what it printed, formulas as TeX, figures as links to their files.

Pages stand beside each other as their sources do, so that links between them lead from one such file to the other.
"""

import html
import posixpath
import re
import textwrap
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from zhixing_site.content.expand import Expander, figure_path
from zhixing_site.content.page import HEADING_ID, MARK, VALUE, Page

BOX = re.compile(r'^(?:\?{3}\+?|!!!) *(?P<kind>\w+)(?: "(?P<title>.*)")?\n(?P<body>(?:(?:[ ]{4}.*)?\n)+)', re.MULTILINE)
API = re.compile(r"^::: \w+\.(?P<module>[\w.]+)$", re.MULTILINE)


def plain(page: Page, notebooks: Mapping[str, dict], root: Path) -> str:
    """The whole page; to be called where `expand` finds no error."""
    simple = replace(page, text=API.sub(lambda api: _code(page, api["module"]), BOX.sub(_unfold, page.text + "\n")))
    expander = Plain(simple, notebooks, root)
    return MARK.sub(lambda mark: expander.replace(mark, simple.line(mark)), simple.text).strip() + "\n"


def _unfold(box: re.Match) -> str:
    """A box as paragraphs, of which the first is its title."""
    return f"**{box['title'] or box['kind'].capitalize()}**\n\n{textwrap.dedent(box['body']).strip()}\n\n"


def _code(page: Page, module: str) -> str:
    """Where a module's description would stand, a link to its file."""
    path = module.replace(".", "/") + ".py"
    return f"[{path}]({'../' * (page.name.count('/') + 1)}code/{path})"


class Plain(Expander):
    """What replaces each mark."""

    def replace(self, mark: re.Match, line: int) -> str:
        if mark["matter"] or mark["comment"]:
            return ""
        if mark["heading"]:
            return HEADING_ID.sub("", mark["heading"]).rstrip()
        if mark["block"]:
            return f"$${VALUE.sub(self._tex_value, mark['block'])}$$"
        if mark["inline"]:
            return f"${VALUE.sub(self._tex_value, mark['inline'])}${mark['stop']}"
        if mark["value"]:
            return self.value(mark)
        if mark["escape"]:
            return mark[0]
        return super().replace(mark, line)

    def _fence(self, mark: re.Match) -> str:
        return super()._fence(mark).replace("``` { .text .output .no-copy }", "```text")

    def _figure(self, mark: re.Match, line: int) -> str:
        snippet, _, name = mark["figure"].partition(":")
        caption = MARK.sub(lambda inner: self.replace(inner, line), " ".join(mark["caption"].split()))
        path = posixpath.relpath(figure_path(snippet, name, "light"), posixpath.dirname(self.page.name) or ".")
        return f"![{caption}]({path})"

    def _table(self, path: str) -> str:
        return html.unescape(super()._table(path).replace("&#124;", r"\|"))
