"""Parse a module's source: its imports, and the statements that define its names."""

import ast
import re
import symtable
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PACKAGE = "zhixing"
BLOCKS = "body", "orelse", "finalbody", "handlers", "cases"  # fields of a statement that contain statements
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True)
class Import:
    """One name that an import binds: `from torch import nn`, or, with an empty `name`, `import torch`."""

    module: str
    name: str
    bound: str

    @property
    def statement(self) -> str:
        alias = "" if self.bound in (self.name, self.module.partition(".")[0]) else f" as {self.bound}"
        return f"from {self.module} import {self.name}{alias}" if self.name else f"import {self.module}{alias}"


@dataclass(frozen=True)
class Statement:
    """A top-level statement of a module, from line `first` to line `last` (from 1), with comments right above it."""

    node: ast.stmt
    first: int
    last: int
    names: frozenset[str]  # names that it binds; none if it only acts on names that others bind
    uses: frozenset[str]  # names of the module that it refers to, nested code included
    inner: tuple[Import, ...]  # imports inside it


@dataclass(frozen=True)
class Module:
    """A module of the package; `zhixing.activations.gelu` has the name activations/gelu."""

    name: str
    path: Path

    @cached_property
    def source(self) -> str:
        return self.path.read_text(encoding="utf-8-sig")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source, self.path)

    @cached_property
    def docstring(self) -> str:
        return ast.get_docstring(self.tree) or ""

    @cached_property
    def imports(self) -> dict[str, Import]:
        return {each.bound: each for node in self.tree.body for each in _imports(node)}

    @cached_property
    def lines(self) -> list[str]:
        return self.source.split("\n")  # str.splitlines also splits at form feeds

    @cached_property
    def statements(self) -> list[Statement]:
        """All top-level statements but the docstring and the imports."""
        body = self.tree.body[bool(self.docstring) :]
        return [_statement(node, self.lines) for node in body if not isinstance(node, (ast.Import, ast.ImportFrom))]

    @cached_property
    def sources(self) -> set[str]:
        """The modules of the package that this one imports from."""
        return sources(self.tree)

    @cached_property
    def public(self) -> list[str]:
        """The names of functions and classes that do not begin with an underscore."""
        return [
            each.node.name
            for each in self.statements
            if isinstance(each.node, DEFINITIONS) and not each.node.name.startswith("_")
        ]

    def summary(self, definition: str = "") -> str:
        """Return the first line of the docstring, of the module or of this definition."""
        nodes = [self.tree] + [each.node for each in self.statements if isinstance(each.node, DEFINITIONS)]
        docs = [ast.get_docstring(node) for node in nodes if getattr(node, "name", "") == definition]
        return (docs[0] or "").partition("\n")[0] if docs else ""


def sources(tree: ast.Module) -> set[str]:
    """Return the modules of the package that any of the imports name."""
    wanted = {each.module for node in imports(tree) for each in _imports(node)}
    names = (name.partition(".") for name in wanted)
    return {name.replace(".", "/") for package, _, name in names if package == PACKAGE}


def imports(tree: ast.Module) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield all import statements, nested ones too. Expressions cannot contain any and are skipped, for speed."""
    stack = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        for block in BLOCKS:
            stack += getattr(node, block, ())


def _imports(node: ast.stmt) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(alias.name, "", alias.asname or alias.name.partition(".")[0])
    if isinstance(node, ast.ImportFrom):
        for alias in node.names:
            yield Import("." * node.level + (node.module or ""), alias.name, alias.asname or alias.name)


def _statement(node: ast.stmt, lines: list[str]) -> Statement:
    first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", []))])
    while first > 1 and lines[first - 2].startswith("#"):
        first -= 1
    table = symtable.symtable("\n".join(lines[first - 1 : node.end_lineno]), "<statement>", "exec")
    binds = symtable.Symbol.is_assigned, symtable.Symbol.is_imported, symtable.Symbol.is_namespace
    names = {each.get_name() for each in table.get_symbols() if any(does(each) for does in binds)}
    uses = {*_globals(table), *_quoted(node)}
    inner = tuple(each for part in ast.walk(node) if part is not node for each in _imports(part))
    return Statement(node, first, node.end_lineno, frozenset(names - {"_"}), frozenset(uses), inner)


def _quoted(node: ast.stmt) -> Iterator[str]:
    """Yield the names in annotations that are written as strings, to refer to later definitions."""
    for each in ast.walk(node):
        for annotation in filter(None, (getattr(each, "annotation", None), getattr(each, "returns", None))):
            for part in ast.walk(annotation):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield from re.findall(r"[^\W\d]\w*", part.value)


def _globals(table: symtable.SymbolTable) -> Iterator[str]:
    top = table.get_type() == "module"
    for symbol in table.get_symbols():
        if symbol.is_referenced() and (top or symbol.is_global()):
            yield symbol.get_name()
    for child in table.get_children():
        yield from _globals(child)
