"""Pages of notebooks, and the files to run."""

import json
import os
import subprocess
import sys

import nbformat
import pytest

LAB = "site/en/lab/area/squares"


def test_page_shows_every_cell_as_it_ran(project):
    page = project.html("en/lab/area/squares")
    assert [heading.get("id") for heading in page.iter("h1", "h2")] == ["notebook", "setup", "table", "curve", "values"]
    text = page.text_content()
    assert "1 1\n2 4\n3 9\n" in text
    assert "values, not in the article" in text
    assert "table, not" not in text
    assert "assert nine == 9" in text
    figure = page.find_class("figure")[0]
    assert "The squares up to" in figure.text_content()
    for image in figure.iter("img"):
        assert (project.root / LAB / image.get("src")).resolve().is_file()


def test_both_articles_link_to_the_notebook(project):
    for page in "en/area/squares", "zh/area/squares":
        (line,) = project.html(page).find_class("lab")
        target = (project.root / "site" / page / line.find("a").get("href")).resolve()
        assert target == (project.root / LAB).resolve()
    assert project.html("en").find_class("lab") == []


def test_figure_without_a_caption_of_the_article_has_one(project):
    project.replace("snippets/area/squares.py", "nine = square(3)\n", "nine = square(3)\nplt.plot([1, 2])\n")
    assert project.build() == (0, "")
    assert "What values draws." in project.html("en/lab/area/squares").text_content()


def test_caption_leaves_out_links_and_keeps_values(project):
    for language in "en", "zh":
        path = f"docs/{language}/area/squares.md"
        caption = project.read(path).partition("![")[2].partition("]")[0]
        project.replace(path, f"![{caption}]", "![As [there](roots.md#roots), {{ nine }}.]")
    project.command("accept")
    assert project.build() == (0, "")
    (caption,) = project.html("en/lab/area/squares").find_class("caption")
    assert caption.text_content() == "As there, 9."
    assert not caption.findall(".//a")


def test_notebooks_are_not_searched(project):
    index = json.loads(project.read("site/en/search.json"))
    assert index
    assert not [section["id"] for section in index if section["id"].startswith("lab/")]


def test_notebook_is_valid_and_holds_what_ran(project):
    notebook = nbformat.reads(project.read(f"{LAB}.ipynb"), as_version=4)
    nbformat.validate(notebook)
    about, *cells = notebook.cells
    assert about.source.startswith("The code of Squares, ")
    assert "\n\npip install " in about.source
    assert [cell.id for cell in cells] == ["setup", "table", "curve", "values"]
    assert cells[1].outputs[0].text == "1 1\n2 4\n3 9\n"
    assert set(cells[2].outputs[0].data) == {"image/svg+xml"}
    assert cells[3].metadata == {"tags": ["hidden"]}
    assert "zhixing" not in notebook.metadata


@pytest.fixture(scope="module")
def with_error(pristine, tmp_path_factory):
    project = pristine.copy(tmp_path_factory.mktemp("lab") / "project")
    source = (
        '# %% fails raises="ZeroDivisionError"\nx = """\nkept"""\n1 / 0\n\n# %% after\nprint("after", x.count("\\n"))\n'
    )
    project.article(
        "area/wrong",
        source,
        "# Wrong { #wrong }\n\n"
        + "".join(f'```python\n--8<-- "area/wrong.py:{cell}"\n```\n\n' for cell in ("fails", "after")),
    )
    assert project.build() == (0, "")
    return project


def test_script_runs_to_its_end(with_error):
    for name, printed in ("squares", "1 1\n2 4\n3 9\n"), ("wrong", "ZeroDivisionError: division by zero\nafter 1\n"):
        done = subprocess.run(
            [sys.executable, with_error.root / f"site/en/lab/area/{name}.py"],
            env={**os.environ, "PYTHONPATH": str(with_error.root / "src"), "MPLBACKEND": "svg"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr, done.stdout) == (0, "", printed)


def test_notebook_goes_on_after_an_error_that_must_be(with_error):
    notebook = nbformat.reads(with_error.read("site/en/lab/area/wrong.ipynb"), as_version=4)
    assert notebook.cells[1].metadata == {"tags": ["raises-exception"]}
    assert notebook.cells[2].metadata == {"tags": []}
