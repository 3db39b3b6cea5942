"""Build a small project: two articles in both languages, two snippets and a package of four modules."""

import contextlib
import io
import json
import multiprocessing
import os
import re
import shutil
import signal
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import MappingProxyType

import lxml.html
import pytest
from mkdocs.config import load_config

from zhixing_site import cli, store
from zhixing_site.site import mkdocs, mkdocs_process
from zhixing_site.site.mkdocs import Renderer

os.environ["SOURCE_DATE_EPOCH"] = "1767225600"  # 2026-01-01: midnight must not part two builds
REPOSITORY = Path(__file__).resolve().parents[2]

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background jobs with SIGINT ignored

MKDOCS = f"""\
site_name: Small
docs_dir: !ENV [ZHIXING_PAGES, docs/en]
site_dir: site/en
theme: {{name: null, custom_dir: theme, static_templates: [404.html]}}
hooks: [{REPOSITORY}/src/zhixing_site/site/mkdocs_process.py]
plugins: [mkdocs-jupyter: {{include: [README.ipynb], ignore: ["*.md"], execute: false, cache: false}}]
markdown_extensions:
  admonition: {{}}
  attr_list: {{}}
  md_in_html: {{}}
  pymdownx.details: {{}}
  pymdownx.highlight: {{pygments_lang_class: true}}
  pymdownx.superfences: {{}}
  tables: {{}}
  toc: {{permalink: true}}
extra: {{twin: zh}}
not_in_nav: /lab/
"""

MKDOCS_ZH = """\
INHERIT: mkdocs.yml
docs_dir: !ENV [ZHIXING_PAGES, docs/zh]
site_dir: site/zh
plugins: []
extra: {twin: en}
"""

TEMPLATE = """\
<!doctype html>
<html>
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{content-security-policy}">
<title>{{ page.title }}</title>
{% if page.meta.description %}<meta name="description" content="{{ page.meta.description }}">{% endif %}
{% if page.canonical_url %}<link rel="canonical" href="{{ page.canonical_url }}">{% endif %}
{{ page.meta.head }}
<script>let here = 1;</script>
</head>
<body>
{% set twin = config.extra.twin %}
{% if not page.url.startswith("lab/") %}
<a class="twin" href="{{ base_url }}/../{{ twin }}/{{ page.url }}" hreflang="{{ twin }}">{{ twin }}</a>
{% endif %}
<article>{{ page.content }}</article>
</body>
</html>
"""

MISSING = """\
<!doctype html>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{content-security-policy}">
<title>404</title>
<a href="{{ base_url }}">Home</a>
"""

SQUARES = """\
# %% setup
import matplotlib.pyplot as plt

from things.power import square

# %% table
for x in (1, 2, 3):
    print(x, square(x))

# %% curve
plt.plot([0, 1, 2], [square(x) for x in (0, 1, 2)], label="Square")
plt.xlabel("$x$")
plt.ylabel("value")
plt.legend()

# %% values tags=["hidden"]
nine = square(3)
gap = 4.7e-04
below = -2.5
assert nine == 9
"""

SQUARES_EN = """\
# Squares { #squares }

The square of 3 is {{ nine }}, and $3^2 = {{ nine:.1f }}$.

![The squares up to $x = 2$.](area/squares.py:curve)

## Table { #table }

```python
--8<-- "area/squares.py:setup"
--8<-- "area/squares.py:table"
```

The function, which [the roots](roots.md#roots) undo:

```python
--8<-- "src/things/power.py:square"
```

$$
x^2 = x \\cdot x
$$
"""

SQUARES_ZH = """\
# 平方 { #squares }

$3^2 = {{ nine:.1f }}$，即 3 的平方是 {{ nine }}。

![$x = 2$ 以内的平方。](area/squares.py:curve)

## 表 { #table }

```python
--8<-- "area/squares.py:setup"
--8<-- "area/squares.py:table"
```

这个函数由[根](roots.md#roots)还原：

```python
--8<-- "src/things/power.py:square"
```

$$
x^2 = x \\cdot x
$$
"""

