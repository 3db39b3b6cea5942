"""Cache files that verify themselves: a digest of the content, then the content."""

import os
import tempfile
from pathlib import Path

from zhixing_copy.standalone import digest


def load(path: Path) -> bytes | None:
    """The content; None if there is no such file, or if it is cut short or damaged."""
    try:
        seal, _, content = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    return content if seal == digest(content).encode() else None


def save(path: Path, content: bytes) -> None:
    """Write to a temporary file and rename it, so that two builds at once do not harm each other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.stem}-", delete=False) as file:
        file.write(digest(content).encode() + b"\n" + content)
    os.replace(file.name, path)
