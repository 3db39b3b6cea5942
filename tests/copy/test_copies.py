"""Test all files that can be copied: prove them, and run them without the library."""

import ast
import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from proof import Source, find_errors, ties, undefined_names

from zhixing_copy.catalogue import entries, installed
from zhixing_copy.source import Module
from zhixing_copy.standalone import standalone
from zhixing_site.site.evidence import files_that_test

ROOT = Path(__file__).resolve().parents[2]
MODULES = installed()
ENTRIES = list(entries(MODULES))
SOURCES = {name: Source(module.source) for name, module in MODULES.items()}
BORROWING = [name for name in MODULES if standalone(MODULES, name).borrowed]


def dotted(module: str) -> str:
    return f"zhixing.{module.replace('/', '.')}"


@pytest.mark.parametrize("module", MODULES)
def test_file_is_a_selection_of_its_modules_statements(module):
    assert {
        entry.name: errors
        for entry in ENTRIES
        if entry.module == module
        and (text := standalone(MODULES, module, entry.definition).text)
        and (errors := find_errors(text, module, entry.definition, SOURCES))
    } == {}


@pytest.fixture(scope="module")
def copies(tmp_path_factory) -> Path:
    """Return a folder with the file of each entry, under unique names that shadow no import."""
    folder = tmp_path_factory.mktemp("copies")
    for entry in ENTRIES:
        name = f"{entry.name.replace('/', '_').replace('.', '_')}_copy.py"
        (folder / name).write_text(standalone(MODULES, entry.module, entry.definition).text)
    return folder


def test_no_file_leaves_a_name_undefined(copies):
    assert undefined_names(copies) == {}


def test_no_file_is_tied_to_the_library_or_to_its_place(copies):
    found = {path.name: ties(path.read_text(), "zhixing") for path in copies.iterdir()}
    operator = re.compile(r"'zhixing::\w+'$")  # a name in torch's registry
    left = {name: [error for error in errors if not operator.search(error)] for name, errors in found.items()}
    assert {name: errors for name, errors in left.items() if errors} == {}


def test_modules_and_files_run_their_examples(copies, blocked):
    """Neither files nor processes that they start can import the package or jaxtyping."""
    names = [*map(dotted, MODULES), *map(str, sorted(copies.iterdir()))]
    assert len(names) > 100
    command = [sys.executable, str(Path(__file__).parent / "run_examples.py"), str(blocked), *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("module", MODULES)
def test_each_public_definition_shows_how_it_is_used(module):
    assert [name for name in MODULES[module].public if not has_example(MODULES[module], name)] == []


def has_example(module: Module, name: str) -> bool:
    """Return whether the docstring calls the definition, and checks an output from there on."""
    (node,) = [each.node for each in module.statements if getattr(each.node, "name", "") == name]
    _, title, text = (ast.get_docstring(node) or "").partition("Examples:\n")
    examples = doctest.DocTestParser().get_examples(text)
    calls = [example for example in examples if name in called(example.source)]
    return bool(title and calls) and any(each.want for each in examples[examples.index(calls[0]) :])


def called(code: str) -> set[str]:
    """Return what the code calls: itself, or a method of it."""
    functions = [node.func for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    return {ast.unparse(function).partition(".")[0] for function in functions}


@pytest.mark.parametrize("module", BORROWING)
def test_module_with_code_of_others_passes_its_tests(module, tmp_path):
    """Replace a module by its file and run its tests. A file without code of other modules is proven equal above."""
    copy, source = standalone(MODULES, module), tmp_path / "src"
    for path in (ROOT / "src/zhixing").rglob("*"):
        link = source / path.relative_to(ROOT / "src")
        if path.is_file() and "__pycache__" not in path.parts:
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    replace(source, module, copy.text)
    for other, names in copy.borrowed.items():
        # The other module gets the included names from this file, since two copies of a class are different types.
        replace(source, other, f"{MODULES[other].source}\n\nfrom {dotted(module)} import {', '.join(names)}\n")
    tests = [str(path) for path in files_that_test(module, MODULES, ROOT)]
    settings = [f"--rootdir={ROOT}", f"--config-file={ROOT / 'pyproject.toml'}", f"--basetemp={tmp_path / 'tests'}"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *settings, "-m", "not mutation", *tests],
        env=os.environ | {"PYTHONPATH": f"{source}{os.pathsep}{ROOT / 'src'}", "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


def replace(source: Path, module: str, text: str) -> None:
    path = source / f"zhixing/{module}.py"
    path.unlink()
    path.write_text(text)
