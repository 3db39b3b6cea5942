"""Prove statically that a copied file is equivalent to the original: it consists of the original's own statements.

The proof compares Python's syntax trees, and shares no code with the program that writes the files.
"""

import ast
import builtins
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

IMPORTS = ast.Import, ast.ImportFrom
FUNCTIONS = ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda
DEFINITIONS = ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef
WRAPPERS = "staticmethod", "classmethod", "property"  # they do not change the function that they wrap


@dataclass(frozen=True)
class Source:
    """The top level of a module or a copied file: its imports, and its statements without shapes."""

    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def imports(self) -> dict[str, tuple[str, str]]:
        """{bound name: (module, imported name)}; the imported name is empty for `import module`."""
        found = {}
        for node in self.tree.body:
            if isinstance(node, ast.Import):
                found |= {each.asname or each.name.partition(".")[0]: (each.name, "") for each in node.names}
            elif isinstance(node, ast.ImportFrom):
                found |= {each.asname or each.name: (node.module, each.name) for each in node.names}
        return found

    @cached_property
    def statements(self) -> list[ast.stmt]:
        shapes = {name for name, (module, _) in self.imports.items() if module == "jaxtyping"}
        body = self.tree.body[ast.get_docstring(self.tree) is not None :]
        return [Plain(shapes).visit(deepcopy(node)) for node in body if not isinstance(node, IMPORTS)]

    @cached_property
    def keys(self) -> list[str]:
        return [ast.dump(node) for node in self.statements]


class Plain(ast.NodeTransformer):
    """Replace `Float[Tensor, "b c"]` by `Tensor`, and remove imports of the package inside functions."""

    def __init__(self, shapes: set[str]):
        self.shapes = shapes

    def visit_Subscript(self, node):
        if isinstance(node.value, ast.Name) and node.value.id in self.shapes:
            return self.visit(node.slice.elts[0])
        return self.generic_visit(node)

    def visit_ImportFrom(self, node):
        return None if node.module.partition(".")[0] == "zhixing" else node


def find_errors(text: str, module: str, definition: str, sources: Mapping[str, Source]) -> list[str]:
    """Return why the file of a module, or of one of its definitions, is not equivalent; empty if it is.

    Args:
        sources: {name of a module, such as `activations/gelu`: its source}
    """
    file, errors = Source(text), []
    kept: dict[str, list[int]] = {name: [] for name in sources}  # {module: indices of its statements in the file}
    owners: dict[str, str] = {}  # {name that the file defines: module of the defining statement}
    # Two modules may contain the same statement; the file's own module is preferred, then those that it imports.
    imported = reached(module, sources)
    preferred = sorted(sources, key=lambda name: (name != module, name not in imported))
    for node, key in zip(file.statements, file.keys, strict=True):
        for name in preferred:
            last = kept[name][-1] if kept[name] else -1
            if key in sources[name].keys[last + 1 :]:
                kept[name].append(sources[name].keys.index(key, last + 1))
                owners |= dict.fromkeys(bound(node), name)
                break
        else:
            errors.append(f"no module has this statement after the preceding ones: {first_line(node)}")
    if definition and owners.get(definition) != module:
        errors.append(f"{definition} is not defined by a statement of {module}")
    for name in filter(kept.get, sources):
        source = sources[name]
        names = set().union(*(bound(source.statements[index]) for index in kept[name]))
        for index, node in enumerate(source.statements):
            if index in kept[name]:
                errors += rebound_names(node, name, source, file, owners)
            elif name == module and not definition:
                errors.append(f"left out: {first_line(node)}")
            elif touched := acts_on(node) & names:
                errors.append(f"left out, though it acts on {min(touched)}: {first_line(node)}")
    return errors


def reached(module: str, sources: Mapping[str, Source]) -> set[str]:
    """Return the modules that a module imports, also inside functions, and that these import."""
    found, left = set(), [module]
    while left:
        nodes = [node for node in ast.walk(sources[left.pop()].tree) if isinstance(node, ast.ImportFrom)]
        paths = {node.module.removeprefix("zhixing.").replace(".", "/") for node in nodes}
        left += paths & sources.keys() - found
        found |= paths & sources.keys()
    return found


def first_line(node: ast.stmt) -> str:
    return ast.unparse(node).partition("\n")[0]


