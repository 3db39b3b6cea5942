"""Write the executed notebook that MkDocs renders as a page, and its downloads: a notebook and a script."""

import copy
import json
import re
import textwrap
from pathlib import Path

from zhixing_site.content.expand import Expander, plain_text
from zhixing_site.content.page import Page
from zhixing_site.execution.runner import Run
from zhixing_site.execution.snippet import lines_in_strings
from zhixing_site.project import site_url, source_url
from zhixing_site.templates import WORDS

PACKAGE = "zhixing"
NOTEBOOK = "README.ipynb"  # what MkDocs renders; it calls the page index.html
KERNEL = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
# By name, which need not be imported where the error is raised.
EXPECTED = """\
try:
{body}
except BaseException as _expected:
    if _expected.__class__.__name__ != "{name}":
        raise
    print(f"{name}: {{_expected}}")"""


def notebook_files(article: Page, run: Run, root: Path) -> dict[str, str]:
    """{path below the English pages: text}: the notebook that MkDocs renders as index.html, and the two downloads."""
    return {
        f"lab/{article.name}/{NOTEBOOK}": _dump(page_notebook(article, run, root)),
        f"lab/{article.name}.ipynb": notebook_file(article, run),
        f"lab/{article.name}.py": script_file(article, run),
    }


def page_notebook(article: Page, run: Run, root: Path) -> dict:
    """The executed notebook with the metadata that the page's template reads; its figures are links to their files."""
    notebook = copy.deepcopy(run.notebook)
    figures = _figures(article, run, root)
    for cell, executed in zip(run.snippet.cells, notebook["cells"], strict=True):
        executed["metadata"] = {"hidden": cell.hidden}
        for output in executed["outputs"]:
            if "image/svg+xml" in output.get("data", {}):
                output["data"]["image/svg+xml"], output["metadata"] = "", {"figure": figures[cell.name]}
    notebook["metadata"] = {
        **KERNEL,
        "article": {
            "title": article.title,
            "address": f"{_to_root(article)}{article.name}/",
            "stem": article.name.rpartition("/")[2],
            "install": install_line(),
        },
    }
    return notebook


def notebook_link(article: Page) -> str:
    """A paragraph for the end of the article."""
    address = f"{_to_root(article)}en/lab/{article.name}/"
    return f'\n\n<p class="lab">{WORDS[article.language]["notebook"].format(address=address)}</p>\n'


def notebook_file(article: Page, run: Run) -> str:
    """The executed notebook for Jupyter, which goes on where a cell must raise."""
    notebook = copy.deepcopy(run.notebook)
    for cell, executed in zip(run.snippet.cells, notebook["cells"], strict=True):
        executed["metadata"] = {"tags": ["hidden"] * cell.hidden + ["raises-exception"] * bool(cell.raises)}
    about = {"cell_type": "markdown", "id": "about-the-article", "metadata": {}, "source": _about(article)}
    notebook["cells"].insert(0, about)
    notebook["metadata"] = KERNEL
    return _dump(notebook)


def script_file(article: Page, run: Run) -> str:
    """The snippet as a program that ends well: what a cell must raise is printed.

    Raises BuildError if a cell cannot stand below `try`.
    """
    text = textwrap.indent(_about(article), "# ", lambda line: True) + "\n"
    for cell in run.snippet.cells:
        source = cell.source
        if cell.raises:
            if re.search(r"^from\s+__future__\b", source, re.MULTILINE):
                cause = "a cell that raises cannot import from __future__: readers download it below `try`"
                raise cell.error(cause)
            source = EXPECTED.format(body=_indented(source), name=cell.raises)
        text += f"\n# %% {cell.name}\n{source}\n"
    return text


def _indented(source: str) -> str:
    """The source four columns further right, without any change to what its strings contain."""
    quoted = lines_in_strings(source)
    lines = enumerate(source.split("\n"), 1)
    return "\n".join(f"    {line}" if line and number not in quoted else line for number, line in lines)


def _about(article: Page) -> str:
    address = f"{site_url()}en/{article.name}/"
    return f"The code of {article.title}, {address}\n\n{install_line()}"


def _figures(article: Page, run: Run, root: Path) -> dict[str, dict]:
    """{cell's name: what the template needs of its figure}, with the captions of the English article, without links."""
    expander, figures = Expander(article, {run.snippet.name: run.notebook}, root), {}
    captions = {mark["cell"]: expander.caption(mark) for mark in article.marks if mark["snippet"] == article.snippet}
    for name in (cell["id"] for cell in run.notebook["cells"] if cell["metadata"]["drawings"]):
        caption = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", captions.get(name, f"What `{name}` draws."))
        alt = plain_text(caption).replace('"', "&quot;")
        images = expander.images(article.snippet, name, f"lab/{article.name}")
        figures[name] = {"caption": caption, "alt": alt, "images": images, "first": not figures}
    return figures


def _to_root(article: Page) -> str:
    """The relative address of the root of both sites from the article, or of the English site from its notebook."""
    return "../" * (article.name.count("/") + 2)


def _dump(notebook: dict) -> str:
    return json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def install_line() -> str:
    return f'pip install "{PACKAGE}[lab] @ git+{source_url()}"'
