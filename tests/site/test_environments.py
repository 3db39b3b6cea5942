"""Test environments are created once and reused until their requirements, constraints or Python change."""

import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import environments
import pytest
from environments import oldest, variables
from packaging.specifiers import SpecifierSet

REPOSITORY = Path(__file__).resolve().parents[2]
PROJECT = """\
[project]
dependencies = ["torch>=2.13", "small>=1; sys_platform == 'linux'", "any"]
[project.optional-dependencies]
tests = ["checks", "peer >= 0.2.1"]
dev = ["builder>=9"]
"""
PINS = "# All.\nany==5\nchecks==6\nnvidia-small==2\npeer==3\nsmall==7\nsmall-too==8\ntorch==2.14.1\n"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "constraints.txt").write_text(PINS)
    return tmp_path


@pytest.fixture
def created(monkeypatch) -> list[tuple[list[str], str]]:
    """Create folders in place of environments; return the requirements and constraints of each."""
    calls = []

    def make(place, requirements, constraints):
        place.mkdir()
        calls.append((requirements, constraints))

    monkeypatch.setattr(environments, "_make", make)
    return calls


def environments_in(root) -> list[Path]:
    return [path for path in (root / environments.FOLDER).iterdir() if path.is_dir()]


def test_environment_is_created_once(root, created):
    first = environments.environment("fresh", ["peer", "any"], root)
    assert environments.environment("fresh", ["any", "peer"], root) == first
    assert created == [(["any", "peer"], PINS)]
    assert environments_in(root) == [first]


@pytest.mark.parametrize("change", ["pyproject.toml", "constraints.txt", "requirements", "constraints", "Python"])
def test_changed_input_replaces_the_environment(root, created, monkeypatch, change):
    old = environments.environment("fresh", ["any"], root)
    if (root / change).exists():
        (root / change).write_text((root / change).read_text() + "\n")
    if change == "Python":
        monkeypatch.setattr(sys, "version", "4.0")
    given = {"constraints": "any==4\n"} if change == "constraints" else {}
    new = environments.environment("fresh", ["peer"] if change == "requirements" else ["any"], root, **given)
    assert len(created) == 2
    assert new != old
    assert environments_in(root) == [new]


def test_incomplete_environment_is_not_used(root, created, monkeypatch):
    make = environments._make

    def fail(place, *given):
        make(place, *given)
        raise OSError("no room")

    monkeypatch.setattr(environments, "_make", fail)
    with pytest.raises(OSError, match="no room"):
        environments.environment("fresh", ["any"], root)
    monkeypatch.setattr(environments, "_make", make)
    environments.environment("fresh", ["any"], root)
    assert len(created) == 2
    assert len(environments_in(root)) == 1


def test_environments_of_different_kinds_are_kept(root, created):
    both = {environments.environment(kind, ["any"], root) for kind in ("fresh", "oldest")}
    assert {*environments_in(root)} == both


def test_variables_put_the_environment_first_and_drop_our_sources(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "src")
    found = variables(tmp_path)
    assert found["PATH"].startswith(f"{tmp_path / 'bin'}:")
    assert "PYTHONPATH" not in found


def test_oldest_replaces_pins_with_lower_bounds(root):
    requirements, constraints = oldest(root)
    assert requirements == ["torch>=2.13", "small>=1; sys_platform == 'linux'", "any", "checks", "peer >= 0.2.1"]
    assert constraints == "any==5\nchecks==6\nsmall-too==8\ntorch==2.13\nsmall==1\npeer==0.2.1\n"


def test_dependencies_have_lower_bounds():
    """`nox -s oldest` runs with these versions."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert all(">=" in each for each in project["dependencies"])
    requirements, constraints = oldest(REPOSITORY)
    names = {line.partition("==")[0] for line in constraints.splitlines()}
    assert {each.partition(";")[0].partition(">=")[0].strip() for each in requirements} <= names


def test_pinned_versions_work_with_every_python_3_11():
    """Debian 12 has 3.11.2."""
    needed = {each.name: each.metadata["Requires-Python"] or "" for each in distributions()}
    assert [name for name, versions in needed.items() if not SpecifierSet(versions).contains("3.11.0")] == []
