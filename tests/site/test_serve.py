"""The live preview: pages that a save updates, pages that it keeps, and reported errors."""

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
from zhixing_site.site import copies, reuse

ROOTS, SQUARES = "en/area/roots/index.html", "en/area/squares/index.html"


class Workspace:
    """A project with its preview, in which tests save edits."""

    def __init__(self, project, renderer):
        self.project, self.ran = project, []
        self.preview = Preview(project.root, Limits(), lambda path, result: self.ran.append(path), renderer)
        self.save()

    def save(self, path: str = "", old: str = "", new: str = "") -> str:
        """Save an edit, if given, and update the preview; return its errors. `ran` lists the snippets that ran."""
        self.ran.clear()
        if path:
            self.project.replace(path, old, new)
        self.preview.update()
        return self.preview.errors

    def shown(self, page: str) -> str:
        return (self.preview.site / page).read_text()

    def rendered(self) -> dict[str, int]:
        """Return when MkDocs last rendered each page."""
        folder = self.project.root / reuse.FOLDER
        return {
            path.relative_to(folder).with_suffix("").as_posix(): path.stat().st_mtime_ns
            for path in folder.rglob("index.html.pickle")
        }


@pytest.fixture
def project(pristine, renderer):
    return pristine.reset(renderer.root)


@pytest.fixture
def workspace(project, renderer):
    return Workspace(project, renderer)


def test_saved_page_is_shown_and_no_other_page_is_rendered(workspace):
    before = workspace.rendered()
    assert workspace.save("docs/en/area/squares.md", "The square of 3", "Three squared") == ""
    assert "Three squared" in workspace.shown(SQUARES)
    after = workspace.rendered()
    assert {page for page in before if after[page] != before[page]} == {SQUARES}
    assert workspace.ran == []


def test_search_index_covers_saved_and_unchanged_pages(workspace):
    workspace.save("docs/en/area/squares.md", "The square of 3", "Three squared")
    pages, texts = (
        json.loads((workspace.preview.site / f"en/search-{name}.json").read_text()) for name in ("pages", "text")
    )
    assert [page["id"] for page in pages] == ["area/roots/", "area/squares/"]
    assert len(texts) == 3
    assert texts[1]["text"].startswith("Three squared")


def test_copies_are_made_again_only_if_a_module_has_changed(workspace, monkeypatch):
    made = []
    monkeypatch.setattr("zhixing_site.build.copy_files", lambda modules: made.append(1) or copies.copy_files(modules))
    workspace.project.write("src/zhixing/area/cube.py", "def cube(x):\n    return x**3\n")
    assert workspace.save("docs/en/area/squares.md", "The square of 3", "Three squared") == ""
    assert workspace.save("docs/en/area/squares.md", "Three squared", "The square of three") == ""
    assert "x**3" in workspace.shown("code/area/cube.py")
    assert made == [1]
    assert workspace.save("src/zhixing/area/cube.py", "x**3", "x * x * x") == ""
    assert "x * x * x" in workspace.shown("code/area/cube.py")
    assert made == [1, 1]


def test_only_the_saved_snippet_runs_and_both_languages_show_it(workspace):
    assert workspace.save("snippets/area/squares.py", "(1, 2, 3)", "(1, 2, 30)") == ""
    assert workspace.ran == ["snippets/area/squares.py"]
    assert "30 900" in workspace.shown(SQUARES)
    assert "30 900" in workspace.shown(SQUARES.replace("en", "zh"))


def test_saved_module_runs_the_snippets_that_depend_on_it(workspace):
    assert workspace.save("src/things/root.py", "x**0.5", "x**0.5 + 1") == ""
    assert workspace.ran == ["snippets/area/roots.py"]
    assert "4.0" in workspace.shown(ROOTS)


