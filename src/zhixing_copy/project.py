"""Copy, check and update files in a project; .zhixing/ stores each file's original, to find and merge later changes."""

import difflib
import os
import subprocess
import tempfile
from pathlib import Path

from zhixing_copy.catalogue import CopyError, Entry, find, installed, read, write

ORIGINALS = ".zhixing"


def copy(entry: Entry, to: Path, force: bool) -> Path:
    """Write the entry's file to this folder or file, and store its original; return the file's path.

    Raises:
        CopyError: The file exists and is not an unchanged copy, and `force` is not set.
    """
    path = to / f"{entry.stem}.py" if to.is_dir() or not to.suffix else to
    text = write(entry, installed())
    if path.exists() and not force and _text(path) not in (text, _read_original(path)):
        raise CopyError(f"{path} exists and is not an unchanged copy; --force overwrites it")
    _save(path, text)
    return path


def check(path: Path) -> str:
    """Return how a copied file was changed and whether it is outdated; empty if neither.

    Raises:
        CopyError: The file cannot be read, or is not a copied file.
    """
    text = _text(path)
    header, intact = _header(path, text)
    original, findings = _read_original(path), []
    if original is not None and original != text:
        findings.append(f"changed by hand: {_places(original, text)}")
    elif not intact:
        findings.append(f"changed by hand; it is unknown where, because its original is not in {ORIGINALS}/")
    try:
        newest = write(find(header["name"], installed()), installed())
    except CopyError:
        return "; ".join([*findings, f"{header['name']} no longer exists"])
    newest, _ = read(newest)
    if newest["digest"] != header["digest"]:
        findings.append(f"newer version available: {newest['version']}, this is {header['version']}")
    return "; ".join(findings)


def update(path: Path) -> str:
    """Merge the newest version into the file; return what was done.

    Raises:
        CopyError: The file is not a copied file, its original is missing, or git is not installed.
        MergeConflict: Both sides changed the same lines, which are marked in the file.
    """
    text = _text(path)
    header, _ = _header(path, text)
    entry, original = find(header["name"], installed()), _read_original(path)
    newest = write(entry, installed())
    if original is None:
        raise CopyError(f"{path} cannot be merged: its original is not in {ORIGINALS}/")
    if newest == original:
        return "is the newest version" if text == original else "is the newest version, changed by hand"
    merged, conflicts = (newest, 0) if text == original else _merge(text, original, newest)
    _save(path, merged, newest)
    if conflicts:
        raise MergeConflict(f"{path} has {conflicts} conflict{'s' * (conflicts > 1)}, between <<<<<<< and >>>>>>>")
    return "updated" if text == original else "updated, with your changes"


class MergeConflict(Exception):
    """Both sides changed the same lines."""


def copied(path: Path) -> list[Path]:
    """Return the file itself, or all copied files in a folder.

    Raises:
        CopyError: The folder contains no copied file.
    """
    if not path.is_dir():
        return [path]
    found = [each for each in sorted(path.rglob("*.py")) if ORIGINALS not in each.parts and _is_copied(each)]
    if not found:
        raise CopyError(f"{path} contains no copied file")
    return found


def _is_copied(path: Path) -> bool:
    try:
        return bool(read(path.read_text(encoding="utf-8")))
    except (CopyError, OSError, UnicodeDecodeError):
        return False


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError:
        raise CopyError(f"{path} is not UTF-8 text") from None


def _header(path: Path, text: str) -> tuple[dict[str, str], bool]:
    try:
        return read(text)
    except CopyError as error:
        raise CopyError(f"{path} {error}") from None


def _places(before: str, after: str) -> str:
    """Describe the lines of `after` that differ from `before`."""
    matcher = difflib.SequenceMatcher(None, before.splitlines(), after.splitlines(), autojunk=False)
    places = []
    for kind, _, _, first, end in matcher.get_opcodes():
        if kind == "delete":
            places.append(f"lines removed before line {first + 1}")
        elif kind != "equal":
            places.append(f"line {first + 1}" if end == first + 1 else f"lines {first + 1} to {end}")
    return ", ".join(places) or "the end of the last line"


def _home(path: Path) -> Path:
    """Return the nearest folder above the file with a .zhixing/; else the working directory if the file is below it."""
    above = path.absolute().parent
    for folder in (above, *above.parents):
        if (folder / ORIGINALS).is_dir():
            return folder
    return Path.cwd() if above.is_relative_to(Path.cwd()) else above


def _original(path: Path) -> Path:
    home = _home(path)
    return home / ORIGINALS / path.absolute().relative_to(home)


def _read_original(path: Path) -> str | None:
    original = _original(path)
    return original.read_bytes().decode() if original.is_file() else None


def _save(path: Path, text: str, original: str = "") -> None:
    """Write the file and its original, each atomically."""
    for target, content in ((_original(path), original or text), (path, text)):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
            file.write(content.encode())
        if target.exists():
            os.chmod(file.name, target.stat().st_mode)
        else:
            os.chmod(file.name, 0o666 & ~_umask())
        os.replace(file.name, target)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _merge(ours: str, base: str, theirs: str) -> tuple[str, int]:
    """Merge three texts with git; return the result and its number of conflicts."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name in ("yours", "original", "newest")]
        for path, text in zip(paths, (ours, base, theirs), strict=True):
            path.write_bytes(text.encode())
        command = ["git", "merge-file", "--stdout", "-L", "yours", "-L", "original", "-L", "newest", *map(str, paths)]
        try:
            done = subprocess.run(command, capture_output=True, check=False)
        except FileNotFoundError:
            raise CopyError("update needs git, which is not installed") from None
    if not 0 <= done.returncode < 128:
        raise CopyError(f"git cannot merge it: {done.stderr.decode().strip()}")
    return done.stdout.decode(), done.returncode
