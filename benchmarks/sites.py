"""Build the sites that pages.py visits, all below site/: ours, and the same text in two other tools."""

import json
import re
import subprocess
import sys
import tarfile
import textwrap
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import nbformat
import projects
import yaml
from measure import measure
from mkdocs.utils import yaml_load
from nbformat import v4

from zhixing_site.content.articles import navigation, read_areas
from zhixing_site.content.expand import Expander
from zhixing_site.content.page import Page, Use, read_pages
from zhixing_site.execution import cache
from zhixing_site.execution.runner import Run
from zhixing_site.execution.snippet import read_snippet, snippet_paths

BUILDER = [sys.executable, "-m", "zhixing_site"]
# Both other tools load their own version of MathJax from a CDN; here the same server provides it.
MATHJAX = {"jupyter": "2.7.7", "plain": "3.2.2"}
NOTEBOOK_MATH = "MathJax.js?config=TeX-AMS_CHTML-full,Safe"
# As in the theme's documentation.
PLAIN_MATH = """\
window.MathJax = {
  tex: {
    inlineMath: [["\\\\(", "\\\\)"]],
    displayMath: [["\\\\[", "\\\\]"]],
    processEscapes: true,
    processEnvironments: true,
  },
  options: {ignoreHtmlClass: ".*|", processHtmlClass: "arithmatex"},
};
document$.subscribe(() => {
  MathJax.startup.output.clearCache();
  MathJax.typesetClear();
  MathJax.texReset();
  MathJax.typesetPromise();
});
"""


def build_sites(root: Path) -> None:
    """Build site/en and site/zh with our builder, site/jupyter and site/plain with MkDocs."""
    projects.write_repository(root)
    measure([*BUILDER, "build"], root=root)
    pages = read_pages(root, "en")
    snippets = [read_snippet(path, root) for path in snippet_paths(root)]
    runs = {each.name: Run(each, cache.load(each, root)) for each in snippets}
    with patch("zhixing_site.content.formulas.to_html", as_tex):
        write_plain(root, pages)
        write_jupyter(root, pages, runs)
    for peer, release in MATHJAX.items():
        measure([sys.executable, "-m", "mkdocs", "build", "--quiet", "--config-file", f"{peer}.yml"], root=root)
        fetch_mathjax(root, release)


def as_tex(tex: str, block: bool, stop: str = "") -> str:
    """Return a formula in the syntax of these sites."""
    return f"$$\n{tex.strip()}\n$$" if block else f"${tex}${stop}"


def fetch_mathjax(root: Path, release: str) -> None:
    subprocess.run(["npm", "pack", "--silent", f"mathjax@{release}"], cwd=root, check=True, stdout=subprocess.DEVNULL)
    with tarfile.open(root / f"mathjax-{release}.tgz") as package:
        package.extractall(root / "site" / f"mathjax-{release}", filter="data")


# Plain mkdocs-material


def write_plain(root: Path, pages: dict[str, Page]) -> None:
    """The expanded pages, with one drawing a figure, since the theme has but one colour scheme by default."""
    areas, _ = read_areas(pages, read_pages(root, "zh"))
    projects.write_sources(root, root / "plain", ["en"])
    for path in (root / "plain/en").rglob("*.md"):
        path.write_text(re.sub(r"!\[[^\]]*\]\([^)]*-dark\.svg\)\{[^}]*\}", "", path.read_text()))
    projects.write(root / "plain/en/mathjax.js", PLAIN_MATH)
    with open(root / "mkdocs.yml") as file:
        ours = yaml_load(file)
    write_config(
        root,
        "plain",
        docs_dir="plain/en",
        extra_javascript=["mathjax.js", f"/mathjax-{MATHJAX['plain']}/package/es5/tex-mml-chtml.js"],
        markdown_extensions={**ours["markdown_extensions"], "pymdownx.arithmatex": {"generic": True}},
        plugins={"search": {}, "mkdocstrings": ours["plugins"]["mkdocstrings"]},
        nav=navigation(areas, pages),
        not_in_nav=ours["not_in_nav"],
    )


def write_config(root: Path, peer: str, **settings: object) -> None:
    config = {
        "site_name": "知行 Zhixing",
        "site_dir": f"site/{peer}",
        "theme": {"name": "material", "font": False},
        **settings,
    }
    (root / f"{peer}.yml").write_text(yaml.safe_dump(config, allow_unicode=True))


# mkdocs-jupyter


def write_jupyter(root: Path, pages: dict[str, Page], runs: dict[str, Run]) -> None:
    """Write each article as an executed notebook that contains its figures."""
    notebooks = {name: run.notebook for name, run in runs.items()}
    for name, page in pages.items():
        if "/" in name and not name.endswith("/index"):
            text = nbformat.writes(notebook(page, notebooks, root))
            projects.write(root / "jupyter" / f"{name}.ipynb", text)
        else:
            projects.copy(root / "plain/en" / f"{name}.md", root / "jupyter" / f"{name}.md")
    areas, _ = read_areas(pages, read_pages(root, "zh"))
    nav = re.sub(r"(\w/(?!index\.)\w+)\.md", r"\1.ipynb", json.dumps(navigation(areas, pages)))
    mathjax = f"/mathjax-{MATHJAX['jupyter']}/package/{NOTEBOOK_MATH}"
    plugins = {"search": {}, "mkdocs-jupyter": {"custom_mathjax_url": mathjax}}
    write_config(root, "jupyter", docs_dir="jupyter", plugins=plugins, nav=json.loads(nav))


def notebook(page: Page, notebooks: dict[str, dict], root: Path) -> nbformat.NotebookNode:
    """Return the page as a notebook with its shown cells in order; a figure has no code, as on the page."""
    page = replace(page, text=re.sub(r"^## [^\n]*\n\n:::.*", "", page.text, flags=re.MULTILINE))
    expander, cells, text, end = Expander(page, notebooks, root), [], "", 0
    for mark in page.marks:
        text += page.text[end : mark.start()]
        end = mark.end()
        if mark["fence"] and (uses := [use for use in page.included(mark) if not use.is_definition]):
            cells += [markdown_cell(text), *(code_cell(notebooks, use) for use in uses)]
            text = ""
        elif mark["figure"]:
            cells += [
                markdown_cell(text),
                code_cell(notebooks, Use(mark["snippet"], mark["cell"], line=0, figure=True)),
            ]
            text = expander.caption(mark)
        else:
            text += expander.replace(mark)
    return v4.new_notebook(cells=[*cells, markdown_cell(text + page.text[end:])])


def markdown_cell(text: str) -> nbformat.NotebookNode:
    """Return a cell without our extensions of Markdown: ids of headings, titles of fences, boxes."""
    text = re.sub(r'( \{ #[\w-]+ \}| title="[^"]*")$', "", text, flags=re.MULTILINE)
    box = r'^[?!]{3}\+? \w+ "(.*)"\n((?:\n|    .*\n?)*)'
    return v4.new_markdown_cell(
        re.sub(box, lambda found: f"**{found[1]}**\n{textwrap.dedent(found[2])}", text, flags=re.M)
    )


def code_cell(notebooks: dict[str, dict], use: Use) -> nbformat.NotebookNode:
    cell = next(cell for cell in notebooks[use.path]["cells"] if cell["id"] == use.name)
    outputs = [each for each in cell["outputs"] if use.figure == (each["output_type"] == "display_data")]
    source = "" if use.figure else cell["source"]
    return v4.new_code_cell(source, outputs=[nbformat.from_dict(output) for output in outputs])
