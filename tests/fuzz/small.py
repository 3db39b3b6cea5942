"""The small project of the builder's tests, with an area, a glossary, and a module that readers can copy."""

import contextlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mkdocs.config import load_config

from zhixing_site import build
from zhixing_site.site.mkdocs import Renderer

sys.path.insert(0, str(Path(__file__).parents[1] / "site"))
from conftest import FILES, REPOSITORY, Project, forked_workers

Files = dict[str, object]  # {path: bytes; the target of a link; None for a folder}
LANGUAGES = ("en", "zh")
MATTER = {
    "en": "---\nmenu: {0}\nsummary: About {0}.\ndate: 2026-01-0{1}\n{2}---\n\n",
    "zh": "---\nmenu: {0}\nsummary: 关于{0}。\n---\n\n",
}
REST = """
## More { #more }

!!! note "Remember"
    A box, with `code`, a [link](squares.md#table) and $a_1$.

| left | right |
|------|-------|
| $x$  | `y`   |

- an item
    - another inside

::: zhixing.area.ruler
"""
MKDOCS = f"""\
INHERIT: mkdocs.base.yml
docs_dir: !ENV [ZHIXING_PAGES, docs/en]
theme: {{name: null, custom_dir: theme, static_templates: [404.html]}}
hooks: [{REPOSITORY}/src/zhixing_site/site/mkdocs_process.py]
"""
JUPYTER = 'plugins: {mkdocs-jupyter: {include: [README.ipynb], ignore: ["*.md"], execute: false, cache: false}}\n'


def good_files() -> dict[str, bytes]:
    """The small project of the builder's tests, with an area, a glossary, and a module that readers can copy."""
    files = dict(FILES)
    for number, (name, keys) in enumerate(
        {"roots": "", "squares": "cover: curve\nrequires: [area/roots]\n"}.items(), 1
    ):
        for language in LANGUAGES:
            path = f"docs/{language}/area/{name}.md"
            files[path] = MATTER[language].format(name, number, keys) + files[path] + REST * (name == "roots")
    for language, title in ("en", "Things"), ("zh", "事物"):
        order = "---\norder: 1\n---\n\n" * (language == "en")
        files[f"docs/{language}/area/index.md"] = f'{order}# {title} {{ #area }}\n\n--8<-- "articles"\n'
        files[f"docs/{language}/glossary.md"] = f'# {title} {{ #glossary }}\n\n--8<-- "glossary"\n'
    files["docs/glossary.csv"] = (
        'term,术语,definition,定义,page\nroot,根,"What $x^2$ has, like 3.",平方的根。,area/roots#roots\n'
    )
    files["src/zhixing/__init__.py"] = files["src/zhixing/area/__init__.py"] = ""
    files["src/zhixing/area/ruler.py"] = (
        '"""Lengths."""\n\nimport math\n\n\ndef measure(x: float) -> float:\n    """How long.\n\n    Example:\n'
        '        >>> measure(-1.0)\n        1.0\n    """\n    return math.fabs(x)\n'
    )
    files["tests/area/test_ruler.py"] = (
        "from zhixing.area.ruler import measure\n\n\ndef test_length():\n    assert measure(-1) == 1\n"
    )
    files["mkdocs.base.yml"] = (REPOSITORY / "mkdocs.base.yml").read_text()
    files["mkdocs.yml"] = MKDOCS + JUPYTER + "extra: {twin: zh}\nnot_in_nav: /lab/\n"
    files["mkdocs.zh.yml"] = MKDOCS.replace("docs/en", "docs/zh") + "extra: {twin: en}\n"
    return {path: text.encode() for path, text in files.items()}


def write(root: Path, files: Files) -> None:
    """Make these the files of the project, besides its site and its cache."""
    for path in root.iterdir():
        if path.name not in ("site", ".cache", "theme"):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is None:
            path.mkdir(exist_ok=True)
        else:
            path.symlink_to(content)


@contextlib.contextmanager
def prepared(root: Path) -> Iterator[tuple[Project, Files]]:
    """The good project, built, in a folder of its own; the processes of MkDocs stay for all builds, as in a preview."""
    project, good = Project(root, forks=False), good_files()
    write(root, good)
    assert project.command("accept")[0] == project.build()[0] == 0
    with contextlib.chdir(root):
        load_config()  # imports the extensions before processes are forked
    reviewed = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.glob("docs/reviewed/**/*.txt")}

    @contextlib.contextmanager
    def kept(_: Path) -> Iterator[Renderer]:
        try:
            yield renderer
        finally:
            for language in renderer.requests:  # a refused build does not wait for them
                renderer.workers.pop(language).end()
            renderer.requests.clear()

    with forked_workers(), Renderer(root) as renderer, pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "Renderer", kept)
        yield project, good | reviewed
