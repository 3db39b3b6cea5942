"""Keep the executed notebook of each snippet, and know when it no longer holds."""

import functools
import json
import os
import platform
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from zhixing_site.snippet import Snippet
from zhixing_site.trace import digest, file_digest

FOLDER = Path(".cache/runs")


def load(snippet: Snippet, root: Path) -> dict | None:
    """The executed notebook, if it is whole and everything that the run depended on is as it was."""
    try:
        notebook = json.loads(_path(snippet, root).read_bytes())
        record = notebook["metadata"]["zhixing"]
        whole = record.pop("digest") == _digest(notebook)
        return notebook if whole and _holds(record, snippet, root) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # absent, cut short or damaged: the snippet runs again


def store(notebook: dict, snippet: Snippet, root: Path) -> None:
    """Add to the notebook what its run depended on, and write it aside, then into place."""
    record = notebook["metadata"]["zhixing"]
    record["distributions"] = {name: _version(name) for name in record["distributions"]}
    record["builder"] = _builder()
    signed = {**notebook, "metadata": {**notebook["metadata"], "zhixing": {**record, "digest": _digest(notebook)}}}
    path = _path(snippet, root)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-")
    with os.fdopen(descriptor, "w") as file:
        json.dump(signed, file)
    os.replace(aside, path)


def _holds(record: dict, snippet: Snippet, root: Path) -> bool:
    return (
        record["builder"] == _builder()
        and record["files"][snippet.path] == digest(snippet.content)
        and all(file_digest(root / path) == seen for path, seen in record["files"].items())
        and all(_version(name) == seen for name, seen in record["distributions"].items())
    )


def _path(snippet: Snippet, root: Path) -> Path:
    return root / FOLDER / Path(snippet.name).with_suffix(".ipynb")


def _digest(notebook: dict) -> str:
    return digest(json.dumps(notebook, sort_keys=True).encode())


@functools.cache
def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "absent"


@functools.cache
def _builder() -> str:
    """Python's version and a digest of everything in this package: a change of the builder runs all snippets again."""
    files = sorted(
        path for path in Path(__file__).parent.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    )
    return digest("".join([platform.python_version(), *map(file_digest, files)]).encode())
