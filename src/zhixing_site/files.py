"""Find and read the files that people write, as editors and systems leave them."""

import ast
import os
import re
import unicodedata
from functools import cache
from pathlib import Path

from zhixing_site.errors import BuildError, BuildErrors

# Names of what editors and systems leave beside a file: locks, copies, notes.
LEFTOVER = re.compile(r"\..*|.*~|#.*#|.*\.(bak|orig|rej|swp|tmp)|thumbs\.db|desktop\.ini", re.IGNORECASE | re.DOTALL)
# Characters that no editor shows: they come from another encoding, or from files that were joined.
UNSEEN = re.compile("[\0-\x08\x0b-\x0c\x0e-\x1f\x7f-\x9f\ufeff\ufffe\uffff]")

_parse = cache(ast.parse)  # by the text: a file is read for several pages


def find_files(folder: Path, root: Path) -> list[Path]:
    """The files below the folder, and links that lead nowhere, but no leftovers.

    Raises BuildErrors for names that other systems cannot hold, and for folders that cannot be read.
    """
    found, errors = [], []
    walk = os.walk(folder, onerror=lambda error: errors.append(_unreadable(error, root)))
    for place, folders, names in walk if folder.exists() else ():
        here = Path(place)
        folders[:] = sorted(name for name in folders if not LEFTOVER.fullmatch(name))
        names = sorted(name for name in names if not LEFTOVER.fullmatch(name))
        links = [here / name for name in folders if (here / name).is_symlink()]
        errors += [BuildError("a link to a folder, which is not followed", _name(link, root)) for link in links]
        errors += _wrong_names([*folders, *names], here, root)
        found += [here / name for name in names]
    if errors:
        raise BuildErrors(errors)
    return sorted(found)


def _wrong_names(names: list[str], folder: Path, root: Path) -> list[BuildError]:
    """An error for each name that is not the same on all systems, or the same as another one on some."""
    errors, seen = [], {}
    for name in names:
        path = _name(folder / name, root)
        if not name.isprintable() or not unicodedata.is_normalized("NFC", name):
            errors.append(BuildError(f"the name {name!a} differs between systems; rename it", path))
        elif (other := seen.setdefault(name.casefold(), name)) != name:
            errors.append(BuildError(f"on systems that ignore case, {other} has the same name; rename one", path))
    return errors


def read_text(path: Path, root: Path) -> str:
    r"""The text of a file in UTF-8, without a byte-order mark, with \n at the end of lines; raises BuildError."""
    return decode(read_bytes(path, root), _name(path, root))


def read_bytes(path: Path, root: Path) -> bytes:
    """The content of a file; raises BuildError."""
    if path.exists() and not path.is_file():
        raise BuildError("is not a file", _name(path, root))
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(error, root) from error


def decode(content: bytes, path: str) -> str:
    """The text of a file with this content, as `read_text` returns it; raises BuildError."""
    try:
        text = re.sub("\r\n?", "\n", content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BuildError(f"the file is not UTF-8 ({error.reason}); save it in UTF-8", path, line) from error
    if unseen := UNSEEN.search(text):
        cause = f"contains U+{ord(unseen[0]):04X}, which no editor shows; remove it, or save the file in UTF-8"
        raise BuildError(cause, path, text.count("\n", 0, unseen.start()) + 1)
    return text


def parse(path: Path, root: Path) -> ast.Module:
    """The syntax tree of a Python file; raises BuildError."""
    try:
        return _parse(read_text(path, root))
    except SyntaxError as error:
        raise BuildError(f"{type(error).__name__}: {error.msg}", _name(path, root), error.lineno or 1) from error


def _unreadable(error: OSError, root: Path) -> BuildError:
    path = Path(error.filename)
    cause = (
        f"the link to {os.readlink(path)!r}" if path.is_symlink() else f"the {'folder' if path.is_dir() else 'file'}"
    )
    return BuildError(f"{cause} cannot be read: {error.strerror}", _name(path, root))


def _name(path: Path, root: Path) -> str:
    """The path below the root, on one line, for messages."""
    name = path.relative_to(root).as_posix()
    return name if name.isprintable() else ascii(name)[1:-1]
