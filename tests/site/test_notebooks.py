"""Pages of notebooks, and the notebooks and scripts to download."""

import json
import os
import shutil
import subprocess
import sys

import lxml.html
import nbformat
import pytest

from zhixing_site.site import reuse

LAB = "site/en/lab/area/squares"


def test_page_shows_every_cell_as_it_ran(project):
    page = project.html("en/lab/area/squares")
    assert [heading.get("id") for heading in page.iter("h1", "h2")] == [
        "the-notebook",
        "setup",
        "table",
        "curve",
        "values",
    ]
    text = page.text_content()
    assert "1 1\n2 4\n3 9\n" in text
    assert "values, not in the article" in text
    assert "table, not" not in text
    assert "assert nine == 9" in text
    figure = page.find_class("figure")[0]
    assert "The squares up to" in figure.text_content()
    for image in figure.iter("img"):
        assert (project.root / LAB / image.get("src")).resolve().is_file()


def test_page_has_the_title_of_its_heading(project):
    assert project.html("en/lab/area/squares").findtext(".//title") == "Squares: the notebook"


def test_page_links_to_the_article_and_to_the_downloads(project):
    links = {link.text_content(): link for link in project.html("en/lab/area/squares").findall(".//p/a")}
    assert list(links) == ["Squares", "squares.ipynb", "squares.py"]
    for link in links.values():
        target = (project.root / LAB / link.get("href")).resolve()
        assert (target / "index.html" if link.get("href").endswith("/") else target).is_file()
    assert links["squares.py"].get("download") == "squares.py"


def test_code_and_output_have_the_markup_of_other_pages(project):
    """The theme's styles and scripts depend on it."""

    def blocks(page: str) -> list[str]:
        (shown,) = project.html(page).xpath("//*[@id='table']/following-sibling::div[1]")
        return [lxml.html.tostring(block, with_tail=False) for block in (shown, shown.getnext())]

    page = project.read("docs/en/area/squares.md").replace('--8<-- "area/squares.py:setup"\n', "")
    project.page("area/squares", page)
    project.replace("snippets/area/squares.py", "# %% setup", '# %% setup tags=["hidden"]')
    assert project.build() == (0, "")
    assert blocks("en/lab/area/squares") == blocks("en/area/squares")


PLUGIN_MARKUP = [
    "jp-",
    "jupyter",
    "highlight-ipynb",
    "anchor-link",
    "clipboard",
    "<style",
    '<script src=""',
    "//cdnjs",
    "mathjax",
]


def test_page_contains_no_markup_of_the_plugin(project):
    """The plugin's style sheets, scripts and second copies of the code would make the page twenty times as large."""
    page = project.read(f"{LAB}/index.html").lower()
    assert [mark for mark in PLUGIN_MARKUP if mark in page] == []
    assert project.html("en/lab/area/squares").text_content().count("assert nine == 9") == 1


