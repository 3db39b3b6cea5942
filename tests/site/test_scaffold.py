"""What `new` lays out: it builds, its tests pass, and it says where things are already."""

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
def desk(project):
    """The small project, with our template."""
    shutil.copytree(REPOSITORY / "template", project.root / "template")
    project.write("src/zhixing/__init__.py", "")
    return project


def check(project, *command: str) -> None:
    """Run a program on the project's own files; it must end well."""
    environment = {**os.environ, "PYTHONPATH": str(project.root / "src")}
    result = subprocess.run(
        [sys.executable, "-m", *command], cwd=project.root, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_new_article_builds_in_both_languages_and_its_tests_pass(desk):
    assert desk.command("new", "fresh/two_words") == (0, "")
    queries = desk.read("tests/browser/queries/fresh/two_words.csv").splitlines()
    assert queries == ["language,query,section", "en,Two words,", "zh,Two words,"]
    assert desk.build() == (0, "")
    for language in "en", "zh":
        assert "largest at x = 1.571" in desk.html(f"{language}/fresh/two_words").text_content()
    check(desk, "pytest", "-q", "-p", "no:cacheprovider", "tests")
    for name in "pyproject.toml", "snippets/ruff.toml", "src/zhixing/ruff.toml":
        shutil.copy(REPOSITORY / name, desk.root / name)
    check(desk, "ruff", "check", "src/zhixing", "snippets/fresh", "tests")
    check(desk, "ruff", "format", "--check", "src/zhixing/fresh", "snippets/fresh", "tests")


def test_second_article_of_an_area_keeps_what_is_there(desk):
    desk.command("new", "fresh/one")
    desk.write("src/zhixing/fresh/__init__.py", '"""Mine."""\n')
    assert desk.command("new", "fresh/two") == (0, "")
    assert desk.read("src/zhixing/fresh/__init__.py") == '"""Mine."""\n'


def test_new_area_is_the_last_and_a_second_article_leaves_it_as_it_is(desk):
    for name in "newer/two", "fresh/one":
        assert desk.command("new", name) == (0, "")
    text = desk.read("docs/en/fresh/index.md")
    desk.write("docs/en/fresh/index.md", text.replace("in two or three sentences", "in a word"))
    desk.command("accept")
    assert desk.command("new", "fresh/three") == (0, "")
    assert "in a word" in desk.read("docs/en/fresh/index.md")
    areas, errors = read_areas(*(read_pages(desk.root, language) for language in ("en", "zh")))
    assert errors == []
    assert [(area.name, [each.name for each in area.articles]) for area in areas] == [
        ("newer", ["newer/two"]),
        ("fresh", ["fresh/one", "fresh/three"]),
    ]


@pytest.mark.parametrize("name", ["more", "Area/more", "area/more.md", "a/b/c", "area/2more", "../more", "area/"])
def test_name_that_is_no_slug_is_a_error(desk, name):
    code, said = desk.command("new", name)
    assert code == 1
    assert f"area/article, like optimization/adam_w, in small letters; this is {name}" in said


def test_article_that_is_there_is_not_touched(desk):
    before = desk.read("docs/en/area/squares.md")
    code, said = desk.command("new", "area/squares")
    assert code == 1
    assert "there is already docs/en/area/squares.md, docs/zh/area/squares.md, snippets/area/squares.py" in said
    assert before == desk.read("docs/en/area/squares.md")
    assert not (desk.root / "docs/en/area/index.md").exists()
    assert not (desk.root / "src/zhixing/area").exists()
