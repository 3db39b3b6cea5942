"""The evidence for a page's code: versions, and the test functions that check it. Test files are read, not run."""

import ast
import hashlib
import json
import platform
import re
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path

from zhixing_copy.source import Module, imports
from zhixing_site.files import parse, read_text

IMPORT = re.compile(r"\bzhixing\.(\w+)(?:\.(\w+)| import (\w+(?:, \w+)*))")
WIDEST = {"avx512f": "AVX-512", "avx2": "AVX2"}
RECORDINGS = "benchmarks/results"
# What tests are written with, which is no reference for what they test.
TOOLS = {"beartype", "gymnasium", "hypothesis", "jaxtyping", "numpy", "psutil", "pytest", "triton"}
# Names on PyPI that differ from those to import by more than a dash.
NAMES = {
    "flash_pytorch": "FLASH-pytorch",
    "info_nce": "info-nce-pytorch",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
}
OURS = {"zhixing", "zhixing_copy", "zhixing_site"}


@cache
def versions() -> dict[str, str]:
    """The versions that pages name, and the processor of the build."""
    return {"torch": version("torch"), "python": platform.python_version(), "processor": processor()}


def processor() -> str:
    """The widest vector instructions of this processor, AVX-512 or AVX2, else its kind, such as arm64."""
    path = Path("/proc/cpuinfo")
    flags = path.read_text().split() if path.exists() else []
    return next((name for flag, name in WIDEST.items() if flag in flags), platform.machine())


def tests_of(names: Iterable[str], modules: Mapping[str, Module], root: Path) -> dict[str, list[str]]:
    """{path of a test file: its test functions} for these modules.

    Test files that merely use the modules' users count only if no other file tests any of the modules.
    """
    direct = {path for name in names for path in _direct_test_files(name, root)}
    files = direct or {path for name in names for path in files_that_test(name, modules, root)}
    functions = {path.relative_to(root).as_posix(): functions_in(path) for path in sorted(files)}
    return functions if any(functions.values()) else {}


def files_that_test(module: str, modules: Mapping[str, Module], root: Path) -> list[Path]:
    """The module's own test file, else those that import it, else those of the modules that use it."""
    found = _direct_test_files(module, root)
    if not found:
        users = [user for user, other in modules.items() if module in other.sources]
        found = {path for user in users for path in files_that_test(user, modules, root)}
    return sorted(found)


def functions_in(path: Path) -> list[str]:
    """The names of the file's test functions, without those that break the code on purpose."""
    functions = [node for node in parse(path, path.parents[2]).body if isinstance(node, ast.FunctionDef)]
    decorators = {each.name: " ".join(map(ast.unparse, each.decorator_list)) for each in functions}
    return [name for name in decorators if name.startswith("test_") and "mark.mutation" not in decorators[name]]


def reference_libraries(path: Path) -> set[str]:
    """The names on PyPI of the libraries that the test file, or a helper that it imports, compares with."""
    names, libraries = set(), set()
    for node in imports(parse(path, path.parents[2])):
        names |= {each.name for each in node.names} if isinstance(node, ast.Import) else {node.module}
    for name in {name.partition(".")[0] for name in names} - TOOLS - OURS - sys.stdlib_module_names:
        helpers = [folder / f"{name}.py" for folder in path.parents[:2]]
        found = next(filter(Path.exists, helpers), None)
        libraries |= reference_libraries(found) if found else {NAMES.get(name, name.replace("_", "-"))}
    return libraries


def recordings(root: Path) -> dict[str, dict]:
    """{name: content} of the results of benchmarks."""
    return {path.stem: json.loads(read_text(path, root)) for path in sorted((root / RECORDINGS).glob("*.json"))}


def digest(module: str, modules: Mapping[str, Module], root: Path) -> str:
    """The digest of a module and its tests, by which a recording is known to be of the present ones."""
    paths = [root / f"src/zhixing/{module}.py", *files_that_test(module, modules, root)]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()[:12]


def mutants(names: Iterable[str], modules: Mapping[str, Module], root: Path) -> dict[str, int]:
    """How many of these modules were assessed as they are now, with how many mutants, and how many were noticed."""
    recorded = recordings(root).get("mutation", {"modules": {}})["modules"]
    names = [name for name in names if name in recorded and recorded[name]["digest"] == digest(name, modules, root)]
    sums = {key: sum(recorded[name][key] for name in names) for key in ("tried", "noticed")}
    return {"assessed": len(names), **sums}


def _direct_test_files(module: str, root: Path) -> set[Path]:
    """The module's own test file; without one, those in its area that import it, or use a helper that imports it."""
    folder, stem = root / "tests" / module.partition("/")[0], module.partition("/")[2]
    own = folder / f"test_{stem}.py"
    if own.exists():
        return {own}
    files = {path: read_text(path, root) for path in folder.glob("[!.]*.py")}
    found = {path for path, text in files.items() if module in _imported_modules(text)}
    helpers = [path.name for path in found if not path.stem.startswith("test_")]
    found |= {path for path, text in files.items() if any(helper in text for helper in helpers)}
    return {path for path in found if path.stem.startswith("test_")}


def _imported_modules(text: str) -> set[str]:
    """The library's modules that the text imports, in programs that it holds as strings too."""
    found = IMPORT.findall(text)
    return {f"{area}/{stem}" for area, stem, names in found for stem in ([stem] if stem else names.split(", "))}
