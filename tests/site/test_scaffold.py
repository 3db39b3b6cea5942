"""Files that `new` creates: they build, their tests pass, and existing files are reported and kept."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from zhixing_site.content.articles import read_areas
from zhixing_site.content.page import read_pages

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def templated(project):
    """The small project, with our template of an article."""
    shutil.copytree(REPOSITORY / "template", project.root / "template")
    project.write("src/zhixing/__init__.py", "")
    return project


def check(project, *command: str) -> None:
    """Run a module on the project's files; check that it succeeds."""
    environment = {**os.environ, "PYTHONPATH": str(project.root / "src")}
    result = subprocess.run(
        [sys.executable, "-m", *command], cwd=project.root, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_new_article_builds_in_both_languages_and_its_tests_pass(templated):
    assert templated.command("new", "fresh/two_words") == (0, "")
    queries = templated.read("tests/browser/queries/fresh/two_words.csv").splitlines()
    assert queries == ["language,query,section", "en,Two words,", "zh,Two words,"]
    assert templated.build() == (0, "")
    for language in "en", "zh":
        assert "largest at x = 1.571" in templated.html(f"{language}/fresh/two_words").text_content()
    check(templated, "pytest", "-q", "-p", "no:cacheprovider", "tests")
    for name in "pyproject.toml", "snippets/ruff.toml", "src/zhixing/ruff.toml":
        shutil.copy(REPOSITORY / name, templated.root / name)
    check(templated, "ruff", "check", "src/zhixing", "snippets/fresh", "tests")
    check(templated, "ruff", "format", "--check", "src/zhixing/fresh", "snippets/fresh", "tests")


def test_second_article_of_an_area_keeps_existing_files(templated):
    templated.command("new", "fresh/one")
    templated.write("src/zhixing/fresh/__init__.py", '"""Mine."""\n')
    assert templated.command("new", "fresh/two") == (0, "")
    assert templated.read("src/zhixing/fresh/__init__.py") == '"""Mine."""\n'


def test_new_area_is_the_last_and_a_second_article_does_not_change_it(templated):
    for name in "newer/two", "fresh/one":
        assert templated.command("new", name) == (0, "")
    text = templated.read("docs/en/fresh/index.md")
    templated.write("docs/en/fresh/index.md", text.replace("in two or three sentences", "in a word"))
    templated.command("accept")
    assert templated.command("new", "fresh/three") == (0, "")
    assert "in a word" in templated.read("docs/en/fresh/index.md")
    areas, errors = read_areas(*(read_pages(templated.root, language) for language in ("en", "zh")))
    assert errors == []
    assert [(area.name, [each.name for each in area.articles]) for area in areas] == [
        ("newer", ["newer/two"]),
        ("fresh", ["fresh/one", "fresh/three"]),
    ]


@pytest.mark.parametrize("name", ["more", "Area/more", "area/more.md", "a/b/c", "area/2more", "../more", "area/"])
def test_invalid_name_is_an_error(templated, name):
    code, messages = templated.command("new", name)
    assert code == 1
    assert f"area/article, like optimization/adam_w, in small letters; this is {name}" in messages


def test_existing_article_is_not_changed(templated):
    before = templated.read("docs/en/area/squares.md")
    code, messages = templated.command("new", "area/squares")
    assert code == 1
    assert "there is already docs/en/area/squares.md, docs/zh/area/squares.md, snippets/area/squares.py" in messages
    assert before == templated.read("docs/en/area/squares.md")
    assert not (templated.root / "docs/en/area/index.md").exists()
    assert not (templated.root / "src/zhixing/area").exists()
