"""Cut definitions out of Python files, for pages to show."""

import ast
import textwrap
from functools import cache
from pathlib import Path

from zhixing_copy.source import DEFINITIONS
from zhixing_site.files import read_text

_parse = cache(ast.parse)  # by the text: a page shows several definitions of a file


def definition(path: str, name: str, root: Path) -> str:
    """The source of a definition without its docstring, which the page's API section shows; without a name, the file.

    Raises ValueError if there is no such definition.
    """
    if not (root / path).is_file():
        raise ValueError(f"there is no file {path}")
    source = read_text(root / path, root)
    if not name:
        return source.strip()
    node = _parse(source)
    for part in name.split("."):
        node = next((each for each in getattr(node, "body", []) if part in _names(each)), None)
        if not node:
            raise ValueError(f"there is no definition {name} in {path}")
    first = min(part.lineno for part in (node, *getattr(node, "decorator_list", [])))
    lines = source.split("\n")[first - 1 : node.end_lineno]
    if isinstance(node, DEFINITIONS) and ast.get_docstring(node) is not None and len(node.body) > 1:
        _remove(node.body[0], node.body[1], lines, first)
    return textwrap.dedent("\n".join(lines))


def _remove(docstring: ast.stmt, following: ast.stmt, lines: list[str], first: int) -> None:
    """Take the docstring out of the lines, of which the first has this number."""
    start, end = docstring.lineno - first, docstring.end_lineno - first
    before = lines[start].encode()[: docstring.col_offset].decode()
    after = lines[end].encode()[docstring.end_col_offset :].decode().lstrip()
    if before.strip() or after.startswith(";"):  # `def square(x): "Doc."; return x * x`
        end = following.lineno - first
        after = lines[end].encode()[following.col_offset :].decode()
        lines[start : end + 1] = [before + after]
    else:
        del lines[start : end + 1]


def _names(node: ast.stmt) -> list[str]:
    """The names of the function, the class, or the variables that a statement defines."""
    if isinstance(node, DEFINITIONS):
        return [node.name]
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    return [target.id for target in targets if isinstance(target, ast.Name)]
