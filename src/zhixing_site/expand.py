"""Expand a page: from its Markdown and the results of the runs to Markdown that any site generator can read."""

import html
import posixpath
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import griffe

from zhixing_site import formula
from zhixing_site.fault import Fault
from zhixing_site.page import MARK, Page

SCHEMES = ("light", "dark")


def figure_path(snippet: str, cell: str, scheme: str) -> str:
    """Where a drawing lies below the root of a language's site: activations/gelu/tails-dark.svg."""
    return f"{snippet.removesuffix('.py')}/{cell}-{scheme}.svg"


def drawings(notebook: dict) -> dict[str, dict[str, str]]:
    """{cell: {'en-light': svg, …}} of an executed notebook."""
    outputs = [(cell["id"], output.get("metadata", {})) for cell in notebook["cells"] for output in cell["outputs"]]
    return {cell: metadata["drawings"] for cell, metadata in outputs if "drawings" in metadata}


@dataclass(frozen=True)
class Expander:
    """Expands pages of both languages from {snippet name: executed notebook} and the files below `root`."""

    notebooks: Mapping[str, dict]
    root: Path

    def expand(self, page: Page) -> str:
        """The page as plain Markdown; raises Fault at the first mark that cannot be expanded."""
        return MARK.sub(lambda mark: self._replace(mark, page, page.line(mark)), page.text)

    def _replace(self, mark: re.Match, page: Page, line: int) -> str:
        try:
            if mark["fence"]:
                return self._fence(mark, page, line)
            if mark["block"] or mark["inline"]:
                return self._formula(mark, page)
            if mark["figure"]:
                return self._figure(mark, page, line)
            if mark["value"]:
                return self._value(mark, page).replace("-", "−")
            if mark["heading"] and re.search(r"(?<!\\)\$|\{\{ ", mark["heading"]):
                raise ValueError("a formula or value in a heading, which contents and search would show raw")
            if mark["stray"]:
                raise ValueError(f"a stray `{mark[0]}`: no formula or include; for a dollar sign write `\\$`")
        except ValueError as error:
            raise Fault(str(error), page.path, line) from error
        return mark[0]

    def _fence(self, mark: re.Match, page: Page, line: int) -> str:
        code, shown, title = [], [], ""
        for use in page.included(mark):
            try:
                if use.path.startswith("src/"):
                    code.append(self._definition(use.path, use.name))
                    title = f' title="{use.path}"'
                else:
                    cell = self._cell(use.path, use.name)
                    code.append(cell["source"])
                    shown += filter(None, map(_shown_text, cell["outputs"]))
            except ValueError as error:
                raise Fault(str(error), page.path, use.line) from error
        if not code and mark["info"].split()[:1] == ["python"]:
            raise ValueError("Python typed into the page; put it into the snippet and include the cell")
        if not code:
            return mark[0]
        blocks = [_block(mark["info"].strip() + title, "\n\n\n".join(code))]
        blocks += [_block(" { .text .output .no-copy }", text) for text in shown]
        return textwrap.indent("\n\n".join(blocks), mark["indent"])

    def _definition(self, path: str, name: str) -> str:
        file = self.root / path
        if not file.is_file():
            raise ValueError(f"there is no file {path}")
        source = file.read_text()
        try:
            found = griffe.visit(file.stem, filepath=file, code=source)[name]
        except KeyError:
            raise ValueError(f"there is no definition {name} in {path}") from None
        lines = source.splitlines()
        if found.docstring:  # it stands whole in the page's API section
            lines[found.docstring.lineno - 1 : found.docstring.endlineno] = []
            found.endlineno -= found.docstring.endlineno - found.docstring.lineno + 1
        return textwrap.dedent("\n".join(lines[found.lineno - 1 : found.endlineno]))

    def _cell(self, snippet: str, name: str) -> dict:
        if snippet not in self.notebooks:
            raise ValueError(f"there is no snippet snippets/{snippet}")
        for cell in self.notebooks[snippet]["cells"]:
            if cell["id"] == name:
                return cell
        raise ValueError(f"there is no cell {name} in snippets/{snippet}")

    def _formula(self, mark: re.Match, page: Page) -> str:
        tex = mark["block"] or mark["inline"]
        tex = MARK.sub(lambda inner: self._tex_value(inner, page) if inner["value"] else inner[0], tex)
        return formula.to_html(tex, block=bool(mark["block"]))

    def _value(self, mark: re.Match, page: Page) -> str:
        snippet, name = f"{page.name}.py", mark["value"]
        values = self.notebooks[snippet]["metadata"]["zhixing"]["values"] if snippet in self.notebooks else {}
        if name not in values:
            raise ValueError(f"no number or text `{name}` is left at the end of snippets/{snippet}")
        return format(values[name], mark["spec"] or "")

    def _tex_value(self, mark: re.Match, page: Page) -> str:
        """A value inside a formula: 4.7e-04 becomes 4.7\\times10^{-4}."""
        value = self._value(mark, page)
        return re.sub(r"(?<=\d)e([-+]\d+)$", lambda exponent: rf"\times10^{{{int(exponent[1])}}}", value)

    def _figure(self, mark: re.Match, page: Page, line: int) -> str:
        snippet, name = mark["figure"].split(":")
        self._cell(snippet, name)
        caption = MARK.sub(lambda inner: self._replace(inner, page, line), " ".join(mark["caption"].split()))
        drawn = drawings(self.notebooks[snippet]).get(name)
        if not drawn or not caption:
            raise ValueError("a figure without a caption" if drawn else f"cell {name} of snippets/{snippet} draws none")
        lines = ['<figure markdown="span">']
        for scheme in SCHEMES:
            width, height = re.search(
                r'width="([\d.]+)pt" height="([\d.]+)pt"', drawn[f"{page.language}-{scheme}"]
            ).groups()
            path = posixpath.relpath(figure_path(snippet, name, scheme), posixpath.dirname(page.name) or ".")
            size = f'width="{float(width) * 4 / 3:.0f}" height="{float(height) * 4 / 3:.0f}"'  # 96 pixels, 72 points
            lines.append(f"![{_plain(caption)}]({path}){{ {size} loading=lazy .only-{scheme} }}")
        return "\n".join([*lines, f'<figcaption markdown="span">{caption}</figcaption>', "</figure>"])


def _shown_text(output: dict) -> str:
    return output["text"].rstrip("\n") if "text" in output else "\n".join(output.get("traceback", []))


def _block(info: str, text: str) -> str:
    """A fence that the text cannot close."""
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall(r"`+", text))])
    return f"{fence}{info}\n{text}\n{fence}"


def _plain(caption: str) -> str:
    """The caption as plain text, for `alt`: formulas as the characters that they show."""
    text = html.unescape(re.sub(r"<annotation.*?</annotation>|<[^>]*>", "", caption))
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return html.escape(re.sub(r"[*`\u2060\u2061]", "", text)).translate(formula.MARKDOWN)
