"""A build that reuses pages of an earlier one gives the same site, byte for byte, as a build from scratch."""

import shutil
import subprocess

import pytest

from zhixing_site.project import LANGUAGES
from zhixing_site.site import reuse

PLUGIN = "mkdocstrings: {enable_inventory: false, handlers: {python: {paths: [src]}}}"
FRONT = "---\nmenu: More\nsummary: About more.\n"
CARDS = '--8<-- "articles"\n'
PAGE, PAGE_ZH = "docs/en/area/squares.md", "docs/zh/area/squares.md"


def replace(path: str, old: str, new: str):
    return lambda project: project.replace(path, old, new)


def document(project) -> None:
    """Document a module on a page, before the first build."""
    for path in "docs/en/area/roots.md", "docs/zh/area/roots.md":
        project.write(path, project.read(path) + "\n::: things.root\n")


def add_page(project) -> None:
    project.page(
        "area/more", f"{FRONT}date: 2026-01-02\n---\n\n# More {{ #more }}\n", f"{FRONT}---\n\n# 更多 {{ #more }}\n"
    )


def remove_page(project) -> None:
    for language in "en", "zh":
        (project.root / f"docs/{language}/area/roots.md").unlink()
        project.write(
            f"docs/{language}/area/squares.md",
            project.read(f"docs/{language}/area/squares.md").replace("(roots.md#roots)", "(squares.md)"),
        )
    (project.root / "snippets/area/roots.py").unlink()


def commit(project) -> None:
    """Make a commit; every article shows the latest."""
    git = ["git", "-C", str(project.root), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in ["init", "--quiet"], ["add", "docs"], ["commit", "--quiet", "--allow-empty", "--message", "Docs"]:
        subprocess.run([*git, *command], check=True)


# A change, and the pages that are rendered again in each language; None means all.
CHANGES = {
    "nothing": (lambda project: None, set(), set()),
    "a sentence": (replace(PAGE, "The square of 3 is", "Three squared is"), {"area/squares"}, set()),
    "a translated sentence": (replace(PAGE_ZH, "3 的平方是", "三的平方是"), set(), {"area/squares"}),
    "a cell": (
        replace("snippets/area/squares.py", "(1, 2, 3)", "(1, 2, 4)"),
        {"area/squares", "lab/area/squares"},
        {"area/squares"},
    ),
    "a hidden cell": (
        replace("snippets/area/squares.py", "gap = 4.7e-04", "gap = 4.8e-04"),
        {"lab/area/squares"},
        set(),
    ),
    "a figure's label": (replace("snippets/area/squares.toml", "函数值", "值"), set(), set()),
    "a module that is shown": (
        replace("src/things/power.py", "return x * x", "return x**2"),
        {"area/squares"},
        {"area/squares"},
    ),
    "a docstring of an API": (
        replace("src/things/root.py", "The square root of x.", "The root of x."),
        {"area/roots"},
        {"area/roots"},
    ),
    "a title": (replace(PAGE, "# Squares", "# All squares"), {"area/squares", "lab/area/squares", "area"}, set()),
    "an added page": (add_page, None, None),
    "a removed page": (remove_page, None, None),
    "a template": (replace("theme/main.html", "<body>", "<body><p>everywhere</p>"), None, None),
    "a file of the theme": (replace("theme/images/logo.svg", "M0 0h2v2z", "M0 0h1v1z"), None, None),
    "the configuration": (replace("mkdocs.yml", "tables: {}", "tables: {}\n  footnotes: {}"), None, None),
    "a commit": (commit, set(), set()),
}


@pytest.fixture(scope="module")
def documented(pristine, tmp_path_factory):
    """A built project with an area, whose pages are in the navigation, and a page that documents a module."""
    project = pristine.copy(tmp_path_factory.mktemp("reuse") / "project")
    for language, title in ("en", "The area"), ("zh", "领域"):
        for name in "squares", "roots":
            path = f"docs/{language}/area/{name}.md"
            day = "date: 2026-01-01\n" if language == "en" else ""
            project.write(path, f"---\nmenu: {name}\nsummary: About {name}.\n{day}---\n\n{project.read(path)}")
        order = "---\norder: 1\n---\n\n" if language == "en" else ""
        project.write(f"docs/{language}/area/index.md", f"{order}# {title} {{ #area }}\n\n{CARDS}")
    project.replace(PAGE, "date: 2026-01-01\n", "date: 2026-01-01\ncover: curve\n")
    project.replace("mkdocs.yml", "plugins: [", f"plugins: [{PLUGIN}, ")
    project.replace("mkdocs.zh.yml", "plugins: [", f"plugins: [{PLUGIN}")
    document(project)
    project.command("accept")
    commit(project)
    assert project.build() == (0, "")
    return project


def rendered(project, language: str) -> dict[str, int]:
    """Return when each page of the language was last rendered."""
    stored, site = project.root / reuse.FOLDER / language, project.root / "site" / language
    names = [path.parent.relative_to(site).as_posix() for path in site.rglob("index.html")]
    return {name: (stored / name / "index.html.pickle").stat().st_mtime_ns for name in names}


@pytest.mark.parametrize("change", CHANGES)
def test_incremental_build_equals_a_full_build(documented, tmp_path, change):
    project = documented.copy(tmp_path / "project")
    make, *expected = CHANGES[change]
    before = [rendered(project, language) for language in LANGUAGES]
    make(project)
    project.command("accept")
    assert project.build() == (0, "")
    for language, old, pages in zip(LANGUAGES, before, expected, strict=True):
        new = rendered(project, language)
        assert {name for name in new if old.get(name) != new[name]} == (new.keys() if pages is None else pages)
    warm = project.site()
    shutil.rmtree(project.root / reuse.FOLDER)
    assert project.build() == (0, "")
    assert project.site() == warm


def test_mkdocs_is_not_started_if_nothing_changed(documented, tmp_path, monkeypatch):
    project = documented.copy(tmp_path / "project")
    started = []
    monkeypatch.setattr("zhixing_site.site.mkdocs.Renderer.start", lambda renderer, language: started.append(language))
    assert project.build() == (0, "")
    assert started == []


DAMAGE = {
    "cut short": lambda content: content[:-9],
    "changed": lambda content: content[:-1] + b"?",
    "empty": lambda content: b"",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_page_is_rendered_again(documented, tmp_path, damage):
    project = documented.copy(tmp_path / "project")
    site = project.site()
    stored = project.root / reuse.FOLDER / "en/area/squares/index.html.pickle"
    whole = stored.read_bytes()
    stored.write_bytes(damage(whole))
    assert project.build() == (0, "")
    assert project.site() == site
    assert stored.read_bytes() == whole


def test_warning_of_mkdocs_is_repeated(documented, tmp_path):
    """A page with a warning is not reused."""
    project = documented.copy(tmp_path / "project")
    for path in PAGE, PAGE_ZH:
        project.replace(path, "roots.md#roots", "nowhere.md")
    project.command("accept")
    first, second = project.build(), project.build()
    assert first[0] == 1
    assert "nowhere.md" in first[1]
    assert second == first