def rebound_names(node: ast.stmt, name: str, source: Source, file: Source, owners: Mapping[str, str]) -> Iterator[str]:
    """Yield an error for each name that has another meaning in the file than in the module."""
    own = set().union(*map(bound, source.statements))
    imports = source.imports | inner_imports(source, node)
    for used in named(node):
        module, _ = wanted = imports.get(used, ("", ""))
        package, _, path = module.partition(".")
        owner = path.replace(".", "/") if package == "zhixing" else name if used in own else ""
        # A name that the file does not bind is local to a function or undefined, unless it is a builtin.
        anywhere = used in owners or used in file.imports or hasattr(builtins, used)
        if owner and anywhere and owners.get(used) != owner:
            yield f"{used} of {owner} is bound by {owners.get(used, 'something else')}"
        if module and not owner and module != "jaxtyping" and file.imports.get(used, wanted) != wanted:
            yield f"{used} is not the same import as in {name}"


def inner_imports(source: Source, node: ast.stmt) -> dict[str, tuple[str, str]]:
    """Return the imports inside this statement, including those that `Plain` removes."""
    (original,) = [each for each in source.tree.body if each.lineno == node.lineno]
    found = [each for each in ast.walk(original) if isinstance(each, ast.ImportFrom)]
    return {alias.asname or alias.name: (each.module, alias.name) for each in found for alias in each.names}


def bound(node: ast.stmt) -> set[str]:
    """Return the names that a top-level statement binds."""
    parts = [node] if isinstance(node, DEFINITIONS) else list(ast.walk(node))
    names = {each.id for each in parts if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}
    names |= {each.name for each in parts if isinstance(each, DEFINITIONS)}
    names |= {each.asname or each.name.partition(".")[0] for each in parts if isinstance(each, ast.alias)}
    return names - {"_"}


def acts_on(node: ast.stmt) -> set[str]:
    """Return the names that the statement binds, or whose values it can change when the module is imported.

    It can change a value if it assigns to its attribute or item, calls its method, passes it to a call or decorates
    with it. A statement that is neither a definition nor an assignment can change every value that it names.
    """
    if isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'":
        return set()  # does not run on import
    if not isinstance(node, (*DEFINITIONS, ast.Assign, ast.AnnAssign)):
        return bound(node) | named(node)
    touched: list[ast.AST] = []
    for each in run_on_import(node):
        touched += getattr(each, "decorator_list", [])
        if isinstance(each, ast.Call) and ast.unparse(each.func) not in WRAPPERS:
            touched += [*each.args, *(word.value for word in each.keywords)]
            touched += [each.func] if isinstance(each.func, ast.Attribute) else []
        elif isinstance(each, (ast.Attribute, ast.Subscript)) and isinstance(each.ctx, ast.Store):
            touched.append(each.value)
    return bound(node).union(*map(named, touched))


def named(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def run_on_import(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the parts of a statement that run when its module is imported: all but the bodies of functions."""
    yield node
    for name, value in ast.iter_fields(node):
        if name != "body" or not isinstance(node, FUNCTIONS):
            for each in value if isinstance(value, list) else [value]:
                if isinstance(each, ast.AST):
                    yield from run_on_import(each)


PLACE = "__file__", "__package__", "__spec__", "__path__", "__loader__"


def ties(text: str, package: str) -> list[str]:
    """Return what a file says that holds only inside the package, by line: its name, in a string too, or a place.

    A docstring may name the package.
    """
    tree = ast.parse(text)
    documented = [node for node in ast.walk(tree) if isinstance(node, (ast.Module, *DEFINITIONS))]
    docs = {id(node.body[0].value) for node in documented if ast.get_docstring(node) is not None}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            if package in node.value:
                found.append(f"line {node.lineno}: {node.value!r}")
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            if package in ast.unparse(node) or getattr(node, "level", 0):
                found.append(f"line {node.lineno}: {ast.unparse(node)}")
        elif isinstance(node, ast.Name) and node.id in PLACE:
            found.append(f"line {node.lineno}: {node.id}")
    return found


def undefined_names(folder: Path) -> dict[str, list[str]]:
    """Return {file: ruff's messages about names that are undefined, redefined, or imported and unused}."""
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select=F401,F811,F821", "--output-format=json"]
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False)
    found: dict[str, list[str]] = {}
    for each in json.loads(done.stdout):
        found.setdefault(Path(each["filename"]).name, []).append(each["message"])
    return found