FILES = {
    "mkdocs.yml": MKDOCS,
    "mkdocs.zh.yml": MKDOCS_ZH,
    "theme/main.html": TEMPLATE,
    "theme/404.html": MISSING,
    "theme/images/logo.svg": '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 2 2"><path d="M0 0h2v2z"/></svg>\n',
    "docs/index.html": '<!doctype html>\n<title>Small</title>\n<a href="en/">English</a> <a href="zh/">中文</a>\n',
    "docs/en/index.md": "# Home { #home }\n\nSee [squares](area/squares.md#table).\n",
    "docs/zh/index.md": "# 首页 { #home }\n\n见[平方](area/squares.md#table)。\n",
    "docs/en/area/squares.md": SQUARES_EN,
    "docs/zh/area/squares.md": SQUARES_ZH,
    "docs/en/area/roots.md": '# Roots { #roots }\n\n```python\n--8<-- "area/roots.py:root"\n```\n',
    "docs/zh/area/roots.md": '# 根 { #roots }\n\n```python\n--8<-- "area/roots.py:root"\n```\n',
    "snippets/area/squares.toml": '[names]\nkeep = ["Square"]\n\n[text]\n"value" = "函数值"\n"{} steps" = "{} 步"\n',
    "snippets/area/squares.py": SQUARES,
    "snippets/area/roots.py": "# %% root\nfrom things.root import root\n\nprint(root(9))\n",
    "src/things/__init__.py": "",
    "src/things/power.py": 'def square(x):\n    """The square of x."""\n    return x * x\n',
    "src/things/root.py": 'def root(x):\n    """The square root of x."""\n    return x**0.5\n',
    "src/things/lonely.py": "ALONE = 1\n",
}


FORK = multiprocessing.get_context("fork")
MAX_FILES = os.sysconf("SC_OPEN_MAX")


def work_in_fork(config: str, root: Path, requests: Connection) -> None:
    """Run the rendering process in a fork of this one, after closing all inherited files."""
    os.closerange(3, requests.fileno())
    os.closerange(requests.fileno() + 1, MAX_FILES)
    warnings.resetwarnings()
    mkdocs_process.main(config, root, requests)


