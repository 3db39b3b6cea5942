"""Check the docstrings that pages show as their API: what is shown there as it is typed."""

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from zhixing_copy.source import DEFINITIONS
from zhixing_site.content import dialects
from zhixing_site.content.expand import check_language
from zhixing_site.content.page import API, MARK, Page
from zhixing_site.errors import BuildError
from zhixing_site.files import parse

EXAMPLE = re.compile(r"^[ ]*>>> .*(?:\n.*\S.*)*", re.MULTILINE)  # which doctest runs


def check_docstrings(pages: Iterable[Page], root: Path) -> list[BuildError]:
    """An error for each formula, fence of Python, or mark of another dialect in the docstrings of these APIs."""
    modules = {module for page in pages for module in API.findall(page.text)}
    files = sorted(root / "src" / f"{module.replace('.', '/')}.py" for module in modules)
    return [error for path in files if path.is_file() for error in _errors(path, root)]


def _errors(file: Path, root: Path) -> Iterator[BuildError]:
    for text, line in _docstrings(parse(file, root)):
        text = EXAMPLE.sub(lambda example: "\n" * example[0].count("\n"), text)
        for mark in MARK.finditer(text):
            try:
                _check(mark)
            except ValueError as error:
                yield BuildError(
                    f"in a docstring: {error}",
                    file.relative_to(root).as_posix(),
                    line + text.count("\n", 0, mark.start()),
                )


def _docstrings(node: ast.AST) -> Iterator[tuple[str, int]]:
    """Each docstring that the API shows, and its first line."""
    if ast.get_docstring(node, clean=False) is not None:
        constant = node.body[0].value
        yield constant.value, constant.lineno
    for each in [] if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else node.body:
        if isinstance(each, DEFINITIONS) and not re.match("_[^_]", each.name):
            yield from _docstrings(each)


def _check(mark: re.Match) -> None:
    """Raise ValueError for what the API would show as it is typed."""
    kind = mark.lastgroup
    if kind == "fence":
        check_language(mark)
    hint = dialects.instead(mark) if kind == "foreign" else dialects.FORMULA
    if kind in ("inline", "block") or (kind == "foreign" and hint == dialects.FORMULA):
        formula = mark["inline"][: len(mark["tex"]) + 2] if kind == "inline" else mark[0]
        raise ValueError(f"the formula `{formula}` would be shown as it is typed; write it as code, like `x**2`")
    if kind == "foreign":
        raise ValueError(
            f"`{mark[0].strip()}` would be shown as it is typed; names are in backticks, links are `[text](address)`"
        )
