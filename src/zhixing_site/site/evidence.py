"""Which test functions check a module's code, and against which libraries: read from the test files, nothing runs."""

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from zhixing_copy.source import Module, imports

IMPORT = re.compile(r"\bzhixing\.(\w+)(?:\.(\w+)| import (\w+(?:, \w+)*))")
_parse = cache(ast.parse)  # by the text: one test file checks several modules
# What tests run on, and is no reference for what they test.
TOOLS = {"beartype", "hypothesis", "jaxtyping", "psutil", "pytest", "zhixing", "zhixing_copy", "zhixing_site"}


def files_that_test(module: str, modules: Mapping[str, Module], root: Path) -> list[Path]:
    """The module's own test file, else those that import it, else those of the modules that use it."""
    found = direct_test_files(module, root)
    if not found:
        users = [user for user, other in modules.items() if module in other.sources]
        found = {path for user in users for path in files_that_test(user, modules, root)}
    return sorted(found)


def direct_test_files(module: str, root: Path) -> set[Path]:
    """The module's own test file; where there is none, those that import it."""
    area, stem = module.split("/")
    own = root / "tests" / area / f"test_{stem}.py"
    return {own} if own.exists() else _files_that_import(module, root)


def functions_in(path: Path) -> list[str]:
    """The names of its tests, but for those that break the code on purpose."""
    functions = [node for node in _parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
    return [each.name for each in functions if each.name.startswith("test_") and not _is_mutation(each)]


def reference_libraries(path: Path) -> set[str]:
    """The libraries that a test file imports to compare with, those of its helpers in the same folder included."""
    names, libraries = set(_imported_packages(path)), set()
    for name in names - TOOLS - sys.stdlib_module_names:
        helper = path.parent / f"{name}.py"
        libraries |= reference_libraries(helper) if helper.exists() else {name}
    return libraries


def _is_mutation(function: ast.FunctionDef) -> bool:
    return any("mark.mutation" in ast.unparse(decorator) for decorator in function.decorator_list)


def _imported_packages(path: Path) -> Iterator[str]:
    for node in imports(_parse(path.read_text())):
        names = [each.name for each in node.names] if isinstance(node, ast.Import) else [node.module]
        yield from (name.partition(".")[0] for name in names)


def _files_that_import(module: str, root: Path) -> set[Path]:
    """The test files in the module's area that do, or that use a helper beside them that does."""
    files = {path: path.read_text() for path in (root / "tests" / module.partition("/")[0]).glob("*.py")}
    found = {path for path, text in files.items() if module in _imported_modules(text)}
    helpers = [path.name for path in found if not path.stem.startswith("test_")]
    found |= {path for path, text in files.items() if any(helper in text for helper in helpers)}
    return {path for path in found if path.stem.startswith("test_")}


def _imported_modules(text: str) -> set[str]:
    """The modules of the library that the text imports, also in programs that it contains as strings."""
    found = IMPORT.findall(text)
    return {f"{area}/{stem}" for area, stem, names in found for stem in ([stem] if stem else names.split(", "))}
