"""Write a standalone file: a module, or one of its definitions, with everything it uses from the package."""

import ast
import hashlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter

from zhixing_copy.source import BLOCKS, PACKAGE, Import, Module, Statement

SHAPES = "jaxtyping"
LINE = 100


@dataclass(frozen=True)
class Standalone:
    """A standalone file: its code without header, the packages it needs, and names included from other modules."""

    name: str
    text: str
    needs: tuple[str, ...]
    borrowed: dict[str, list[str]]  # {other module: names}

    @property
    def digest(self) -> str:
        return digest(self.text)


def digest(content: str | bytes) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def standalone(modules: Mapping[str, Module], module: str, definition: str = "") -> Standalone:
    """Make a standalone file from a module, or from one of its definitions.

    Raises:
        ValueError: There is no such definition, two definitions have the same name, or the code does something that
            cannot work outside the package, such as importing a whole module of it.
    """
    collection = Collection(modules)
    home = modules[module]
    if definition and definition not in home.public:
        raise ValueError(f"{module} defines no {definition}")
    for statement in home.statements:
        if not definition or definition in statement.names:
            collection.take(module, statement)
    text = "" if definition or not home.docstring else f"{ast.get_source_segment(home.source, home.tree.body[0])}\n\n"
    imports, needs = _imports(collection.imports.values())
    needs = tuple(sorted({*needs, *collection.needs}))
    text += imports + collection.code()
    name = f"{module}.{definition}" if definition else module
    names = {other: {name for each in taken for name in each.names} for other, taken in collection.taken.items()}
    borrowed = {other: sorted(found) for other, found in names.items() if found and other != module}
    return Standalone(name, text, needs, borrowed)


@dataclass
class Collection:
    """The statements to write, by module; from which modules each imports; and the imports from other packages."""

    modules: Mapping[str, Module]
    taken: dict[str, set[Statement]] = field(default_factory=dict)
    sources: dict[str, set[str]] = field(default_factory=dict)  # {module: modules that it uses names from}
    imports: dict[str, Import] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)  # {name: its module or import statement}
    needs: set[str] = field(default_factory=set)  # other packages that are imported inside statements

    def take(self, module: str, statement: Statement) -> None:
        """Add the statement, and everything it refers to."""
        home, taken = self.modules[module], self.taken.setdefault(module, set())
        if statement in taken:
            return
        if not taken:
            _check_imports(home)
        taken.add(statement)
        self.sources.setdefault(module, set())
        _removed(home, statement)  # raises
        for name in sorted(statement.names):
            self._own(name, module)
        for each in statement.inner:
            self._link(module, each)
            top = each.module.partition(".")[0]
            if top != PACKAGE and top not in sys.stdlib_module_names:
                self.needs.add(top)
        for name in sorted(statement.uses):
            if name in home.imports:
                self._link(module, home.imports[name])
        for other in home.statements:
            # A statement that binds no name, such as a registration, belongs to the names that it refers to.
            if other.names & statement.uses or (not other.names and other.uses & statement.names):
                self.take(module, other)

    def _link(self, module: str, wanted: Import) -> None:
        top, _, path = wanted.module.partition(".")
        if top == SHAPES:
            return
        if top != PACKAGE:
            if wanted in self.modules[module].imports.values():
                self._own(wanted.bound, wanted.statement)
                self.imports[wanted.bound] = wanted
            return
        source = path.replace(".", "/")
        if source not in self.modules or wanted.bound != wanted.name:
            raise ValueError(f"{module}: import names from a module without renaming them, not `{wanted.statement}`")
        self.sources[module].add(source)
        for statement in self.modules[source].statements:
            if wanted.name in statement.names:
                self.take(source, statement)

    def _own(self, name: str, owner: str) -> None:
        if self.owners.setdefault(name, owner) != owner:
            raise ValueError(f"{name} is defined by both {self.owners[name]} and {owner}")

    def code(self) -> str:
        text = ""
        try:
            order = list(
                TopologicalSorter(
                    {module: sorted(self.sources[module]) for module in sorted(self.sources)}
                ).static_order()
            )
        except CycleError as error:
            raise ValueError(f"modules import from each other: {' from '.join(error.args[1])}") from error
        for module in order:
            home, last = self.modules[module], None
            for statement in home.statements:
                if statement in self.taken[module]:
                    near = last and last.last + 1 == statement.first
                    text += ("\n" if near else "\n\n\n") if text or self.imports else ""
                    text += _rewritten(home, statement)
                    last = statement
        return text + "\n"