@contextlib.contextmanager
def forked_workers() -> Iterator[None]:
    """Fork the rendering processes, so that they need not import MkDocs again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mkdocs, "SPAWN", FORK)
        patch.setattr(mkdocs, "work", work_in_fork)
        yield


@dataclass
class Project:
    """A project in its own folder. After `build` or `run`, `ran` names the snippets that were not cached.

    With `forks`, its rendering processes are forked and need not import MkDocs.
    """

    root: Path
    forks: bool = True
    ran: set[str] = field(default_factory=set)

    def copy(self, root: Path) -> "Project":
        return Project(shutil.copytree(self.root, root))

    def reset(self, root: Path) -> "Project":
        """Replace the contents of the folder with a copy; the folder itself stays, as running processes use it."""
        for path in root.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return Project(shutil.copytree(self.root, root, dirs_exist_ok=True))

    def write(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def read(self, path: str) -> str:
        return (self.root / path).read_text()

    def replace(self, path: str, old: str, new: str) -> None:
        text = self.read(path)
        assert old in text
        self.write(path, text.replace(old, new))

    def line(self, path: str, part: str) -> int:
        """Return the number of the only line of the file that contains this text."""
        (number,) = (number for number, line in enumerate(self.read(path).splitlines(), 1) if part in line)
        return number

    def article(self, name: str, snippet: str, page: str = "") -> None:
        """Write a snippet and its reviewed page, the same in both languages; by default with all visible cells."""
        self.write(f"snippets/{name}.py", snippet)
        self.page(name, page or self.default_page(name, snippet))

    def articles(self, snippets: dict[str, str]) -> None:
        """Write several snippets with their default pages, and review all pages at the end."""
        for name, snippet in snippets.items():
            self.write(f"snippets/{name}.py", snippet)
        self.pages({name: self.default_page(name, snippet) for name, snippet in snippets.items()})

    @staticmethod
    def default_page(name: str, snippet: str) -> str:
        """Return a page that shows each cell that is not hidden."""
        cells = re.findall(r'^# %% (\w+)(?!.*"hidden")', snippet, re.MULTILINE)
        return "# Trial { #trial }\n" + "".join(f'\n```python\n--8<-- "{name}.py:{cell}"\n```\n' for cell in cells)

    def page(self, name: str, english: str, chinese: str = "") -> None:
        self.pages({name: english}, {name: chinese or english})

    def pages(self, english: dict[str, str], chinese: Mapping[str, str] = MappingProxyType({})) -> None:
        """Write reviewed pages; a page without a Chinese text has the English text in both languages."""
        for name, text in english.items():
            self.write(f"docs/en/{name}.md", text)
            self.write(f"docs/zh/{name}.md", chinese.get(name, text))
        self.command("accept")

    def command(self, *arguments: str) -> tuple[int, str]:
        """Run a command of the builder; return the exit code and the text on standard error."""
        stderr, stdout = io.StringIO(), io.StringIO()
        workers = forked_workers() if self.forks else contextlib.nullcontext()
        with (
            contextlib.chdir(self.root),
            workers,
            contextlib.redirect_stderr(stderr),
            contextlib.redirect_stdout(stdout),
        ):
            code = cli.main(list(arguments))
        self.ran = set(re.findall(r"^ran .* snippets/(\S+)\s*$", stdout.getvalue(), re.MULTILINE))
        return code, stderr.getvalue()

    def build(self, *options: str) -> tuple[int, str]:
        return self.command("build", *options)

    def failing_build(self) -> str:
        """Review all pages and build; check that the build fails, and return its messages."""
        self.command("accept")
        code, messages = self.build()
        assert code == 1
        return messages

    def run(self, *options: str) -> tuple[int, str]:
        return self.command("run", *options)

    def notebook(self, name: str) -> dict:
        return self.entry(name)["notebook"]

    def entry(self, name: str) -> dict:
        """Return the cache entry of the snippet's run: the executed notebook and its dependencies."""
        return json.loads(store.load(self.root / f".cache/runs/{name}.json"))

    def printed(self, name: str, cell: str) -> str:
        """Return the text that the cell printed, as stored in the notebook."""
        (cell,) = (each for each in self.notebook(name)["cells"] if each["id"] == cell)
        return "".join(output.get("text", "") for output in cell["outputs"])

    def html(self, page: str) -> lxml.html.HtmlElement:
        return lxml.html.fromstring((self.root / "site" / page / "index.html").read_bytes())

    def searched(self, language: str) -> dict[str, dict]:
        """Return what the search box reads: each section, by its id."""
        pages, sections, texts = (
            json.loads(self.read(f"site/{language}/search-{name}.json")) for name in ("pages", "sections", "text")
        )
        return {title["id"]: title | text for title, text in zip(pages + sections, texts, strict=True)}

    def site(self) -> dict[str, bytes]:
        site = self.root / "site"
        return {path.relative_to(site).as_posix(): path.read_bytes() for path in site.rglob("*") if path.is_file()}


@pytest.fixture(scope="session")
def pristine(tmp_path_factory) -> Project:
    """The small project, built once; tests copy it."""
    from mkdocs_jupyter.convert import nb2html  # imported here, as few test files need it

    project = Project(tmp_path_factory.mktemp("pristine"), forks=False)
    for path, text in FILES.items():
        project.write(path, text)
    assert project.command("accept") == (0, "")
    assert project.build() == (0, "")
    with contextlib.chdir(project.root):
        load_config()  # imports the extensions before processes are forked
        nb2html("site/en/lab/area/squares.ipynb")  # imports everything else
    return project


@pytest.fixture(scope="module")
def renderer(pristine, tmp_path_factory) -> Iterator[Renderer]:
    """A renderer for projects that are placed in its folder one after another."""
    root = pristine.copy(tmp_path_factory.mktemp("renderer") / "project").root
    with Renderer(root) as renderer:
        yield renderer


@pytest.fixture
def project(pristine, tmp_path) -> Project:
    """A project whose site is built and whose runs are cached."""
    return pristine.copy(tmp_path / "project")
