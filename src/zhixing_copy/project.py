"""Copy, check and update files in a project; .zhixing/ stores each file's original, to find and merge later changes."""

import difflib
import os
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from zhixing_copy.catalogue import Copied, CopyError, Entry, find, installed, read, write

ORIGINALS = ".zhixing"
LINE_END = re.compile(r"(\r\n|\r|\n)")  # as in Python's grammar; str.splitlines splits at more
SIGNATURE = re.compile(r"^# [\w./]+, from \S+ Zhixing ", re.MULTILINE)  # of headers, damaged ones too
CONFLICT = re.compile(r"^(<<<<<<<|>>>>>>>)(?= |$)", re.MULTILINE)


@dataclass(frozen=True)
class File:
    """A file in a project, in whichever form editors and git have left it."""

    path: Path
    content: bytes

    @cached_property
    def _decoded(self) -> str:
        return self.content.decode(errors="surrogateescape").removeprefix("\ufeff")

    @cached_property
    def text(self) -> str:
        """The text with the line ends that Python reads, also at its end, and without byte-order mark."""
        return f"{LINE_END.sub(chr(10), self._decoded).removesuffix(chr(10))}\n"

    @cached_property
    def copied(self) -> Copied | None:
        """The parts of the text; None if its header is missing or damaged."""
        return read(self.text)

    @property
    def intact(self) -> bool:
        return self.copied is not None and self.copied.intact

    @cached_property
    def original(self) -> Copied | None:
        """What was copied, as far as it is known."""
        for text in self._possible_originals():
            found = read(text)
            if found and found.intact and (not self.copied or found.digest == self.copied.digest):
                return found
        return None

    def _possible_originals(self) -> Iterator[str]:
        stored = _stored(self.path)
        if stored.is_file():
            yield _read(stored).text
        if not self.copied:
            return
        yield self.text
        with suppress(CopyError):  # an interrupted update may have left an older original
            yield write(find(self.copied.fields["name"], installed()), installed())
        # Perhaps the file was moved.
        yield from (
            _read(each).text for each in sorted(_home(self.path).glob(f"{ORIGINALS}/**/*.py")) if each.is_file()
        )

    @property
    def conflicts(self) -> str:
        """Which conflicts are marked in the text; empty if none."""
        marks = Counter(CONFLICT.findall(self.text))
        number = max(marks.values(), default=0)
        return f"{number} conflict{'s' * (number > 1)}, between <<<<<<< and >>>>>>>" if number else ""

    @property
    def fault(self) -> str:
        """Why Python and git cannot read the file; empty if they can."""
        for bad, fault in (r"[\udc80-\udcff]", "is not UTF-8 text"), ("\0", "contains a NUL byte"):
            if found := re.search(bad, self.text):
                return f"{fault}: line {self.text.count(chr(10), 0, found.start()) + 1}"
        return ""

    def formatted(self, text: str) -> bytes:
        """Encode a text in this file's form: a line keeps its end, one that is new gets the most frequent."""
        parts = LINE_END.split(self._decoded)
        ends, last = parts[1::2], parts[-1]
        usual = Counter(ends or ["\n"]).most_common(1)[0][0]
        new, new_ends = text.removesuffix("\n").split("\n"), []
        lines = difflib.SequenceMatcher(None, parts[:-1:2], new, autojunk=False)
        for _, start, stop, first, end in lines.get_opcodes():
            new_ends += [*ends[start:stop], *[usual] * (end - first)][: end - first]
        if last or not ends:
            new_ends[-1] = ""
        mark = "\ufeff" * self.content.startswith(b"\xef\xbb\xbf")
        return (mark + "".join(map("".join, zip(new, new_ends, strict=True)))).encode()


class MergeConflict(Exception):
    """Both sides changed the same lines."""


def copy(entry: Entry, to: str, force: bool) -> Path:
    """Write the entry's file to this folder or file, and store its original; return the file's path.

    Raises:
        CopyError: The file exists and is not an unchanged copy of the same entry, and `force` is not set; or it cannot
            be written.
    """
    path = Path(to)
    if path.is_dir() or not to.endswith(".py"):
        if path.exists() and not path.is_dir():
            raise CopyError(f"{to} is a file; --to takes a folder, or a file that ends in .py")
        path /= f"{entry.stem}.py"
    text = write(entry, installed())
    file = _read(path) if path.exists() else None
    if file and not force:
        if not file.intact:
            raise CopyError(f"{path} exists and is not an unchanged copy; --force overwrites it")
        if (name := file.copied.fields["name"]) != entry.name:
            raise CopyError(f"{path} is a copy of {name}; --to writes another file, --force overwrites it")
    content = file.formatted(text) if file and file.copied else text.encode()
    _save({path: content, _stored(path): text.encode()})
    return path


def check(path: Path) -> str:
    """Return how a copied file was changed and whether the installed code differs; empty if neither.

    Raises:
        CopyError: The file is not a copied file.
    """
    file = _read(path)
    copied, original, findings = _header(file), file.original, [file.fault] if file.fault else []
    if file.conflicts:
        findings.append(f"has {file.conflicts}")
    if not file.intact and original:
        findings.append(f"changed by hand: {_places(copied.header + original.code, file.text)}")
    elif not file.intact:
        findings.append(f"changed by hand; it is unknown where, because its original is not in {ORIGINALS}/ or damaged")
    name = copied.fields["name"]
    try:
        newest = read(write(find(name, installed()), installed()))
    except CopyError:
        return "; ".join([*findings, f"{name} no longer exists"])
    if newest.digest != copied.digest:
        versions = f"version {newest.fields['version']}, this is {copied.fields['version']}"
        findings.append(f"differs from the installed code: {versions}")
    return "; ".join(findings)


