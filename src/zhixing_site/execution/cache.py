"""Keep the executed notebook of each snippet while nothing changes that its run depended on."""

import functools
import json
import platform
import re
from collections import defaultdict
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distributions, version
from pathlib import Path

from zhixing_copy.standalone import digest
from zhixing_site import store
from zhixing_site.execution.dependencies import state
from zhixing_site.execution.snippet import Snippet
from zhixing_site.project import folder_digest

FOLDER = Path(".cache/runs")

_parse = functools.cache(json.loads)


def load(snippet: Snippet, root: Path) -> dict | None:
    """The executed notebook; None if there is none, or if something that its run depended on has changed."""
    content = store.load(_path(snippet, root))
    entry = _parse(content) if content else {}
    is_valid = (
        entry.get("builder") == _builder()
        and entry["files"].get(snippet.path) == digest(snippet.content)
        and all(state(root / path) == seen for path, seen in entry["files"].items())
        and all(_version(name) == seen for name, seen in entry["distributions"].items())
    )
    return entry["notebook"] if is_valid else None


def save(notebook: dict, files: dict[str, str], modules: Iterable[str], snippet: Snippet, root: Path) -> None:
    """Write the notebook with what it depends on: {path: digest} of files, and top-level modules."""
    names = sorted({name for module in modules for name in _distributions_of(module)})
    versions = {name: _version(name) for name in names}
    entry = {"builder": _builder(), "files": files, "distributions": versions, "notebook": notebook}
    store.save(_path(snippet, root), json.dumps(entry).encode())


def _path(snippet: Snippet, root: Path) -> Path:
    return root / FOLDER / Path(snippet.name).with_suffix(".json")


@functools.cache
def _builder() -> str:
    """Python's version and the digest of execution/: if one changes, all snippets run again."""
    return f"{platform.python_version()} {folder_digest(Path(__file__).parent)}"


@functools.cache
def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "absent"


@functools.cache
def _distributions_of(module: str) -> list[str]:
    """The names of the distributions that install this top-level module."""
    return [distribution.name for distribution in _installed().get(module, ())]


@functools.cache
def _installed() -> dict[str, list[Distribution]]:
    """{top-level module: distributions}, as `packages_distributions()` tells in twenty times the time."""
    found = defaultdict(list)
    for distribution in distributions():
        declared = (distribution.read_text("top_level.txt") or "").split()
        record = distribution.read_text("RECORD") or ""
        for module in {*declared, *(re.match(r"[^/.,]*", line)[0] for line in record.splitlines())}:
            found[module].append(distribution)
    return found
