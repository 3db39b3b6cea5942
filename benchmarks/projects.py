"""Write the projects that the benchmarks build: small notebooks, trivial snippets, and any number of articles."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import nbformat
from nbformat import v4

from zhixing_copy.catalogue import read_modules
from zhixing_site import cli
from zhixing_site.build import other_sources, page_sources, read_site
from zhixing_site.content.articles import read_areas
from zhixing_site.content.page import Page
from zhixing_site.execution import cache
from zhixing_site.execution.runner import Run
from zhixing_site.execution.snippet import read_snippet, snippet_paths
from zhixing_site.site.components import Components
from zhixing_site.store import write_files

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIGS = {"en": "mkdocs.yml", "zh": "mkdocs.zh.yml"}
A_SECTION = 20  # articles in a section of the navigation

NOTEBOOK = """\
# %% setup
import matplotlib.pyplot as plt
import torch

# %% values
x = torch.linspace(0, @n, 200)
print(torch.sin(x).mean())

# %% curve
figure, axes = plt.subplots()
axes.plot(x, torch.sin(x), label="$y$")
axes.set(xlabel="$x$")
axes.legend()
"""

TITLES = {"en": ("Notebook", "Values", "Curve", "A curve."), "zh": ("笔记本", "值", "曲线", "一条曲线。")}

NOTEBOOK_PAGE = """\
# @notebook @n { #notebook }

## @values { #values }

```python
--8<-- "small/notebook_@n.py:setup"
--8<-- "small/notebook_@n.py:values"
```

## @curve { #curve }

```python
--8<-- "small/notebook_@n.py:curve"
```

![@caption](small/notebook_@n.py:curve)
"""

ARTICLE_SETUP = """\
# %% setup
import matplotlib.pyplot as plt

number = @n
# %% curve
figure, axes = plt.subplots()
axes.plot([k / 20 for k in range(200)], [(k * number) % 7 for k in range(200)], label="$f_{@n}$")
axes.set(xlabel="$x$")
axes.legend()
"""

ARTICLE_CELL = """\
# %% sum_@k
sum_@k = sum(k**2 / (number + @k) for k in range(100))
print(f"number {number}: the sum up to 100 is {sum_@k:.6f}")
for k in range(3):
    print(k, sum_@k**k)
# %% sum_@k_holds tags=["hidden"]
assert sum_@k > 0
share_@k = 1 / (1 + sum_@k)
"""

ARTICLE_HEAD = {
    "en": "# Article @n { #article-@n }\n\nWhat it is for, with $f_{@n}(x) = x^{@n}$ and {{ number }}.\n\n",
    "zh": "# 第 @n 篇 { #article-@n }\n\n它的用处：$f_{@n}(x) = x^{@n}$，即 {{ number }}。\n\n",
}

ARTICLE_TEXT = {
    "en": """\
## Part @k of the argument { #part-@k }

