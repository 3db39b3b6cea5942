"""Write files: whole folders of them, and cache files that verify themselves by a digest before the content."""

import os
import tempfile
from pathlib import Path

from zhixing_copy.standalone import digest

Files = dict[str, str | bytes]  # {path below a folder: content}


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


def write_files(files: Files, folder: Path) -> None:
    """Write each file below the folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