def test_jupyter_configuration_of_the_user_is_ignored(project, tmp_path, monkeypatch):
    before = project.site()
    config = tmp_path / "jupyter/jupyter_nbconvert_config.py"
    template = tmp_path / "jupyter/nbconvert/templates/mkdocs_html/notebook.html.j2"
    for path, text in (config, "c.HTMLExporter.exclude_input = True\n"), (template, "other"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name in "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_PATH":
        monkeypatch.setenv(name, str(config.parent))
    shutil.rmtree(project.root / reuse.FOLDER)
    assert project.build() == (0, "")
    assert project.site() == before


def test_every_type_of_output_is_shown(with_outputs):
    blocks = with_outputs.html("en/lab/area/outputs").find_class("output")
    assert [block.text_content() for block in blocks] == [
        "<b>&amp;</b>\n\n  indented\n",
        "{'value': '<i>'}\n",
        "ZeroDivisionError: division by zero\n",
        "after 1\n",
    ]
    assert {block.get("class") for block in blocks} == {"language-text output no-copy highlight"}


def test_both_articles_link_to_the_notebook(project):
    for page in "en/area/squares", "zh/area/squares":
        (line,) = project.html(page).find_class("lab")
        target = (project.root / "site" / page / line.find("a").get("href")).resolve()
        assert target == (project.root / LAB).resolve()
    assert project.html("en").find_class("lab") == []


def test_figure_without_a_caption_in_the_article_gets_one(project):
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


def test_notebooks_are_not_in_the_search_index(project):
    index = project.searched("en")
    assert index
    assert not [id for id in index if id.startswith("lab/")]


def test_notebook_is_valid_and_contains_the_run(project):
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


OUTPUTS = '''\
# %% printed
print("<b>&amp;</b>\\n\\n  indented\\n")

# %% value
{"value": "<i>"}

# %% fails raises="ZeroDivisionError"
x = """
kept"""
1 / 0

# %% after
print("after", x.count("\\n"))
'''


@pytest.fixture(scope="module")
def with_outputs(pristine, tmp_path_factory):
    project = pristine.copy(tmp_path_factory.mktemp("lab") / "project")
    project.article("area/outputs", OUTPUTS)
    assert project.build() == (0, "")
    return project


def run_script(project, name: str) -> str:
    """Run the script that readers of an article download to its end; return what it prints."""
    done = subprocess.run(
        [sys.executable, project.root / f"site/en/lab/area/{name}.py"],
        env={**os.environ, "PYTHONPATH": str(project.root / "src"), "MPLBACKEND": "svg"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_script_runs_to_its_end(with_outputs):
    assert run_script(with_outputs, "squares") == "1 1\n2 4\n3 9\n"
    printed = "<b>&amp;</b>\n\n  indented\n\nZeroDivisionError: division by zero\nafter 1\n"
    assert run_script(with_outputs, "outputs") == printed


RAISING = r'''# %% notebook
from __future__ import annotations

error = 7

# %% about raises="ValueError"
int("""a
    b""")

# %% nested raises="KeyError"
if error:
	for x in range(2):
		print(f"""in a string
{x}
# %% no cell
  {x + error}""", "c\
d")

def join(parts: Absent):
    """Join.

  The parts."""
    return \
parts["\n".join(["""1
""", "2"
])]
join({})

# %% stops raises="KeyboardInterrupt"
raise KeyboardInterrupt("stop")

# %% ends raises="GeneratorExit"
raise GeneratorExit

# %% exits raises="SystemExit"
import sys

sys.exit(3)

# %% parses raises="SyntaxError"
exec("1 +")

# %% after
print(error, repr(join.__doc__))
'''


@pytest.fixture(scope="module")
def raising(pristine, tmp_path_factory):
    project = pristine.copy(tmp_path_factory.mktemp("raising") / "project")
    page = project.default_page("area/raising", RAISING.replace("# %% no cell", ""))
    project.article("area/raising", RAISING, page)
    assert project.build() == (0, "")
    return project


def test_script_and_page_show_the_same(raising):
    shown = [block.text_content() for block in raising.html("en/area/raising").find_class("output")]
    assert run_script(raising, "raising") == "".join(shown)
    assert shown[-1] == "7 'Join.\\n\\n  The parts.'\n"


def test_notebook_shows_the_same_when_it_runs_again(raising, monkeypatch):
    import nbclient  # here, as only this test needs it

    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    notebook = nbformat.reads(raising.read("site/en/lab/area/raising.ipynb"), as_version=4)
    nbformat.validate(notebook)
    before = [[output.get("ename") for output in cell.outputs] for cell in notebook.cells[1:]]
    nbclient.NotebookClient(notebook, timeout=60).execute()
    after = [[output.get("ename") for output in cell.outputs] for cell in notebook.cells[1:]]
    exits = [cell.id for cell in notebook.cells[1:]].index("exits")
    assert before.pop(exits) == ["SystemExit"]
    assert "SystemExit" in after.pop(exits)  # with a warning of IPython
    assert after == before


def test_ids_of_the_page_and_of_the_notebook_are_unique(raising):
    ids = raising.html("en/lab/area/raising").xpath("//@id")
    assert {"notebook", "about"} < {*ids}
    notebook = json.loads(raising.read("site/en/lab/area/raising.ipynb"))
    for names in ids, [cell["id"] for cell in notebook["cells"]]:
        assert len({*names}) == len(names)


def test_cell_that_raises_and_imports_from_the_future_is_an_error(project):
    project.article("area/trial", '# %% one raises="KeyError"\nfrom __future__ import annotations\n\n{}[1]\n')
    code, messages = project.build()
    assert code == 1
    assert "snippets/area/trial.py:2, cell one: a cell that raises cannot import from __future__" in messages


def test_notebook_continues_after_an_expected_error(with_outputs):
    notebook = nbformat.reads(with_outputs.read("site/en/lab/area/outputs.ipynb"), as_version=4)
    assert notebook.cells[3].metadata == {"tags": ["raises-exception"]}
    assert notebook.cells[4].metadata == {"tags": []}
