"""Run the Python of each English page as its reader sees it: `pytest --markdown-docs docs/en`.

A page becomes a program of as many lines. The line of each include becomes a call that runs what the reader sees
there, so that a traceback leads from the page to the snippet and on into the library. Hidden cells do not run.
"""

import importlib
import os
import re
import sys
import traceback
import types
from collections.abc import Callable, Iterator
from itertools import dropwhile
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore
from markdown_it.token import Token
from pytest_markdown_docs._runners import DefaultRunner, register_runner

from zhixing_site.content.definitions import definition
from zhixing_site.content.page import Page, Use
from zhixing_site.errors import BuildError
from zhixing_site.execution import session as cells
from zhixing_site.execution.runner import ENVIRONMENT
from zhixing_site.execution.snippet import read_snippet

ROOT = Path(__file__).resolve().parents[1]
OPENING = re.compile(r"(```|~~~)[ {.]*i?py")  # of a fence of Python, whatever precedes it

os.environ.update(ENVIRONMENT)  # before torch and matplotlib are imported


def pytest_markdown_docs_markdown_it() -> MarkdownIt:
    """A parser whose tokens are replaced by what the builder reads: its own pass over fences in boxes and tabs."""
    parser = MarkdownIt()
    parser.core.ruler.push("program", join_fences)
    return parser


def join_fences(state: StateCore) -> None:
    """Make the page's Python one fence, which fails at a line that opens a fence of Python and is not run."""
    page = Page("", state.src)
    calls = {use.line: f"include({use.path!r}, {use.name!r})" for use in page.uses if not use.figure}
    found = [mark for mark in page.marks if mark["fence"] and any(page.included(mark))]
    opened = {number for number, line in enumerate(page.text.split("\n"), 1) if OPENING.search(line)}
    for number in opened - {page.line(mark) for mark in found}:
        calls[number] = "raise SyntaxError('this fence of Python does not run')"
    if calls:
        first, last = min(calls), max(calls)
        code = "\n".join(calls.get(number, "") for number in range(first, last + 1))
        info = "python fixture:include runner:Program"
        state.tokens = [Token("fence", "code", 0, map=[first - 2, last], info=info, content=code)]


@pytest.fixture
def include(tmp_path, monkeypatch) -> Iterator[Callable[[str, str], None]]:
    """What a program calls; its cells share their names, as if they were copied into one session."""
    import matplotlib.pyplot as plt  # not above: they read ENVIRONMENT
    import torch

    monkeypatch.chdir(tmp_path)
    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)  # where pickle looks for what a cell defines
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    sessions = {}  # {snippet's name: a session for it}

    def include(path: str, name: str) -> None:
        if Use(path, name, 0).is_definition:
            # A definition is shown to be read, without its imports. It runs in its module, and not a second time here,
            # since that would register an operator again, without its gradient. What is shown must compile.
            if path.startswith("src/"):
                importlib.import_module(".".join(Path(path).with_suffix("").parts[1:]))
            compile(definition(path, name, ROOT), path, "exec")
            return
        snippet = read_snippet(ROOT / "snippets" / path, ROOT)
        if path not in sessions:
            sessions[path] = cells.Session(vars(main), ROOT, cells.future_features(snippet))
        try:
            sessions[path].run({cell.name: cell for cell in snippet.cells}[name])
        except BuildError as error:
            raise (error.__cause__ or error) from None  # what the cell raised, with its traceback
        finally:
            plt.close("all")

    yield include
    # What a page sets must not reach the next, which the builder runs in a process of its own.
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)


@register_runner()
class Program(DefaultRunner):
    """Reports a failure by its traceback alone, because most lines of a program are empty."""

    def runtest(self, test, args, **first):
        if not first:
            raise  # a TypeError of the page's, after which the plugin tries again
        super().runtest(test, args)

    def repr_failure(self, test, excinfo, style=None) -> str:
        frames = dropwhile(lambda frame: frame.filename != str(test.source_path), traceback.extract_tb(excinfo.tb))
        shown = [frame for frame in frames if frame.filename not in (__file__, cells.__file__)]
        return "".join(traceback.format_list(shown)) + excinfo.exconly()