def _imports(wanted: Iterator[Import]) -> tuple[str, tuple[str, ...]]:
    """Return the import statements, standard library first, and the names of the other packages."""
    whole, parts = set(), {}
    for each in wanted:
        if each.name:
            parts.setdefault(each.module, set()).add(each.statement.partition(" import ")[2])
        else:
            whole.add((each.module, each.statement))
    statements = [
        *sorted(whole),
        *((module, f"from {module} import {', '.join(sorted(parts[module]))}") for module in sorted(parts)),
    ]
    own = [(module.partition(".")[0] in sys.stdlib_module_names, module, text) for module, text in statements]
    blocks = ["\n".join(text for is_own, _, text in own if is_own is side) for side in (True, False)]
    needs = sorted({module.partition(".")[0] for is_own, module, _ in own if not is_own})
    return "\n\n".join(filter(None, blocks)), tuple(needs)


def _check_imports(home: Module) -> None:
    """Refuse imports that a file cannot contain, or of which one cannot tell what they bind."""
    inner = [each for statement in home.statements for each in statement.inner]
    for each in (*home.imports.values(), *inner):
        if each.name == "*" or each.module.startswith(".") or each.module == "__future__":
            raise ValueError(f"{home.name}: import each name from a module by its full name, not `{each.statement}`")
    if any(each.module.partition(".")[0] == SHAPES for each in inner):
        raise ValueError(f"{home.name}: import {SHAPES} at the top of the module only")


@lru_cache(maxsize=4096)
def _removed(home: Module, statement: Statement) -> set[int]:
    """Return the numbers of the lines that import from the package inside a function."""
    numbers = set()
    parts = list(ast.walk(statement.node))
    functions = [part for part in parts if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef))]
    inside = {id(part) for function in functions for part in ast.walk(function)}
    for block in (getattr(part, name, None) for part in parts for name in BLOCKS):
        if not isinstance(block, list):  # of an expression
            continue
        own = [each for each in block if isinstance(each, ast.ImportFrom) and each.module.split(".")[0] == PACKAGE]
        for each in own:
            before = home.lines[each.lineno - 1].encode()[: each.col_offset]
            after = home.lines[each.end_lineno - 1].encode()[each.end_col_offset :]
            if id(each) not in inside or own == block or (before + after.partition(b"#")[0]).strip():
                raise ValueError(
                    f"{home.name}:{each.lineno}: import from {PACKAGE} at the top of the module, or in a function, "
                    "on lines of their own and not alone in a block"
                )
            numbers |= {*range(each.lineno, each.end_lineno + 1)}
    return numbers


@lru_cache(maxsize=4096)  # most statements are part of several files
def _rewritten(home: Module, statement: Statement) -> str:
    """Return the statement's source with shapes as comments, and without nested imports from the package."""
    lines, removed = list(home.lines), _removed(home, statement)
    notes: dict[int, list[tuple[str, str]]] = {}
    for node, label in sorted(_shapes(home, statement.node), key=lambda pair: (pair[0].lineno, -pair[0].col_offset)):
        of, shape = node.slice.elts
        if node.lineno != node.end_lineno:
            raise ValueError(f"{home.name}:{node.lineno}: a shape annotation that spans several lines")
        line = lines[node.lineno - 1].encode()
        kept = line[of.col_offset : of.end_col_offset]
        lines[node.lineno - 1] = (line[: node.col_offset] + kept + line[node.end_col_offset :]).decode()
        notes.setdefault(node.lineno, []).insert(0, (label, f"{node.value.id} ({shape.value})"))
    for number, shapes in notes.items():
        line, note = lines[number - 1], f"# {_note(shapes)}"
        if len(line) + 2 + len(note) <= LINE:
            lines[number - 1] = f"{line}  {note}"
        else:
            lines[number - 1] = f"{line[: len(line) - len(line.lstrip())]}{note}\n{line}"
    kept = [lines[number - 1] for number in range(statement.first, statement.last + 1) if number not in removed]
    return "\n".join(kept)


def _note(shapes: list[tuple[str, str]]) -> str:
    """Format the shapes of one line; label each with its argument or `returns` if the labels differ."""
    if len({label for label, _ in shapes}) == 1:
        return ", ".join(shape for _, shape in shapes)
    labels = [label if i == 0 or label != shapes[i - 1][0] else "" for i, (label, _) in enumerate(shapes)]
    return ", ".join(label + shape for label, (_, shape) in zip(labels, shapes, strict=True))


def _shapes(home: Module, statement: ast.stmt) -> Iterator[tuple[ast.Subscript, str]]:
    """Yield each annotation with a shape, and its label for the comment: `x: `, `returns ` or nothing."""
    kinds = {each.bound for each in home.imports.values() if each.module == SHAPES}
    labels, found = {}, set()
    for node in ast.walk(statement):
        if isinstance(node, ast.arg) and node.annotation:
            labels |= {id(part): f"{node.arg}: " for part in ast.walk(node.annotation)}
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.returns:
            labels |= {id(part): "returns " for part in ast.walk(node.returns)}
    for node in ast.walk(statement):  # a subscript comes before its parts
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in kinds:
            found.add(node.value)
            yield node, labels.get(id(node), "")
        if isinstance(node, ast.Name) and node.id in kinds and node not in found:
            raise ValueError(f"{home.name}:{node.lineno}: {node.id} is used for something other than a shape")