For $x > @n$ let $g_{@k}(x) = \\frac{x^{@k}}{@n + x}$, whose share of the whole is {{ share_@k:.3e }}. Since
$\\lim_{x\\to\\infty} g_{@k}(x)/x^{@k} = 0$, the next step follows, as in [the article before](@other.md#part-@k), and
the *sum* of **all** terms is ${{ sum_@k:.4f }}$; see `torch.sum` for how it is computed. What is said here is as long
as a paragraph of ours, and has a [source](https://example.org/@n/@k) that nobody asks.

- A list has points, the first with $\\sigma^2_{@n,@k} = \\sum_i (x_i - \\mu_{@n})^2$.
- The second says that $@n \\cdot @k = y$ where $\\operatorname{erf}(y/\\sqrt{2})$ is small.

""",
    "zh": """\
## 论证的第 @k 部分 { #part-@k }

当 $x > @n$ 时，令 $g_{@k}(x) = \\frac{x^{@k}}{@n + x}$，它占总体的 {{ share_@k:.3e }}。因为
$\\lim_{x\\to\\infty} g_{@k}(x)/x^{@k} = 0$，可以推出下一步，正如[上一篇](@other.md#part-@k)所说，而**所有**项的*和*是
${{ sum_@k:.4f }}$；它的计算方法见 `torch.sum`。这里的文字与我们的一段文字一样长，并附有[来源](https://example.org/@n/@k)。

- 列表的第一点是 $\\sigma^2_{@n,@k} = \\sum_i (x_i - \\mu_{@n})^2$。
- 第二点说明 $@n \\cdot @k = y$，其中 $\\operatorname{erf}(y/\\sqrt{2})$ 很小。

""",
}

ARTICLE_CODE = """\
```python
--8<-- "@name.py:sum_@k"
```

$$
\\sum_{i=0}^{@n} \\frac{i^{@k}}{@n + @k} = \\int_0^{@n} \\Phi(t)\\,\\mathrm{d}t + \\mathcal{O}(x^{-@k})
$$

"""

ARTICLE_END = """\
```python
--8<-- "@name.py:setup"
--8<-- "@name.py:curve"
--8<-- "src/things/power.py:square"
```

![$f_{@n}$ up to $x = 10$.](@name.py:curve)
"""


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def fill(text: str, **values: object) -> str:
    for name, value in values.items():
        text = text.replace(f"@{name}", str(value))
    return text


FRONT = {
    "en": "---\nmenu: Article @n\nsummary: What article @n is about.\ndate: 2026-01-01\ncover: curve\n---\n\n",
    "zh": "---\nmenu: 第 @n 篇\nsummary: 第 @n 篇讲的是什么。\n---\n\n",
}


def lay_out(root: Path, articles: list[str]) -> None:
    """Write the parts of every project: theme, configuration, a home page, and a page for each area."""
    for name in "mkdocs.base.yml", "theme", "docs/index.html", "src/zhixing_site/site":
        copy(REPOSITORY / name, root / name)
    for language, config in CONFIGS.items():
        copy(REPOSITORY / config, root / config)
        write(root / "docs" / language / "index.md", "# Home { #home }\n")
        for order, area in enumerate(dict.fromkeys(name.partition("/")[0] for name in articles)):
            write_area(root, area, order)
    write(root / "src/things/power.py", 'def square(x):\n    """The square of x."""\n    return x * x\n')
    (root / "snippets").mkdir(exist_ok=True)


def write_area(root: Path, area: str, order: int) -> None:
    for language in CONFIGS:
        text = f"---\norder: {order}\n---\n\n# Section {order} {{ #section-{order} }}\n"
        write(root / "docs" / language / area / "index.md", text)


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, target, dirs_exist_ok=True) if source.is_dir() else shutil.copy(source, target)


def navigation(articles: dict[str, str]) -> str:
    """Return the `nav` of a plain MkDocs site, for {title: page}."""
    lines, titles = ["nav:", "  - Home: index.md"], list(articles)
    for start in range(0, len(titles), A_SECTION):
        lines.append(f"  - Section {start // A_SECTION}:")
        lines += [f"      - {title}: {articles[title]}" for title in titles[start : start + A_SECTION]]
    return "\n".join(lines) + "\n"


def write_repository(root: Path) -> None:
    """Copy this repository, with its cached runs."""
    for name in [
        "docs",
        "snippets",
        "src",
        "tests",
        "theme",
        "pyproject.toml",
        *CONFIGS.values(),
        "mkdocs.base.yml",
        "benchmarks/results",
        ".cache/runs",
    ]:
        if (REPOSITORY / name).exists():
            copy(REPOSITORY / name, root / name)


def write_notebooks(root: Path, count: int) -> None:
    """Write notebooks twice: as snippets with pages in two languages for us, as .ipynb files for mkdocs-jupyter."""
    names = [f"small/notebook_{n}" for n in range(count)]
    lay_out(root, names)
    for n, name in enumerate(names):
        for language in CONFIGS:
            titles = dict(zip(("notebook", "values", "curve", "caption"), TITLES[language], strict=True))
            write(root / "docs" / language / f"{name}.md", fill(FRONT[language] + NOTEBOOK_PAGE, **titles, n=n))
        write_notebook(root, n, f"{n + 1}")
    for language, config in CONFIGS.items():
        peer = navigation({f"Notebook {n}": f"{name}.ipynb" for n, name in enumerate(names)})
        cached = f"cache: true, cache_dir: .cache/jupyter/{language}"
        settings = f"{{include: ['*.ipynb'], execute: true, allow_errors: false, {cached}}}"
        folders = f"docs_dir: notebooks/{language}\nsite_dir: .cache/jupyter/site/{language}"
        text = f"INHERIT: {config}\n{folders}\nhooks: []\nplugins:\n  mkdocs-jupyter: {settings}\n{peer}"
        write(root / f"jupyter.{language}.yml", text)
        write(root / "notebooks" / language / "index.md", "# Home { #home }\n")
    accept(root)


def write_notebook(root: Path, n: int, end: str) -> None:
    """Write notebook n; `end` is the number in one of its lines, the end of the figure's range."""
    path = root / f"snippets/small/notebook_{n}.py"
    write(path, fill(NOTEBOOK, n=end))
    setup, values, curve = (v4.new_code_cell(cell.source, id=cell.name) for cell in read_snippet(path, root).cells)
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    for language, titles in TITLES.items():
        texts = (f"# {titles[0]} {n}", f"## {titles[1]}", f"## {titles[2]}", titles[3])
        title, of_values, of_curve, caption = (
            v4.new_markdown_cell(text, id=f"text{i}") for i, text in enumerate(texts)
        )
        cells = [title, of_values, setup, values, of_curve, curve, caption]
        notebook = v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
        write(root / f"notebooks/{language}/small/notebook_{n}.ipynb", nbformat.writes(notebook))


def write_trivial(root: Path, count: int, source: str) -> None:
    """Write snippets of one cell without pages: they are run, not built."""
    shutil.rmtree(root, ignore_errors=True)
    for n in range(count):
        write(root / f"snippets/trivial/snippet_{n}.py", f"# %% cell\n{source}\n")


def write_articles(root: Path, count: int) -> None:
    """Write articles 1 to `count`; existing ones stay the same."""
    names = {n: f"part_{(n - 1) // A_SECTION}/article_{n}" for n in range(1, count + 1)}
    lay_out(root, list(names.values()))
    parts = range(1, 9)
    for n, name in names.items():
        # cross links lead to the previous article, which may be in the previous section
        other = "../" + names[max(1, n - 1)]
        snippet = ARTICLE_SETUP + "".join(fill(ARTICLE_CELL, k=k) for k in parts)
        write(root / f"snippets/{name}.py", fill(snippet, n=n))
        for language in CONFIGS:
            text = "".join(fill(ARTICLE_TEXT[language] + ARTICLE_CODE, k=k) for k in parts)
            text = FRONT[language] + ARTICLE_HEAD[language] + text + ARTICLE_END
            write(root / "docs" / language / f"{name}.md", fill(text, name=name, other=other, n=n))
    accept(root)


def accept(root: Path) -> None:
    """Record every page as reviewed."""
    english, chinese = (cli.read_pages(root, language) for language in CONFIGS)
    cli.accept(english, chinese, [], root)


def write_sources(root: Path, folder: Path, languages: Iterable[str]) -> list[Page]:
    """Write below the folder, by language, what MkDocs reads of a project that was built; returns all its pages."""
    site = read_site(root)
    snippets = [read_snippet(path, root) for path in snippet_paths(root)]
    runs = {each.name: Run(each, cache.load(each, root)) for each in snippets}
    areas, _ = read_areas(*site.pages.values())
    components = Components(areas, runs, read_modules(root / "src/zhixing"), root)
    for language in languages:
        write_files(other_sources(language, components), folder / language)
        for page in site.pages[language].values():
            write_files(page_sources(page, site, components), folder / language)
    return site.all_pages
