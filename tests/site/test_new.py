"""What `new` lays out: it builds, its tests pass, and it says where things are already."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
NAV = "nav:\n  - Home: index.md\n  - Area:\n      - Roots: area/roots.md\n      - Squares: area/squares.md\n"


@pytest.fixture
def desk(project):
    """The small project, with our template, and with a navigation in both configurations."""
    shutil.copytree(REPOSITORY / "template", project.root / "template")
    for config in "mkdocs.yml", "mkdocs.zh.yml":
        project.write(config, project.read(config) + NAV)
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


@pytest.mark.parametrize(
    ("article", "entry"),
    [
        ("area/more", {"Area": [{"Roots": "area/roots.md"}, {"Squares": "area/squares.md"}, {"More": "area/more.md"}]}),
        ("fresh/more", {"Fresh": [{"More": "fresh/more.md"}]}),
    ],
)
def test_new_article_is_the_last_of_its_area_in_both_navigations(desk, article, entry):
    desk.command("new", article)
    for config in "mkdocs.yml", "mkdocs.zh.yml":
        navigation = yaml.safe_load(desk.read(config).partition("nav:")[1] + desk.read(config).partition("nav:")[2])
        assert navigation["nav"][-1] == entry


@pytest.mark.parametrize("name", ["more", "Area/more", "area/more.md", "a/b/c", "area/2more", "../more", "area/"])
def test_name_that_is_no_slug_is_a_fault(desk, name):
    code, said = desk.command("new", name)
    assert code == 1
    assert f"area/article, like optimization/adam_w, in small letters; this is {name}" in said


def test_article_that_is_there_is_not_touched(desk):
    before = desk.read("mkdocs.yml"), desk.read("docs/en/area/squares.md")
    code, said = desk.command("new", "area/squares")
    assert code == 1
    assert "there is already docs/en/area/squares.md, docs/zh/area/squares.md, snippets/area/squares.py" in said
    assert before == (desk.read("mkdocs.yml"), desk.read("docs/en/area/squares.md"))
    assert not (desk.root / "src/zhixing/area").exists()


def test_navigation_stands_last_in_the_configurations():
    for config in "mkdocs.yml", "mkdocs.zh.yml":
        sections = [line for line in (REPOSITORY / config).read_text().splitlines() if line[:1].isalpha()]
        assert sections[-1] == "nav:"
