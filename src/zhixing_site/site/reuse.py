"""Reuse what earlier builds rendered: each HTML file is stored with a digest of everything that it was made of."""

import json
import os
import pickle
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from zhixing_copy.source import Module
from zhixing_copy.standalone import digest
from zhixing_site import store
from zhixing_site.content.page import API
from zhixing_site.project import file_digest, folder_digest, site_url
from zhixing_site.site.notebooks import NOTEBOOK
from zhixing_site.site.postprocess import Rendered

FOLDER = Path(".cache/rendered")
SOURCES = ("*.html", "*.md", NOTEBOOK)  # the files of which HTML comes; MkDocs copies all others
SHARED = "404.html"  # depends on what all pages do; stored with the files of the theme, which belong to no page


def page_keys(
    language: str, pages: Path, navigation: list, modules: Mapping[str, Module], root: Path
) -> dict[str, str]:
    """{HTML file, relative to the site: digest of all that it depends on} for the pages below pages/<language>."""
    settings = {path.name: file_digest(path) for path in sorted(root.glob("mkdocs.*"))}
    shared = [language, navigation, site_url(), settings, folder_digest(root / "theme"), *_tools()]
    common = digest(json.dumps(shared))
    keys = {f"{language}/{SHARED}": common}
    for path in sorted(path for pattern in SOURCES for path in (pages / language).rglob(pattern)):
        text = path.read_text()
        documented = [file_digest(path) for path in _documented(text, modules, root)]
        keys[_output(path.relative_to(pages))] = digest("".join([common, text, *documented]))
    return keys


def _output(source: Path) -> str:
    """The HTML file that MkDocs makes of a source."""
    folder = source.with_suffix("").as_posix().removesuffix("/index").removesuffix(f"/{Path(NOTEBOOK).stem}")
    return source.as_posix() if source.suffix == ".html" else f"{folder}/index.html"


def expects_rendering(root: Path, language: str) -> bool:
    """Whether a page or its code was saved since the last build: a guess, to load MkDocs early; `page_keys` decides."""
    stored = _path(f"{language}/{SHARED}", root)
    patterns = f"docs/{language}/**/*.md", "snippets/**/*.py", "src/**/*.py"
    paths = (path for pattern in patterns for path in root.glob(pattern) if path.is_file())
    saved = max((path.stat().st_mtime for path in paths), default=0)
    return not stored.exists() or saved > stored.stat().st_mtime


def touch(language: str, root: Path) -> None:
    """Note that what is stored of the language is up to date."""
    os.utime(_path(f"{language}/{SHARED}", root))


def load(name: str, key: str, site: Path, root: Path) -> Rendered | None:
    """Write the file into the site as it was rendered with this key; None if it was not."""
    content = store.load(_path(name, root))
    stored, files, rendered = pickle.loads(content) if content else ("", {}, None)
    if stored != key:
        return None
    store.write_files(files, site)
    return rendered


def save(name: str, key: str, paths: Iterable[Path], rendered: Rendered, site: Path, root: Path) -> None:
    """Store these files of the site."""
    files = {path.relative_to(site).as_posix(): path.read_bytes() for path in paths}
    store.save(_path(name, root), pickle.dumps((key, files, rendered)))


def _path(name: str, root: Path) -> Path:
    return root / FOLDER / f"{name}.pickle"


@cache
def _tools() -> list[str]:
    """What renders: Python, all installed distributions with their versions, and the files in site/."""
    distributions = {path.name for folder in sys.path for path in Path(folder).glob("*.dist-info")}
    return [sys.version, *sorted(distributions), folder_digest(Path(__file__).parent)]


def _documented(text: str, modules: Mapping[str, Module], root: Path) -> list[Path]:
    """The files of the modules whose API the page documents, and of those that they import."""
    names = [name.removeprefix("zhixing.").replace(".", "/") for name in API.findall(text)]
    for name in names:
        names += [each for each in sorted(modules[name].sources) if each not in names] if name in modules else []
    return [modules[name].path if name in modules else root / "src" / f"{name}.py" for name in names]
