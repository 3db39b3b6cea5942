"""Lay out the files of a new article, from the tree in template/."""

import re
from pathlib import Path

from zhixing_site.fault import Fault
from zhixing_site.page import LANGUAGES, read_pages
from zhixing_site.render import CONFIGS
from zhixing_site.twins import REVIEWED, accept


def new(article: str, root: Path) -> list[str]:
    """Write the files of `area/article`, and its line in both navigations; returns the paths that were written.

    Raises Fault where the name is no slug, or one of the files is there already.
    """
    if not re.fullmatch(r"[a-z]\w*/[a-z]\w*", article, re.ASCII):
        raise Fault(f"an article is named area/article, like optimization/adam_w, in small letters; this is {article}")
    area, name = article.split("/")
    words = {"AREA": area, "ARTICLE": name, "TITLE": name.replace("_", " ").capitalize()}
    files = {}
    for path in sorted(path for path in (root / "template").rglob("*.*") if path.suffix in (".md", ".py")):
        target = root / _fill(path.relative_to(root / "template").as_posix(), words)
        if target.name != "__init__.py" or not target.exists():
            files[target] = _fill(path.read_text(), words)
    if there := [path.relative_to(root).as_posix() for path in files if path.exists()]:
        raise Fault(f"there is already {', '.join(there)}")
    for config in CONFIGS.values():
        files[root / config] = _with_entry((root / config).read_text(), area, f"{words['TITLE']}: {article}.md")
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    accept(*(read_pages(root, language) for language in LANGUAGES), [article], root)
    return [*(path.relative_to(root).as_posix() for path in files), REVIEWED]


def _fill(text: str, words: dict[str, str]) -> str:
    return re.sub(r"AREA|ARTICLE|TITLE", lambda word: words[word[0]], text)


def _with_entry(config: str, area: str, entry: str) -> str:
    """The configuration, whose last part is `nav`, with one entry more: below its area's last, or in a new area."""
    lines = config.rstrip().splitlines()
    last = max((number for number, line in enumerate(lines) if re.search(rf"[ ]{area}/\w+\.md$", line)), default=None)
    if last is None:
        lines += [f"  - {area.capitalize()}:", f"      - {entry}"]
    else:
        lines.insert(last + 1, f"      - {entry}")
    return "\n".join(lines) + "\n"
