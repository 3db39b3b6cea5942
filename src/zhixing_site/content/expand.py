"""Expand a page: from its Markdown and the results of the runs to Markdown that any site generator can read."""

import ast
import csv
import html
import posixpath
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType

from zhixing_site.content import formulas
from zhixing_site.content.page import MARK, VALUE, Page
from zhixing_site.errors import BuildError

SCHEMES = ("light", "dark")
NUMBER = re.compile(r"[-+]?\d[\d.,]*(e[-+]\d+)?%?")
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
NOTHING = MappingProxyType({})

LABELS = {
    "en": ("Copy {file}", "Copied", "Download", "The code with all that it needs of this library, in one file"),
    "zh": ("复制 {file}", "已复制", "下载", "代码连同它在本库中用到的一切，合成一个文件"),
}


def expand(
    page: Page,
    notebooks: Mapping[str, dict],
    root: Path,
    offers: Mapping[str, tuple[str, str]],
    parts: Mapping[str, str] = NOTHING,
) -> str:
    """The page as plain Markdown, from {snippet name: executed notebook} and the files below `root`.

    `offers` says what can be copied, below which it is offered: {"src/zhixing/area/article.py:definition": (name of its
    file below code/, its name for the command)}. `parts` are the texts that stand for `--8<-- "part"`.

    Raises BuildError at the first mark that cannot be expanded.
    """
    expander = Expander(page, notebooks, root, offers, parts)
    return MARK.sub(lambda mark: expander.replace(mark, page.line(mark)), page.text)


def drawings(notebooks: Mapping[str, dict], language: str) -> dict[str, str]:
    """{path below the root of the language's site: SVG} of all figures."""
    return {
        figure_path(snippet, cell["id"], scheme): cell["metadata"]["drawings"][f"{language}-{scheme}"]
        for snippet, notebook in notebooks.items()
        for cell in notebook["cells"]
        for scheme in SCHEMES
        if cell["metadata"]["drawings"]
    }


def figure_path(snippet: str, cell: str, scheme: str) -> str:
    """Where a drawing lies below the root of a language's site: activations/gelu/tails-dark.svg."""
    return f"{snippet.removesuffix('.py')}/{cell}-{scheme}.svg"


