"""The live preview: what a save brings up, what it leaves alone, and what is said of errors."""

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from zhixing_site.execution.processes import Limits
from zhixing_site.serve import Preview
from zhixing_site.site import reuse

ROOTS, SQUARES = "en/area/roots/index.html", "en/area/squares/index.html"


class Desk:
    """A project with its preview, and someone who saves files in it."""

    def __init__(self, project, renderer):
        self.project, self.ran = project, []
        self.preview = Preview(project.root, Limits(), lambda path, result: self.ran.append(path), renderer)
        self.save()

    def save(self, path: str = "", old: str = "", new: str = "") -> str:
        """Save an edit, or nothing; returns what is said to be wrong. `ran` names the snippets that ran."""
        self.ran.clear()
        if path:
            self.project.replace(path, old, new)
        self.preview.update()
        return self.preview.errors

    def shown(self, page: str) -> str:
        return (self.preview.site / page).read_text()

    def rendered(self) -> dict[str, int]:
        """When MkDocs last rendered each page."""
        folder = self.project.root / reuse.FOLDER
        return {
            path.relative_to(folder).with_suffix("").as_posix(): path.stat().st_mtime_ns
            for path in folder.rglob("index.html.pickle")
        }


@pytest.fixture
def project(pristine, renderer):
    return pristine.reset(renderer.root)


@pytest.fixture
def desk(project, renderer):
    return Desk(project, renderer)


def test_saved_page_is_shown_and_no_other_is_rendered(desk):
    before = desk.rendered()
    assert desk.save("docs/en/area/squares.md", "The square of 3", "Three squared") == ""
    assert "Three squared" in desk.shown(SQUARES)
    after = desk.rendered()
    assert {page for page in before if after[page] != before[page]} == {SQUARES}
    assert desk.ran == []


def test_search_finds_what_was_saved_and_what_was_not(desk):
    desk.save("docs/en/area/squares.md", "The square of 3", "Three squared")
    index = json.loads((desk.preview.site / "en/search.json").read_text())
    assert [section["id"] for section in index] == ["area/roots/", "area/squares/", "area/squares/#table"]
    assert index[1]["text"].startswith("Three squared")


def test_saved_snippet_runs_alone_and_is_shown_in_both_languages(desk):
    assert desk.save("snippets/area/squares.py", "(1, 2, 3)", "(1, 2, 30)") == ""
    assert desk.ran == ["snippets/area/squares.py"]
    assert "30 900" in desk.shown(SQUARES)
    assert "30 900" in desk.shown(SQUARES.replace("en", "zh"))


def test_saved_module_runs_what_depends_on_it(desk):
    assert desk.save("src/things/root.py", "x**0.5", "x**0.5 + 1") == ""
    assert desk.ran == ["snippets/area/roots.py"]
    assert "4.0" in desk.shown(ROOTS)


def test_saved_module_has_pages_rendered_that_document_it(desk):
    for language in "en", "zh":
        path = f"docs/{language}/area/roots.md"
        desk.project.write(path, desk.project.read(path) + "\n::: things.lonely\n")
    desk.save()
    before = desk.rendered()
    desk.save("src/things/lonely.py", "1", "2")
    after = desk.rendered()
    assert {page for page in before if after[page] != before[page]} >= {ROOTS, ROOTS.replace("en", "zh")}
    assert after[SQUARES] == before[SQUARES]


def test_failing_snippet_is_told_and_its_pages_stay(desk):
    said = desk.save("snippets/area/squares.py", "(1, 2, 3)", "(1, 2, 1 / 0)")
    assert "ZeroDivisionError" in said
    assert "shown on docs/en/area/squares.md" in said
    assert "3 9" in desk.shown(SQUARES)
    said = desk.save("docs/en/area/roots.md", "# Roots", "# All roots")
    assert "ZeroDivisionError" in said
    assert "All roots" in desk.shown(ROOTS)
    assert desk.save("snippets/area/squares.py", "1 / 0", "3") == ""


def test_failing_snippet_at_the_start_leaves_the_other_pages(project, renderer):
    project.replace("snippets/area/squares.py", "(1, 2, 3)", "(1, 2, 1 / 0)")
    desk = Desk(project, renderer)
    assert "ZeroDivisionError" in desk.preview.errors
    assert "3.0" in desk.shown(ROOTS)
    assert re.search("<h1[^>]*>area/squares<", desk.shown(SQUARES))
    assert desk.save("snippets/area/squares.py", "1 / 0", "3") == ""
    assert "3 9" in desk.shown(SQUARES)


def test_page_at_error_is_told_and_stays(desk):
    said = desk.save("docs/en/area/squares.md", "$3^2", r"$3^\nothing{2}")
    assert f"docs/en/area/squares.md:{desk.project.line('docs/en/area/squares.md', 'nothing')}: the formula" in said
    assert "The square of 3 is" in desk.shown(SQUARES)
    assert desk.save("docs/en/area/squares.md", r"$3^\nothing{2}", "$3^2") == ""


