"""Keep the executed notebook of each snippet, and know when it no longer holds."""

import functools
import json
import os
import platform
import re
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from zhixing_copy.standalone import digest
from zhixing_site.execution.snippet import Snippet
from zhixing_site.project import file_digest

FOLDER = Path(".cache/runs")

# A notebook's last metadata is the digest of all that stands before.
SIGNED = re.compile(rb'(?P<whole>.*), "digest": "(?P<digest>\w+)"\}\}\}\n', re.DOTALL)


def load(snippet: Snippet, root: Path) -> dict | None:
    """The executed notebook, if it is whole and everything that the run depended on is as it was."""
    try:
        notebook = _parse(_path(snippet, root).read_bytes())
        return notebook if notebook and _is_valid(notebook["metadata"]["zhixing"], snippet, root) else None
    except (OSError, KeyError):
        return None  # absent, or of another version of the builder


@functools.cache
def _parse(content: bytes) -> dict | None:
    """The notebook; None where it is cut short or damaged, and the snippet runs again."""
    signed = SIGNED.fullmatch(content)
    if not signed or digest(signed["whole"]) != signed["digest"].decode():
        return None
    return json.loads(signed["whole"] + b"}}}")


def store(notebook: dict, snippet: Snippet, root: Path) -> None:
    """Add to the notebook what its run depended on, and write it aside, then into place."""
    record = notebook["metadata"]["zhixing"]
    record["distributions"] = {name: _version(name) for name in record["distributions"]}
    record["builder"] = _builder()
    ordered = {key: notebook[key] for key in ("cells", "nbformat", "nbformat_minor", "metadata")}
    whole = json.dumps(ordered).encode().removesuffix(b"}}}")
    path = _path(snippet, root)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-")
    with os.fdopen(descriptor, "wb") as file:
        file.write(whole + b', "digest": "%b"}}}\n' % digest(whole).encode())
    os.replace(aside, path)


def _is_valid(record: dict, snippet: Snippet, root: Path) -> bool:
    return (
        record["builder"] == _builder()
        and record["files"][snippet.path] == digest(snippet.content)
        and all(file_digest(root / path) == seen for path, seen in record["files"].items())
        and all(_version(name) == seen for name, seen in record["distributions"].items())
    )


def _path(snippet: Snippet, root: Path) -> Path:
    return root / FOLDER / Path(snippet.name).with_suffix(".ipynb")


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
    return digest("".join([platform.python_version(), *map(file_digest, files)]))
