"""Make a page of a run: each cell with what it printed and drew, and the same as files to run: a notebook, a script."""

import copy
import json
import re
import textwrap
from collections.abc import Iterator

from zhixing_site.content.page import MARK, Page
from zhixing_site.execution.runner import Run
from zhixing_site.project import site_url, source_url

PACKAGE = "zhixing"
INTRO = """\
# {title}: the notebook {{ #notebook }}

Every cell behind [{title}](../../{name}.md) as it ran, with those that the article does not show. To run it yourself, \
take [{stem}.ipynb]({stem}.ipynb){{ download="{stem}.ipynb" }} or \
[{stem}.py]({stem}.py){{ download="{stem}.py" }}, and install what it needs:

```bash
{install}
```
"""
CELL = """
## `{name}`{mark} {{ #{name} }}

```python
--8<-- "{snippet}:{name}"
```
"""
LINK = {
    "en": '<a href="{address}">Notebook</a>: every cell of this page, to read or to run yourself.',
    "zh": '<a href="{address}" hreflang="en">Notebook</a>：本文的全部代码单元，可阅读，也可下载运行。',
}
# By name, which need not be imported where the error is raised.
EXPECTED = """\
try:
{body}
except Exception as error:
    if type(error).__name__ != "{name}":
        raise
    print(f"{name}: {{error}}")"""
HIDDEN = ", not in the article"


def lab_page(article: Page, run: Run) -> Page:
    """A page below lab/, by the English article's captions; to be expanded like any other."""
    stem = article.name.rpartition("/")[2]
    text = INTRO.format(title=article.title, name=article.name, stem=stem, install=install_line())
    captions = dict(_captions(article, run.snippet.name))
    for cell, ran in zip(run.snippet.cells, run.notebook["cells"], strict=True):
        text += CELL.format(name=cell.name, mark=HIDDEN * cell.hidden, snippet=run.snippet.name)
        if ran["metadata"]["drawings"]:
            caption = captions.get(cell.name, f"What `{cell.name}` draws.")
            text += f"\n![{caption}]({run.snippet.name}:{cell.name})\n"
    return Page(f"docs/en/lab/{article.name}.md", text)


def lab_link(article: Page) -> str:
    """A paragraph for the end of the article."""
    address = "../" * (article.name.count("/") + 2) + f"en/lab/{article.name}/"
    return f'\n\n<p class="lab">{LINK[article.language].format(address=address)}</p>\n'


def notebook_file(article: Page, run: Run) -> str:
    """The executed notebook for Jupyter, which goes on where a cell must raise."""
    notebook = copy.deepcopy(run.notebook)
    for cell, ran in zip(run.snippet.cells, notebook["cells"], strict=True):
        ran["metadata"] = {"tags": ["hidden"] * cell.hidden + ["raises-exception"] * bool(cell.raises)}
    about = {"cell_type": "markdown", "id": "about", "metadata": {}, "source": _about(article)}
    notebook["cells"].insert(0, about)
    notebook["metadata"] = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def script_file(article: Page, run: Run) -> str:
    """The snippet as a program that ends well: what a cell must raise is printed."""
    text = textwrap.indent(_about(article), "# ", lambda line: True) + "\n"
    for cell in run.snippet.cells:
        source = cell.source
        if cell.raises:
            body = textwrap.indent(source, "    ")
            source = EXPECTED.format(body=body, name=cell.raises)
        text += f"\n# %% {cell.name}\n{source}\n"
    return text


def _about(article: Page) -> str:
    address = f"{site_url()}en/{article.name}/"
    return f"The code of {article.title}, {address}\n\n{install_line()}"


def _captions(article: Page, snippet: str) -> Iterator[tuple[str, str]]:
    """The caption of each cell's figure, without its links, which lead from the article."""
    for mark in MARK.finditer(article.text):
        if mark["figure"] and mark["figure"].startswith(f"{snippet}:"):
            yield mark["figure"].partition(":")[2], re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", mark["caption"])


def install_line() -> str:
    return f'pip install "{PACKAGE}[lab] @ git+{source_url()}"'
