"""Allowed imports of each package."""

import ast
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src"


def imported(path: Path) -> set[str]:
    """Return the top-level names of all imports of the file, at any depth."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


BUILDER = sorted((SOURCE / "zhixing_site").rglob("*.py"))
LIBRARY = sorted((SOURCE / "zhixing").rglob("*.py"))
COPY = sorted((SOURCE / "zhixing_copy").rglob("*.py"))


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_library_imports_no_documentation_tools(path):
    assert not imported(path) & {"mkdocs", "matplotlib", "zhixing_site", "IPython"}


@pytest.mark.parametrize("path", BUILDER, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_builder_imports_no_deep_learning(path):
    assert not imported(path) & {"zhixing", "torch"}


@pytest.mark.parametrize("path", COPY, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_copy_command_imports_only_the_standard_library(path):
    assert imported(path) <= {"zhixing_copy", *sys.stdlib_module_names}


# The parts of the builder that each package may import; modules that are not listed may import all.
PACKAGES = {
    "errors": set(),
    "files": {"errors"},
    "project": set(),
    "store": set(),
    "templates": set(),
    "execution": {"errors", "files", "project", "store", "execution"},
    "content": {"errors", "files", "project", "templates", "content"},
    "site": {"errors", "files", "project", "store", "templates", "execution", "content", "site"},
}


EVERYTHING = {path.relative_to(SOURCE / "zhixing_site").parts[0].removesuffix(".py") for path in BUILDER}


def imported_from_builder(path: Path) -> set[str]:
    """Return the packages and modules below zhixing_site from which the file imports."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    names = [f"{node.module}.{alias.name}" for node in nodes for alias in node.names]
    return {name.split(".")[1] for name in names if name.startswith("zhixing_site.")}


@pytest.mark.parametrize("path", BUILDER, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_packages_import_only_lower_packages(path):
    package = path.relative_to(SOURCE / "zhixing_site").parts[0].removesuffix(".py")
    assert imported_from_builder(path) <= PACKAGES.get(package, EVERYTHING)


def test_only_the_process_that_renders_imports_mkdocs():
    generator = {"mkdocs", "material", "markdown", "mkdocs_autorefs", "mkdocs_jupyter", "nbconvert"}
    assert [path.stem for path in BUILDER if imported(path) & generator] == ["mkdocs_process"]
