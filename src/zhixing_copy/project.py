"""What a project has copied: each file's original is kept in .zhixing/, to tell and to merge what was changed since."""

import difflib
import os
import subprocess
import tempfile
from pathlib import Path

from zhixing_copy.catalogue import Entry, Refusal, find, installed, read, write

KEPT = ".zhixing"


def copy(entry: Entry, to: Path, force: bool) -> Path:
    """Write the entry's file to this folder or file, and keep its original; returns where it is.

    Raises:
        Refusal: A file is in the way that is not an unchanged copy, and `force` is not set.
    """
    path = to / f"{entry.stem}.py" if to.is_dir() or not to.suffix else to
    text = write(entry, installed())
    if path.exists() and not force and _text(path) not in (text, _kept(path)):
        raise Refusal(f"{path} is in the way, and is no unchanged copy; --force overwrites it")
    _save(path, text)
    return path


def check(path: Path) -> str:
    """What has become of a copied file; nothing if it is as it was and there is no newer one.

    Raises:
        Refusal: It cannot be read, or was not copied.
    """
    text = _text(path)
    header, intact = _header(path, text)
    kept, said = _kept(path), []
    if kept is not None and kept != text:
        said.append(f"changed by hand: {_places(kept, text)}")
    elif not intact:
        said.append(f"changed by hand; where is not known, its original is not in {KEPT}/")
    try:
        newest = write(find(header["name"], installed()), installed())
    except Refusal:
        return "; ".join([*said, f"{header['name']} is no longer there"])
    newest, _ = read(newest)
    if newest["digest"] != header["digest"]:
        said.append(f"newer version available: {newest['version']}, this is {header['version']}")
    return "; ".join(said)


def update(path: Path) -> str:
    """Merge the newest version into the file; returns what was done.

    Raises:
        Refusal: It was not copied, its original is not kept, or git is not there.
        Conflict: Both sides changed the same lines, which are marked in the file.
    """
    text = _text(path)
    header, _ = _header(path, text)
    entry, kept = find(header["name"], installed()), _kept(path)
    newest = write(entry, installed())
    if kept is None:
        raise Refusal(f"{path} cannot be merged, its original is not in {KEPT}/")
    if newest == kept:
        return "is the newest version" if text == kept else "is the newest version, changed by hand"
    merged, conflicts = (newest, 0) if text == kept else _merge(text, kept, newest)
    _save(path, merged, newest)
    if conflicts:
        raise Conflict(f"{path} has {conflicts} conflict{'s' * (conflicts > 1)}, between <<<<<<< and >>>>>>>")
    return "updated" if text == kept else "updated, with your changes"


class Conflict(Exception):
    """Both sides changed the same lines."""


def copied(path: Path) -> list[Path]:
    """The file itself, or all copied files in a folder.

    Raises:
        Refusal: There is nothing there.
    """
    if not path.is_dir():
        return [path]
    found = [each for each in sorted(path.rglob("*.py")) if KEPT not in each.parts and _is_copied(each)]
    if not found:
        raise Refusal(f"{path} holds no copied file")
    return found


def _is_copied(path: Path) -> bool:
    try:
        return bool(read(path.read_text(encoding="utf-8")))
    except (Refusal, OSError, UnicodeDecodeError):
        return False


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError:
        raise Refusal(f"{path} is no text in UTF-8") from None


def _header(path: Path, text: str) -> tuple[dict[str, str], bool]:
    try:
        return read(text)
    except Refusal as refusal:
        raise Refusal(f"{path} {refusal}") from None


def _places(before: str, after: str) -> str:
    """The lines of `after` that differ."""
    matcher = difflib.SequenceMatcher(None, before.splitlines(), after.splitlines(), autojunk=False)
    places = []
    for kind, _, _, first, end in matcher.get_opcodes():
        if kind == "delete":
            places.append(f"something is gone before line {first + 1}")
        elif kind != "equal":
            places.append(f"line {first + 1}" if end == first + 1 else f"lines {first + 1} to {end}")
    return ", ".join(places) or "the end of the last line"


def _home(path: Path) -> Path:
    """The folder that holds .zhixing/: the nearest one above the file, else where we are, if the file is below."""
    above = path.absolute().parent
    for folder in (above, *above.parents):
        if (folder / KEPT).is_dir():
            return folder
    return Path.cwd() if above.is_relative_to(Path.cwd()) else above


def _original(path: Path) -> Path:
    home = _home(path)
    return home / KEPT / path.absolute().relative_to(home)


def _kept(path: Path) -> str | None:
    original = _original(path)
    return original.read_bytes().decode() if original.is_file() else None


def _save(path: Path, text: str, original: str = "") -> None:
    """Write the file and its original, each whole or not at all."""
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
    """git's merge of three texts, and how many conflicts it left."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name in ("yours", "original", "newest")]
        for path, text in zip(paths, (ours, base, theirs), strict=True):
            path.write_bytes(text.encode())
        command = ["git", "merge-file", "--stdout", "-L", "yours", "-L", "original", "-L", "newest", *map(str, paths)]
        try:
            done = subprocess.run(command, capture_output=True, check=False)
        except FileNotFoundError:
            raise Refusal("update needs git, which is not there") from None
    if not 0 <= done.returncode < 128:
        raise Refusal(f"git cannot merge it: {done.stderr.decode().strip()}")
    return done.stdout.decode(), done.returncode