def test_saved_module_renders_the_pages_that_document_it(workspace):
    for language in "en", "zh":
        path = f"docs/{language}/area/roots.md"
        workspace.project.write(path, workspace.project.read(path) + "\n::: things.lonely\n")
    workspace.save()
    before = workspace.rendered()
    workspace.save("src/things/lonely.py", "1", "2")
    after = workspace.rendered()
    assert {page for page in before if after[page] != before[page]} >= {ROOTS, ROOTS.replace("en", "zh")}
    assert after[SQUARES] == before[SQUARES]


def test_pages_of_a_failing_snippet_keep_their_last_version(workspace):
    messages = workspace.save("snippets/area/squares.py", "(1, 2, 3)", "(1, 2, 1 / 0)")
    assert "ZeroDivisionError" in messages
    assert "shown on docs/en/area/squares.md" in messages
    assert "3 9" in workspace.shown(SQUARES)
    messages = workspace.save("docs/en/area/roots.md", "# Roots", "# All roots")
    assert "ZeroDivisionError" in messages
    assert "All roots" in workspace.shown(ROOTS)
    assert workspace.save("snippets/area/squares.py", "1 / 0", "3") == ""


def test_failing_snippet_at_the_start_does_not_affect_other_pages(project, renderer):
    project.replace("snippets/area/squares.py", "(1, 2, 3)", "(1, 2, 1 / 0)")
    workspace = Workspace(project, renderer)
    assert "ZeroDivisionError" in workspace.preview.errors
    assert "3.0" in workspace.shown(ROOTS)
    assert re.search("<h1[^>]*>area/squares<", workspace.shown(SQUARES))
    assert workspace.save("snippets/area/squares.py", "1 / 0", "3") == ""
    assert "3 9" in workspace.shown(SQUARES)


def test_page_with_errors_keeps_its_last_version(workspace):
    messages = workspace.save("docs/en/area/squares.md", "$3^2", r"$3^\nothing{2}")
    assert (
        f"docs/en/area/squares.md:{workspace.project.line('docs/en/area/squares.md', 'nothing')}: the formula"
        in messages
    )
    assert "The square of 3 is" in workspace.shown(SQUARES)
    assert workspace.save("docs/en/area/squares.md", r"$3^\nothing{2}", "$3^2") == ""


def test_difference_between_translations_is_reported_but_a_missing_review_is_not(workspace):
    assert workspace.save("docs/en/area/squares.md", "## Table { #table }", "## The table { #table }") == ""
    assert "differs from its translation" in workspace.save("docs/en/area/squares.md", "x \\cdot x", "x x")
    assert "The table" in workspace.shown(SQUARES)


def test_dead_link_is_reported_until_it_is_fixed(workspace):
    assert "dead link ../roots/#nothing" in workspace.save(
        "docs/en/area/squares.md", "roots.md#roots", "roots.md#nothing"
    )
    assert "dead link ../roots/#nothing" in workspace.save("docs/zh/area/roots.md", "# 根", "# 方根")
    assert "dead link" not in workspace.save("docs/en/area/squares.md", "roots.md#nothing", "roots.md#roots")


def test_page_is_added_and_removed(workspace):
    texts = {"en": "# More { #more }\n", "zh": "# 更多 { #more }\n"}
    for language, text in texts.items():
        workspace.project.write(f"docs/{language}/area/more.md", text)
    workspace.project.write("snippets/area/more.py", '# %% more tags=["hidden"]\n1\n')
    assert workspace.save() == ""
    assert "更多" in workspace.shown("zh/area/more/index.html")
    assert "More: the notebook" in workspace.shown("en/lab/area/more/index.html")
    (workspace.project.root / "snippets/area/more.py").unlink()
    for language in texts:
        (workspace.project.root / f"docs/{language}/area/more.md").unlink()
    assert workspace.save() == ""
    assert not (workspace.preview.site / "en/area/more").exists()
    assert not (workspace.preview.site / "en/lab/area/more").exists()


