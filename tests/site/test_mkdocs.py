"""The processes that run MkDocs: their answers, and when they end."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from zhixing_site.project import CONFIGS
from zhixing_site.site import mkdocs, reuse
from zhixing_site.site.mkdocs import Renderer


@pytest.fixture
def project(pristine, renderer):
    """A project in the folder of the renderer, whose processes all tests share."""
    project = pristine.reset(renderer.root)
    for language in CONFIGS:
        project.write(f"pages/{language}/index.md", f"# {language}\n\n[more](area/more.md)\n")
        project.write(f"pages/{language}/area/more.md", "# More\n")
    return project


def render(project, renderer):
    shutil.rmtree(project.root / "site", ignore_errors=True)
    for language in CONFIGS:
        renderer.submit(language, project.root, ["index.md"], modules={})
    return "\n".join(map(str, renderer.collect(project.root)))


def test_both_languages_are_rendered_repeatedly(project, renderer):
    for old, new in ("more", "much more"), ("much more", "little more"):
        project.replace("pages/zh/index.md", f"[{old}]", f"[{new}]")
        assert render(project, renderer) == ""
        assert f'<a href="area/more/" lang="en">{new}</a>' in project.read("site/zh/index.html")
        assert '<a href="area/more/">more</a>' in project.read("site/en/index.html")
        assert (project.root / "site/en/area/more/index.html").exists()
        assert project.read("site/index.html") == project.read("docs/index.html")


def test_warnings_are_reported_each_time(project, renderer):
    assert render(project, renderer) == ""
    project.replace("pages/zh/index.md", "area/more", "nowhere")
    for _ in range(2):
        messages = render(project, renderer)
        assert messages.startswith("mkdocs.zh.yml: ")
        assert messages.count("nowhere.md") == 1
    project.replace("pages/zh/index.md", "nowhere", "area/more")
    assert render(project, renderer) == ""


def test_rendered_and_reused_pages_are_read(project, renderer):
    """Reading includes post-processing."""
    render(project, renderer)
    pages = [f"{language}/{page}.html" for language in CONFIGS for page in ("404", "index", "area/more/index")]
    assert sorted(renderer.rendered) == sorted([*pages, "index.html"])
    before = dict(renderer.rendered)
    project.replace("pages/zh/index.md", "[more]", "## New { #new }\n\n[more]")
    render(project, renderer)
    assert "new" in renderer.rendered["zh/index.html"].anchors
    assert {name for name in before if renderer.rendered[name] != before[name]} == {"zh/index.html"}
    project.write("theme/main.html", "<title>no place for a policy</title>")
    (project.root / "pages/zh/area/more.md").unlink()
    project.replace("pages/zh/index.md", "[more](area/more.md)", "")
    assert render(project, renderer) == ""
    assert sorted(renderer.rendered) == sorted({*pages, "index.html"} - {"zh/area/more/index.html"})
    assert renderer.rendered["en/index.html"].references == []


def test_error_inside_mkdocs_is_reported_with_its_file(project, renderer):
    project.write("theme/main.html", "{{ page.content.nothing.more }}")
    messages = render(project, renderer)
    assert messages.count("UndefinedError") == messages.count("main.html") == 2
    project.write("theme/main.html", "fixed")
    assert render(project, renderer) == ""


def test_process_that_was_killed_is_reported_and_replaced(project, renderer):
    render(project, renderer)
    killed = renderer.start("zh").process
    killed.kill()
    killed.join()
    project.replace("pages/zh/index.md", "[more]", "[other]")
    assert render(project, renderer) == ""
    worker = renderer.start("en")
    os.kill(worker.process.pid, signal.SIGSTOP)  # as if it were busy
    renderer.submit("en", project.root / "nowhere", [], modules={})
    worker.process.kill()
    assert worker.result() == ("the MkDocs process ended unexpectedly (exit code -9)", {})
    assert render(project, renderer) == ""


def test_processes_end_with_the_context(project):
    with Renderer(project.root) as renderer:
        render(project, renderer)
        processes = [worker.process for worker in renderer.workers.values()]
        assert [process.is_alive() for process in processes] == [True, True]
    assert [process.exitcode for process in processes] == [-signal.SIGKILL] * 2


def end_during_an_answer(config, root, requests):
    requests.recv()
    os.write(requests.fileno(), b"\0\0\1\0half")  # of 256 bytes
    os._exit(3)


def end_before_an_answer(config, root, requests):
    requests.recv()
    os._exit(3)


def end_before_a_request(config, root, requests):
    os._exit(3)


@pytest.mark.parametrize("work", [end_during_an_answer, end_before_an_answer, end_before_a_request])
def test_process_that_ends_without_an_answer_is_reported(project, monkeypatch, work):
    with Renderer(project.root) as renderer:
        monkeypatch.setattr(mkdocs, "SPAWN", multiprocessing.get_context("fork"))
        monkeypatch.setattr(mkdocs, "work", work)
        worker = renderer.start("zh")
        if work is end_before_a_request:
            worker.process.join()
        monkeypatch.undo()
        monkeypatch.setattr(worker.process, "is_alive", lambda: True)  # as just before it ended
        assert render(project, renderer) == "mkdocs.zh.yml: the MkDocs process ended unexpectedly (exit code 3)"
        monkeypatch.undo()
        assert render(project, renderer) == ""


def test_message_names_a_page_that_cannot_be_read(project, renderer):
    project.write("pages/en/area/empty.html", "")
    assert "en/area/empty.html cannot be read" in render(project, renderer)


def test_folder_of_a_failing_build_is_removed_after_its_processes_have_ended(project, monkeypatch):
    remove, writing, others = tempfile.TemporaryDirectory.__exit__, [], multiprocessing.active_children()

    def record(folder, *error):
        if Path(folder.name).name.startswith("site-"):
            writing.append([process for process in multiprocessing.active_children() if process not in others])
        return remove(folder, *error)

    monkeypatch.setattr(tempfile.TemporaryDirectory, "__exit__", record)
    project.replace("docs/zh/area/squares.md", "{{ nine }}", "{{ ten }}")
    assert project.build()[0] == 1
    assert writing == [[]]


def test_processes_end_when_their_build_is_killed(project):
    start = """
import os, pathlib
from zhixing_site.project import CONFIGS
from zhixing_site.site import mkdocs, reuse
from zhixing_site.site.mkdocs import Renderer
renderer = Renderer(pathlib.Path.cwd())
print(*(renderer.start(language).process.pid for language in CONFIGS), flush=True)
os.kill(os.getpid(), 9)
"""
    # The processes keep standard error open: this call returns when they have ended.
    done = subprocess.run(
        [sys.executable, "-c", start], cwd=project.root, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert len(done.stdout.split()) == 2
    assert done.stderr == ""


def test_forked_processes_render_the_same_site(pristine, project):
    shutil.rmtree(project.root / reuse.FOLDER)
    assert project.build() == (0, "")
    assert project.site() == pristine.site()