def test_twin_that_differs_is_told_but_a_review_is_not_asked_for(desk):
    assert desk.save("docs/en/area/squares.md", "## Table { #table }", "## The table { #table }") == ""
    assert "differs from its translation" in desk.save("docs/en/area/squares.md", "x \\cdot x", "x x")
    assert "The table" in desk.shown(SQUARES)


def test_dead_link_is_told_until_it_is_mended(desk):
    assert "dead link ../roots/#nothing" in desk.save("docs/en/area/squares.md", "roots.md#roots", "roots.md#nothing")
    assert "dead link ../roots/#nothing" in desk.save("docs/zh/area/roots.md", "# 根", "# 方根")
    assert "dead link" not in desk.save("docs/en/area/squares.md", "roots.md#nothing", "roots.md#roots")


def test_page_that_appears_and_disappears(desk):
    texts = {"en": "# More { #more }\n", "zh": "# 更多 { #more }\n"}
    for language, text in texts.items():
        desk.project.write(f"docs/{language}/area/more.md", text)
    desk.project.write("snippets/area/more.py", '# %% more tags=["hidden"]\n1\n')
    assert desk.save() == ""
    assert "更多" in desk.shown("zh/area/more/index.html")
    assert "More: the notebook" in desk.shown("en/lab/area/more/index.html")
    (desk.project.root / "snippets/area/more.py").unlink()
    for language in texts:
        (desk.project.root / f"docs/{language}/area/more.md").unlink()
    assert desk.save() == ""
    assert not (desk.preview.site / "en/area/more").exists()
    assert not (desk.preview.site / "en/lab/area/more").exists()


@pytest.mark.parametrize("path", ["mkdocs.yml", "theme/main.html"])
def test_what_all_pages_share_renders_all(desk, path):
    before = desk.rendered()
    old, new = {"mkdocs.yml": ("Small", "Smaller"), "theme/main.html": ("<body>", "<body><p>everywhere</p>")}[path]
    assert desk.save(path, old, new) == ""
    assert all(written != before[page] for page, written in desk.rendered().items())


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("mkdocs.yml", b"site_name: [\n"),
        ("docs/en/area/roots.md", b"\xff\xfe"),
        ("docs/en/area/roots.md", b'```python\n--8<-- "area/roots.py:root"\ntyped\n```\n'),
        ("snippets/area/roots.py", b"\xff"),
        ("snippets/area/roots.py", b"root\n"),
        ("src/things/root.py", b"def root(:\n"),
        ("snippets/area/squares.toml", b"[text\n"),
        ("docs/index.html", None),
    ],
    ids=str,
)
def test_nothing_that_is_saved_ends_the_preview(desk, path, content):
    file = desk.project.root / path
    good = file.read_bytes()
    file.write_bytes(content) if content is not None else file.unlink()
    desk.preview.update()
    assert desk.preview.errors
    file.write_bytes(good)
    desk.preview.update()
    assert desk.preview.errors == ""


@pytest.fixture
def server(project):
    """`python -m zhixing_site serve` on a free port: the process and its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "zhixing_site", "serve", "--port", "0"],
        cwd=project.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    yield process, process.stdout.readline().strip()
    try:
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    finally:
        process.kill()
        process.communicate()


def get(address: str) -> str:
    try:
        with urllib.request.urlopen(address, timeout=30) as response:
            return response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.read().decode()


def news(address: str, page: str) -> str:
    """The page once the preview is newer than what is shown there now, as its script asks."""
    (version,) = re.findall(r'data-version="(\d+)"', get(address + page))
    assert get(f"{address}preview?seen={version}") != version
    return get(address + page)


def test_browser_is_told_of_saves_and_of_errors(server, project):
    process, address = server
    assert "up to date" in process.stdout.readline()
    assert "The square of 3" in get(address + "en/area/squares/")
    assert get(address + "en/area/squares").endswith(get(address + "en/area/squares/"))
    assert "location.reload" in get(address + "preview.js")
    assert get(address + "en/area/squares/curve-light.svg").startswith("<?xml")
    project.replace("docs/en/area/squares.md", "The square of 3", "Three squared")
    assert "Three squared" in news(address, "en/area/squares/")
    project.replace("docs/en/area/squares.md", "$3^2", "${<}&3^")
    faulty = news(address, "en/area/roots/")
    assert "docs/en/area/squares.md:3: " in re.search('data-errors="([^"]*)"', faulty)[1]
    assert "&lt;" in faulty
    project.replace("docs/en/area/squares.md", "${<}&3^", "$3^2")
    assert 'data-errors=""' in news(address, "en/area/nothing/")
    assert get(address + "preview").isdigit()


def test_configuration_that_an_editor_puts_in_place_is_seen(server, project):
    process, address = server
    assert "up to date" in process.stdout.readline()
    project.write("mkdocs.new", project.read("mkdocs.yml").replace("Small", "[Small"))
    (project.root / "mkdocs.new").rename(project.root / "mkdocs.yml")
    assert "mkdocs.yml" in news(address, "en/area/roots/")


def test_taken_port_is_told(project):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, said = project.command("serve", "--port", str(taken.getsockname()[1]))
    assert code == 1
    assert "choose another with --port" in said
