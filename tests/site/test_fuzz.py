"""The fuzzer notices what a builder must not do, and finds nothing where it does right."""

import sys
import time
from pathlib import Path

import pytest

from zhixing_site import build, cli
from zhixing_site.content.expand import Expander
from zhixing_site.errors import BuildError, BuildErrors

sys.path.insert(0, str(Path(__file__).parents[1] / "fuzz"))
from judge import judge
from mutants import Edit, Mutant, draw
from small import Files

STRAY = Mutant((Edit(("docs/en/index.md", "docs/zh/index.md"), "insert lines", "one $ here"),))


def refuse(cause: str, path: str = "docs/en/index.md", line: int = 1):
    def check(*_: object) -> None:
        raise BuildErrors([BuildError(cause, path, line)])

    return check


def touch_the_site(*_: object) -> None:
    Path("site/en/index.html").unlink()
    refuse("no")()


FAULTS = {
    "traceback: KeyError in": (build, "copy_files", lambda _: {}["missing"]),
    "hang": (build, "copy_files", lambda _: time.sleep(60)),
    "site touched": (build, "copy_files", touch_the_site),
    "names no file": (build, "copy_files", refuse("wrong", "docs/en/nothing.md")),
    "names no line": (build, "copy_files", refuse("wrong", line=0)),
    "does not name the changed file": (build, "copy_files", refuse("wrong", "docs/en/area/roots.md")),
    "traceback: printed": (build, "copy_files", refuse("Traceback (most recent call last)\n/zhixing_site/build.py")),
    "exit code 3": (cli, "main", lambda _: 3),
    "raw $": (Expander, "expand_stray", lambda self, mark: mark[0]),
    "lost text": (Expander, "expand_stray", lambda self, mark: "<script>"),
}


@pytest.fixture
def good(project) -> Files:
    paths = [path for path in project.root.rglob("*") if path.is_file()]
    names = {path.relative_to(project.root).as_posix(): path for path in paths}
    return {name: path.read_bytes() for name, path in names.items() if not name.startswith(("site/", ".cache/"))}


def test_refused_mutant_is_right(project, good):
    assert list(judge(project, good, STRAY)) == []


def test_mutant_that_differs_in_nothing_is_right(project, good):
    assert list(judge(project, good, Mutant((Edit(("docs/en/index.md",), "no final line end"),)))) == []


@pytest.mark.parametrize("kind", FAULTS)
def test_fault_of_the_builder_is_noticed(project, good, kind, monkeypatch):
    mutant = STRAY
    if FAULTS[kind][0] is build:
        mutant = Mutant((Edit(("docs/en/index.md", "docs/zh/index.md"), "insert lines", "one"),))
    monkeypatch.setattr(*FAULTS[kind])
    findings = list(judge(project, good, mutant, limit=2 if kind == "hang" else 60))
    assert any(finding.startswith(kind) for finding in findings), findings


def test_seed_gives_the_same_mutant_again(good):
    assert draw(7, good) == draw(7, good) != draw(8, good)