@pytest.mark.parametrize("path", ["mkdocs.yml", "theme/main.html"])
def test_change_of_a_shared_file_renders_all_pages(workspace, path):
    before = workspace.rendered()
    old, new = {"mkdocs.yml": ("Small", "Smaller"), "theme/main.html": ("<body>", "<body><p>everywhere</p>")}[path]
    assert workspace.save(path, old, new) == ""
    assert all(written != before[page] for page, written in workspace.rendered().items())


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
def test_invalid_file_does_not_end_the_preview(workspace, path, content):
    file = workspace.project.root / path
    good = file.read_bytes()
    file.write_bytes(content) if content is not None else file.unlink()
    workspace.preview.update()
    assert workspace.preview.errors
    file.write_bytes(good)
    workspace.preview.update()
    assert workspace.preview.errors == ""


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
        assert process.wait(10) == 130, process.stdout.read()
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


def next_version(address: str, page: str) -> str:
    """Wait for the next version of the preview, as the script of a page does; return the page."""
    (version,) = re.findall(r'data-version="(\d+)"', get(address + page))
    assert get(f"{address}preview?seen={version}") != version
    return get(address + page)


def test_browser_receives_saved_pages_and_errors(server, project):
    process, address = server
    assert "up to date" in process.stdout.readline()
    assert "The square of 3" in get(address + "en/area/squares/")
    assert get(address + "en/area/squares").endswith(get(address + "en/area/squares/"))
    assert "location.reload" in get(address + "preview.js")
    assert get(address + "en/area/squares/curve-light.svg").startswith("<?xml")
    project.replace("docs/en/area/squares.md", "The square of 3", "Three squared")
    assert "Three squared" in next_version(address, "en/area/squares/")
    project.replace("docs/en/area/squares.md", "$3^2", "${<}&3^")
    with_errors = next_version(address, "en/area/roots/")
    assert "docs/en/area/squares.md:3: " in re.search('data-errors="([^"]*)"', with_errors)[1]
    assert "&lt;" in with_errors
    project.replace("docs/en/area/squares.md", "${<}&3^", "$3^2")
    assert 'data-errors=""' in next_version(address, "en/area/nothing/")
    assert get(address + "preview").isdigit()


def test_configuration_that_an_editor_replaces_by_renaming_is_noticed(server, project):
    process, address = server
    assert "up to date" in process.stdout.readline()
    project.write("mkdocs.new", project.read("mkdocs.yml").replace("Small", "[Small"))
    (project.root / "mkdocs.new").rename(project.root / "mkdocs.yml")
    assert "mkdocs.yml" in next_version(address, "en/area/roots/")


def test_target_of_a_link_is_noticed_while_an_editor_holds_a_lock(server, project):
    """Emacs marks an open file by a link that leads nowhere."""
    process, address = server
    assert "up to date" in process.stdout.readline()
    page, target = project.root / "docs/en/area/squares.md", project.root.with_name("elsewhere.md")
    page.rename(target)
    page.symlink_to(target)
    page.with_name(".#squares.md").symlink_to("me@host.1:1")
    text = target.read_text()
    for words in "Three squared", "Three times three", "Nine":
        saved = target.with_name("saved.md")
        saved.write_text(text.replace("The square of 3", words))
        saved.rename(target) if words == "Nine" else target.write_text(saved.read_text())
        shown = get(address + "en/area/squares/")
        for _ in range(3):  # the link may be noticed by itself
            shown = shown if words in shown else next_version(address, "en/area/squares/")
        assert words in shown
        assert 'data-errors=""' in shown


def test_page_that_cannot_be_read_is_reported_without_a_traceback(workspace):
    path = workspace.project.root / "docs/zh/area/squares.md"
    good = path.read_bytes()
    path.write_bytes(good.decode().encode("gbk"))
    assert workspace.save().startswith("docs/zh/area/squares.md:1: the file is not UTF-8")
    assert "Traceback" not in workspace.preview.errors
    path.write_bytes(good)
    assert workspace.save() == ""


def test_port_in_use_is_an_error(project):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, messages = project.command("serve", "--port", str(taken.getsockname()[1]))
    assert code == 1
    assert "choose another with --port" in messages