@dataclass(frozen=True)
class Expander:
    """What replaces each mark of one page; the methods below `replace` raise ValueError."""

    page: Page
    notebooks: Mapping[str, dict]
    root: Path
    offers: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)

    def replace(self, mark: re.Match, line: int) -> str:
        try:
            if mark["fence"]:
                return self._fence(mark)
            if mark["block"] or mark["inline"]:
                tex = VALUE.sub(self._tex_value, mark["block"] or mark["inline"])
                return formulas.to_html(tex, block=bool(mark["block"]), stop=mark["stop"] or "")
            if mark["figure"]:
                return self._figure(mark, line)
            if mark["table"]:
                return self._table(mark["table"])
            if mark["part"]:
                return self._part(mark["part"])
            if mark["value"]:
                value = self.value(mark)
                return value.replace("-", "−") if NUMBER.fullmatch(value) else escape(value)
            if mark["escape"] == r"\$":
                return "&#36;"
            if mark["heading"] and re.search(r"(?<!\\)\$|\{\{", mark["heading"]):
                raise ValueError("a formula or value in a heading, which contents and search would show raw")
            if mark["stray"]:
                raise ValueError(
                    f"a stray `{mark[0]}`, which is no formula, include or value; a value is `{{{{ name:.2f }}}}`, "
                    "a dollar is `\\$`"
                )
        except ValueError as error:
            raise BuildError(str(error), self.page.path, line) from error
        return mark[0]

    def _fence(self, mark: re.Match) -> str:
        code, shown, offered, title = [], [], [], ""
        for use in self.page.included(mark):
            try:
                if use.path.startswith("src/"):
                    code.append(self.definition(use.path, use.name))
                    title = f' title="{use.path}"'
                    offered += self._offer(f"{use.path}:{use.name.partition('.')[0]}")
                else:
                    cell = self._cell(use.path, use.name)
                    code.append(cell["source"])
                    shown += filter(None, map(output_text, cell["outputs"]))
            except ValueError as error:
                raise BuildError(str(error), self.page.path, use.line) from error
        if not code and re.search(r"\b(py|i?python\d?|pycon)\b", mark["info"]):
            raise ValueError("Python typed into the page; put it into the snippet and include the cell")
        if not code:
            return mark[0]
        blocks = [_block(mark["info"].strip() + title, "\n\n\n".join(code))]
        blocks += [_block(" { .text .output .no-copy }", text) for text in shown]
        return textwrap.indent("\n\n".join(blocks + list(dict.fromkeys(offered))), mark["indent"])

    def _offer(self, what: str) -> list[str]:
        """A line below a definition from which its file is copied or downloaded; none for what is not offered."""
        if what not in self.offers:
            return []
        file, command = self.offers[what]
        copy, copied, download, title = LABELS[self.page.language]
        copy = copy.format(file=posixpath.basename(file))
        address = "../" * (self.page.name.count("/") + 2) + f"code/{file}"
        return [
            f'<p class="take" title="{title}"><button type="button" data-done="{copied}">{copy}</button> '
            f'<a href="{address}" download>{download}</a> <code>zhixing copy {command}</code></p>'
        ]

    def definition(self, path: str, name: str) -> str:
        """The definition's source; without its docstring, which stands in the page's API section.

        Without a name, the whole file as it is, for readers to copy.
        """
        if not (self.root / path).is_file():
            raise ValueError(f"there is no file {path}")
        source = (self.root / path).read_text()
        try:
            body = _parse(source).body
        except SyntaxError as error:
            raise ValueError(f"{path}:{error.lineno}: {error.msg}") from error
        if not name:
            return source.strip()
        for part in name.split("."):
            node = next((node for node in body if part in _names(node)), None)
            if not node:
                raise ValueError(f"there is no definition {name} in {path}")
            body = getattr(node, "body", [])
        first = min(part.lineno for part in (node, *getattr(node, "decorator_list", [])))
        documented = isinstance(node, DEFINITIONS) and ast.get_docstring(node) is not None
        docstring = range(body[0].lineno, body[0].end_lineno + 1) if documented else ()
        lines = enumerate(source.splitlines()[: node.end_lineno], 1)
        return textwrap.dedent("\n".join(line for n, line in lines if n >= first and n not in docstring))

    def _cell(self, snippet: str, name: str) -> dict:
        if snippet not in self.notebooks:
            raise ValueError(f"there is no snippet snippets/{snippet}")
        for cell in self.notebooks[snippet]["cells"]:
            if cell["id"] == name:
                return cell
        raise ValueError(f"there is no cell {name} in snippets/{snippet}")

    def value(self, mark: re.Match) -> str:
        """The value that the mark quotes, in its format."""
        snippet, name = self.page.snippet, mark["value"]
        values = self.notebooks[snippet]["metadata"]["zhixing"]["values"] if snippet in self.notebooks else {}
        if name not in values:
            raise ValueError(f"no number or text `{name}` is left at the end of snippets/{snippet}")
        return format(values[name], mark["spec"] or "")

    def _tex_value(self, mark: re.Match) -> str:
        """A value inside a formula: 4.7e-04 becomes 4.7\\times10^{-4}."""

        def power(exponent: re.Match) -> str:
            return rf"\times10^{{{int(exponent[1])}}}"

        return re.sub(r"(?<=\d)e([-+]\d+)$", power, self.value(mark))

    def _figure(self, mark: re.Match, line: int) -> str:
        snippet, name = mark["figure"].split(":")
        caption = self.caption(mark, line)
        first = line == next(use.line for use in self.page.uses if use.figure)
        images = ""
        for scheme in SCHEMES:
            width, height = self.size(snippet, name, scheme)
            path = posixpath.relpath(figure_path(snippet, name, scheme), posixpath.dirname(self.page.name) or ".")
            # The first is seen at once: it comes with the page, the others when they are scrolled to.
            comes = "fetchpriority=high" if first and scheme == "light" else "loading=lazy"
            image = f'![{plain(caption)}]({path}){{ width="{width}" height="{height}" {comes} }}'
            images += f"[{image}]({path}){{ .enlarge .only-{scheme} }}"
        # Spans, since Markdown takes them in lists and boxes, too, where it tears a <figure> apart.
        return f'<span class="figure" role="figure">{images}<span class="caption">{caption}</span></span>'

    def caption(self, mark: re.Match, line: int) -> str:
        """The caption of a figure's mark, expanded."""
        caption = re.sub(MARK, lambda inner: self.replace(inner, line), " ".join(mark["caption"].split()))
        if not caption:
            raise ValueError("a figure without a caption")
        return caption

    def size(self, snippet: str, name: str, scheme: str) -> tuple[int, int]:
        """Width and height of the cell's figure in pixels."""
        drawings = self._cell(snippet, name)["metadata"]["drawings"]
        if not drawings:
            raise ValueError(f"cell {name} draws no figure")
        size = re.search(r'width="([\d.]+)pt" height="([\d.]+)pt"', drawings[f"{self.page.language}-{scheme}"])
        width, height = (round(float(points) * 96 / 72) for points in size.groups())
        return width, height

    def _part(self, name: str) -> str:
        if not self.parts.get(name):
            there = ", ".join(name for name, text in self.parts.items() if text) or "none"
            raise ValueError(
                f"there is nothing to show for `{name}` here; of the parts that the builder writes: {there}"
            )
        return self.parts[name]

    def _table(self, path: str) -> str:
        """The file's rows, of which the first is the head."""
        if not (self.root / path).is_file():
            raise ValueError(f"there is no file {path}")
        head, *rows = csv.reader((self.root / path).read_text().splitlines())
        if ragged := [row for row in rows if len(row) != len(head)]:
            raise ValueError(f"{path}: a row of {len(ragged[0])} cells below a head of {len(head)}: {ragged[0]}")
        return "\n".join([_row(head), _row(["---"] * len(head)), *map(_row, rows)])


@cache
def _parse(source: str) -> ast.Module:
    return ast.parse(source)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(map(escape, cells))} |"


def _names(node: ast.stmt) -> list[str]:
    """What a statement defines: a function, a class, or variables."""
    if isinstance(node, DEFINITIONS):
        return [node.name]
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    return [target.id for target in targets if isinstance(target, ast.Name)]


def output_text(output: dict) -> str:
    """What a page shows of a cell's output."""
    if output["output_type"] == "display_data":
        return output["data"].get("text/plain", "")
    return output["text"].rstrip("\n") if "text" in output else "\n".join(output["traceback"])


def _block(info: str, text: str) -> str:
    """A fence that the text cannot close."""
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall(r"`+", text))])
    return f"{fence}{info}\n{text}\n{fence}"


def plain(caption: str) -> str:
    """The caption as plain text, for `alt`: formulas as the characters that they show."""
    text = html.unescape(re.sub(r"<annotation.*?</annotation>|<[^>]*>", "", caption))
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return escape(re.sub(r"[*`\u2061]", "", text))


def escape(text: str) -> str:
    """Text that Markdown and HTML show as it is."""
    return html.escape(text, quote=False).translate(formulas.MARKDOWN)