def update(path: Path) -> str:
    """Merge the newest version into the file; return what was done.

    Raises:
        CopyError: The file is not a copied file or cannot be read as one, its original is missing, or git is not
            installed.
        MergeConflict: Both sides changed the same lines, which are marked in the file, now or by an earlier update.
    """
    file = _read(path)
    copied, original = _header(file), file.original
    if file.conflicts:
        raise MergeConflict(f"{path} still has {file.conflicts}: edit these lines first")
    name = copied.fields["name"]
    try:
        text = write(find(name, installed()), installed())
    except CopyError as error:
        raise CopyError(f"{path}: {error}") from None
    if not original:
        raise CopyError(
            f"{path} cannot be merged: its original is not in {ORIGINALS}/ or damaged; "
            f"`zhixing copy {name} --to {path} --force` overwrites your changes"
        )
    newest = read(text)
    stored = _stored(path)
    if newest.digest == original.digest:
        if not stored.is_file() or read(_read(stored).text) != original:
            _save({stored: text.encode()})
        return "is the newest version" if file.intact else "is the newest version, changed by hand"
    if file.intact:
        _save({path: file.formatted(text), stored: text.encode()})
        return "updated"
    if file.fault:
        raise CopyError(f"{path} {file.fault}")
    # A header that was changed remains as it is; any other is replaced. Neither can conflict.
    header = newest.header if file.copied else original.header
    ours = file.copied.above + header + file.copied.code if file.copied else file.text
    merged, conflicts = _merge(ours, header + original.code, header + newest.code)
    _save({path: file.formatted(merged), stored: text.encode()})
    if conflicts:
        raise MergeConflict(f"{path} has {File(path, merged.encode()).conflicts}")
    return "updated, with your changes"


def copied(path: Path) -> list[Path]:
    """Return the file itself, or all copied files in a folder and the folders that links in it lead to."""
    if not path.is_dir():
        return [path]
    found, seen = [], set()

    def report(error: OSError) -> None:
        found.append(Path(error.filename))  # `check` will report it

    for folder, folders, names in os.walk(path, onerror=report, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted({*folders} - {ORIGINALS})
        files = (Path(folder, name) for name in sorted(names) if name.endswith(".py"))
        found += [file for file in files if _is_copied(file)]
    return found


def _is_copied(path: Path) -> bool:
    try:
        return path.is_file() and (bool(SIGNATURE.search(_read(path).text)) or _stored(path).is_file())
    except OSError:
        return True


def _read(path: Path) -> File:
    if path.exists() and not path.is_file():
        raise CopyError(f"{path} is not a file")
    return File(path, path.read_bytes())


def _header(file: File) -> Copied:
    if header := file.copied or file.original:
        return header
    raise CopyError(f"{file.path} has no header of a copied file, or a damaged one")


def _places(before: str, after: str) -> str:
    """Describe the lines of `after` that differ from `before`."""
    matcher = difflib.SequenceMatcher(None, before.split("\n"), after.split("\n"), autojunk=False)
    places = []
    for kind, _, _, first, end in matcher.get_opcodes():
        if kind == "delete":
            places.append(f"lines removed before line {first + 1}")
        elif kind != "equal":
            places.append(f"line {first + 1}" if end == first + 1 else f"lines {first + 1} to {end}")
    return ", ".join(places)


def _home(path: Path) -> Path:
    """Return the nearest folder above the file with a .zhixing/; else the working directory if the file is below it.

    Links are resolved, so that a file has the same original by whichever path it is reached.
    """
    above = Path(os.path.realpath(path)).parent
    for folder in (above, *above.parents):
        if (folder / ORIGINALS).is_dir():
            return folder
    return Path.cwd() if above.is_relative_to(Path.cwd()) else above


def _stored(path: Path) -> Path:
    home = _home(path)
    return home / ORIGINALS / Path(os.path.realpath(path)).relative_to(home)


def _save(contents: dict[Path, bytes]) -> None:
    """Write files in this order, each atomically, and none if one of them cannot be written."""
    written: dict[Path, Path] = {}
    try:
        for target, content in contents.items():
            written[target] = _write_beside(Path(os.path.realpath(target)), content)
        for target, temporary in written.items():
            os.replace(temporary, os.path.realpath(target))
    except OSError as error:
        raise CopyError(f"{target} cannot be written: {error.strerror}") from None
    finally:
        for temporary in written.values():
            temporary.unlink(missing_ok=True)


def _write_beside(target: Path, content: bytes) -> Path:
    """Write a temporary file that can replace the target; return its path."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        raise IsADirectoryError(0, "it is a folder")
    mode = target.stat().st_mode if target.exists() else 0o666 & ~_umask()
    if not mode & 0o222:
        raise PermissionError(0, "it is read-only")
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
        try:
            file.write(content)
            file.flush()
        except BaseException:
            os.unlink(file.name)
            raise
    os.chmod(file.name, mode)
    return Path(file.name)


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
        raise CopyError(f"git cannot merge it: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode(), done.returncode
