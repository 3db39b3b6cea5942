"""Lay out the files of a new article, from the tree in template/."""

import re
from datetime import date
from pathlib import Path

from zhixing_site.content.articles import read_areas
from zhixing_site.content.page import read_pages
from zhixing_site.content.translations import accept, reviewed_path
from zhixing_site.errors import BuildError
from zhixing_site.files import find_files, read_text
from zhixing_site.project import LANGUAGES
from zhixing_site.store import write_files

SHARED = {"__init__.py", "index.md"}  # files of an area
KINDS = {".csv", ".md", ".py", ".toml"}


def new(article: str, root: Path) -> list[str]:
    """Write the files of `area/article`, and those of its area if it is new, which becomes the last one.

    Returns the paths written; raises BuildError if the name is malformed or one of the files exists already.
    """
    if not re.fullmatch(r"[a-z]\w*/[a-z]\w*", article, re.ASCII):
        raise BuildError(
            f"an article is named area/article, like optimization/adam_w, in small letters; this is {article}"
        )
    area, name = article.split("/")
    areas, _ = read_areas(*(read_pages(root, language) for language in LANGUAGES))
    words = {
        "AREA_TITLE": _title(area),
        "AREA": area,
        "ARTICLE": name,
        "TITLE": _title(name),
        "DATE": date.today().isoformat(),
        "ORDER": str(max((area.pages["en"].meta["order"] for area in areas), default=0) + 1),
    }
    files = {}
    for path in (path for path in find_files(root / "template", root) if path.suffix in KINDS):
        target = _fill(path.relative_to(root / "template").as_posix(), words)
        if path.name not in SHARED or not (root / target).exists():
            files[target] = _fill(read_text(path, root), words)
    if there := [path for path in files if (root / path).exists()]:
        raise BuildError(f"there is already {', '.join(there)}")
    write_files(files, root)
    pages = [article] + [f"{area}/index"] * any(path.endswith("/index.md") for path in files)
    accept(*(read_pages(root, language) for language in LANGUAGES), pages, root)
    return [*files, *map(reviewed_path, pages)]


def _title(slug: str) -> str:
    return slug.replace("_", " ").capitalize()


def _fill(text: str, words: dict[str, str]) -> str:
    return re.sub("|".join(words), lambda word: words[word[0]], text)
