"""Keep the source of each run: copy the working tree, then become the command, inside the copy.

On the command line, at the top of a git working tree or in a folder of it:

    python -m zhixing.engineering.source_backup -- python train.py --lr 0.1

Only the standard library and git are needed, on Linux or macOS. Not kept: what git ignores, empty
folders, owners, times, the installed packages. Files that are written during the copying may be
caught half-way, and a power failure may damage a copy that was just made; `restore` notices.
"""

import argparse
import contextlib
import errno
import hashlib
import itertools
import json
import os
import platform
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import NoReturn

# Larger files are left out, and named: they are data more often than source.
MAX_BYTES = 10_000_000

# Set for hooks, these would lead git to the repository of the hook.
OF_A_HOOK = {
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_WORK_TREE",
}


def source_files(
    root: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES
) -> tuple[list[str], dict[str, str]]:
    """Files that a run may use: those that git tracks, and those that it does not know yet.

    Changed files are as they are on the disk, deleted ones are absent. Submodules and clones inside
    the tree are searched by the same rules.

    Args:
        root: A working tree of git, or a folder of one. Nothing needs to be committed.
        max_bytes: Size of the largest file.

    Returns:
        The sorted names relative to `root`, and {what is left out: why}. What git ignores is not
        mentioned. A name that is not UTF-8 has surrogates, as in all of `os`.

    Raises:
        ValueError: `root` is not in a working tree, git refuses it, or `max_bytes` is negative.

    Examples:
        >>> import subprocess, tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as root:
        ...     _ = subprocess.run(["git", "init", "-q", root], check=True)
        ...     for name in "train.py", "model weights.py", "log.txt":
        ...         _ = Path(root, name).write_text("new")
        ...     _ = Path(root, ".gitignore").write_text("*.txt")
        ...     _ = Path(root, "data.bin").write_bytes(bytes(2000))
        ...     source_files(root, max_bytes=1000)
        (['.gitignore', 'model weights.py', 'train.py'], {'data.bin': '2000 bytes'})
    """
    if max_bytes < 0:
        raise ValueError(f"max_bytes must not be negative, but is {max_bytes}")
    try:
        listed = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    except ValueError as error:
        raise ValueError(
            f"{error}\nWithout a list of files there is no snapshot. If {os.fspath(root)!r} is not "
            "a git repository yet, `git init` is enough: nothing needs to be committed."
        ) from None
    kept, left_out = [], {}
    # A file in conflict is listed several times; a clone inside the tree ends with a slash.
    for name in {name.rstrip("/") for name in listed.split("\0")} - {""}:
        try:
            status = os.lstat(os.path.join(root, name))
        except (FileNotFoundError, NotADirectoryError):
            continue  # deleted
        if _outside(root, name):
            continue  # deleted: a link has taken the place of its folder
        if stat.S_ISDIR(status.st_mode):
            inner = os.path.join(root, name)
            # Without .git it is a submodule that is not there, or has taken the place of a file.
            if os.path.lexists(os.path.join(inner, ".git")):
                names, reasons = source_files(inner, max_bytes=max_bytes)
                kept += [f"{name}/{each}" for each in names]
                left_out |= {f"{name}/{each}": reason for each, reason in reasons.items()}
        elif not stat.S_ISREG(status.st_mode) and not stat.S_ISLNK(status.st_mode):
            left_out[name] = "neither a file nor a link"
        elif status.st_size > max_bytes:
            left_out[name] = f"{status.st_size} bytes"
        else:
            kept.append(name)
    return sorted(kept), dict(sorted(left_out.items()))


def snapshot(
    root: str | os.PathLike[str],
    runs: str | os.PathLike[str],
    *,
    argv: Sequence[str] = (),
    links: Iterable[str] = (),
    max_bytes: int = MAX_BYTES,
) -> Path:
    """Copy the source files into a new folder below `runs`, which appears there only when whole.

    The folder is named after the time (UTC). It holds `source`, the copy, and `run.json`: the
    command, the commit, the sha256 of each file, and what is left out. Links are copied as links.

    Args:
        root: A working tree of git, or a folder of one.
        runs: Made if it does not exist; may lie inside `root`, and is never copied itself.
        argv: The command, for the record.
        links: Names below `root`, such as a folder of data, that the copy shows as links to the
            original.
        max_bytes: Size of the largest file.

    Raises:
        ValueError: As `source_files`; also if `runs` is `root`, or a name in `links` is not below
            `root`, does not exist, or is copied already.
        OSError: A file cannot be read, or the copy cannot be written. What was written is removed.

    Examples:
        >>> import subprocess, tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as root:
        ...     _ = subprocess.run(["git", "init", "-q", root], check=True)
        ...     _ = Path(root, "train.py").write_text("lr = 0.1")
        ...     run = snapshot(root, Path(root, ".runs"), argv=["python", "train.py"])
        ...     _ = Path(root, "train.py").write_text("lr = 0.2")
        ...     (run / "source/train.py").read_text()
        'lr = 0.1'
    """
    root, runs = Path(os.path.realpath(root)), Path(os.path.realpath(runs))
    if runs == root:
        raise ValueError(f"runs must not be the folder that is copied, but both are {root}")
    runs.mkdir(parents=True, exist_ok=True)
    below = f"{runs.relative_to(root)}/" if runs.is_relative_to(root) else None
    if below and not any(runs.iterdir()):  # ours alone: `git status` need not show it
        (runs / ".gitignore").write_text("*\n")
    names, left_out = source_files(root, max_bytes=max_bytes)
    if below:
        found = {*names, *left_out}
        names = [name for name in names if not name.startswith(below)]
        left_out = {name: why for name, why in left_out.items() if not name.startswith(below)}
        if len(found) > len(names) + len(left_out):
            left_out[below] = "the folder of runs"
    staged = runs / f".partial-{secrets.token_hex(8)}"
    # Not open to more people than the original.
    staged.mkdir(stat.S_IMODE(root.stat().st_mode) & 0o777 | 0o700)
    try:
        copy, files = staged / "source", {}
        copy.mkdir()
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # deleted since it was listed
                files[name] = _copy(root / name, copy / name)
        linked = {name: _link(root, name, copy) for name in map(os.path.normpath, links)}
        record = {
            "argv": list(argv),
            "cwd": os.getcwd(),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "host": platform.node(),
            "python": [sys.executable, sys.version],
            "root": str(root),
            "commit": _commit(root),
            "files": files,
            "left_out": left_out,
            "links": linked,
        }
        (staged / "run.json").write_text(json.dumps(record, indent=1) + "\n", encoding="ascii")
        return _publish(staged, runs)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise


def restore(run: str | os.PathLike[str], target: str | os.PathLike[str]) -> Path:
    """Write the files of a snapshot into a new folder, and check each against its sha256.

    Files that the run itself wrote into its copy are not part of the snapshot, nor are `links`.

    Returns:
        `target`, which appears only when all of it is there and right.

    Raises:
        ValueError: The snapshot is not whole, a file in it has changed, a name in its record leads
            out of the folder, or `target` exists.

    Examples:
        >>> import hashlib, json, tempfile
        >>> from pathlib import Path
        >>> digest = hashlib.sha256(b"lr = 0.1").hexdigest()
        >>> files = {"train.py": {"sha256": digest, "bytes": 8, "executable": False}}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = Path(folder, "run")  # as `snapshot` makes it
        ...     (run / "source").mkdir(parents=True)
        ...     _ = (run / "source/train.py").write_text("lr = 0.1")
        ...     _ = (run / "run.json").write_text(json.dumps({"files": files}))
        ...     restore(run, Path(folder, "again")).joinpath("train.py").read_text()
        'lr = 0.1'
    """
    run, target = Path(run), Path(os.path.abspath(target))
    try:
        files = json.loads((run / "run.json").read_text(encoding="ascii"))["files"]
    except (FileNotFoundError, KeyError, ValueError) as error:
        raise ValueError(f"{run} is no whole snapshot: its run.json gives {error!r}") from error
    if os.path.lexists(target):
        raise ValueError(f"{target} exists already")
    staged = target.parent / f".partial-{secrets.token_hex(8)}"
    staged.mkdir(stat.S_IMODE(run.stat().st_mode) & 0o777 | 0o700, parents=True)
    try:
        for name in files:
            if _outside(staged, name):
                raise ValueError(f"{run}: the name {name!r} leads out of the folder")
            try:
                found = _copy(run / "source" / name, staged / name)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                found = None
            if found != files[name]:
                raise ValueError(f"{run}: {name!r} was {files[name]}, but is {found}")
        os.rename(staged, target)
        return target
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise


def git_snapshot(root: str | os.PathLike[str], name: str, *, max_bytes: int = MAX_BYTES) -> str:
    """Store the same files as `snapshot` in git itself, as a commit that is on no branch.

    HEAD, the index, the stash and the working tree stay as they are; the commit's parent is HEAD.
    Equal files are stored once. The bytes are those on the disk: no filter and no conversion of
    line ends is applied. `git show refs/runs/NAME:file` prints a file.

    Args:
        root: The top of a working tree of git.
        name: The commit is kept as `refs/runs/<name>`, which must not exist.
        max_bytes: Size of the largest file.

    Returns:
        The commit's hash.

    Raises:
        ValueError: As `source_files`; also if `root` is not the top, the name is not allowed or is
            taken, or git cannot write. Then the name is not made.

    Examples:
        >>> import subprocess, tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as root:
        ...     git = ["git", "-C", root]
        ...     _ = subprocess.run([*git, "init", "-q"], check=True)
        ...     _ = Path(root, "train.py").write_text("lr = 0.1")
        ...     commit = git_snapshot(root, "first")
        ...     subprocess.check_output([*git, "show", f"{commit}:train.py"])
        b'lr = 0.1'
    """
    names, _ = source_files(root, max_bytes=max_bytes)
    if prefix := _git(root, "rev-parse", "--show-prefix").rstrip("\n"):
        raise ValueError(f"root must be the top of the working tree, but is its folder {prefix!r}")
    reference = f"refs/runs/{name}"
    _git(root, "check-ref-format", reference)
    if _git(root, "for-each-ref", reference):
        raise ValueError(f"{reference} exists already")
    # --done: a stream that ends early, because this process was killed, makes no commit.
    process = subprocess.Popen(
        ["git", "-C", root, "fast-import", "--done", "--quiet", "--date-format=now"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=_environment(),
    )
    with process:
        try:
            process.stdin.writelines(_stream(Path(root), names, reference))
            process.stdin.close()
        except BrokenPipeError:  # git has failed, and says why
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        except BaseException:
            process.kill()
            raise
        said = os.fsdecode(process.stderr.read()).strip()
    if process.returncode:
        raise ValueError(f"git fast-import made no commit ({process.returncode}): {said}")
    return _git(root, "rev-parse", "--verify", reference).strip()


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Take a snapshot, then become the command after `--`, in the same folder of the copy.

    The process is replaced: its number, input, output, signals and exit code are the command's. The
    variable SOURCE_BACKUP_RUN names the folder of the run. PYTHONPATH is led to the copy; relative
    programs that are only in the original, such as `.venv/bin/python`, are found there. Our own
    messages go to the error output.

    Args:
        arguments: Those of the process if None. `--root` is the top of the working tree unless
            given, `--runs` is `.runs` in it, `--link` may be repeated; then `--` and the command.

    Raises:
        SystemExit: With code 125 if no snapshot could be made; the command was not started. With
            127 if its program was not found, 126 if it could not be run.

    Examples:
        >>> import multiprocessing, os, subprocess, tempfile
        >>> def job(root):
        ...     os.chdir(root)
        ...     os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # our messages
        ...     main(["--", "sh", "-c", "test -e train.py && exit 3"])
        >>> with tempfile.TemporaryDirectory() as root:
        ...     _ = subprocess.run(["git", "init", "-q", root], check=True)
        ...     open(os.path.join(root, "train.py"), "x").close()
        ...     process = multiprocessing.get_context("fork").Process(target=job, args=[root])
        ...     process.start()
        ...     process.join()
        >>> process.exitcode
        3
    """
    given = [*(sys.argv[1:] if arguments is None else arguments)]
    end = given.index("--") if "--" in given else len(given)
    options, command = given[:end], given[end + 1 :]
    parser = argparse.ArgumentParser(
        prog="source_backup",
        usage="%(prog)s [options] -- command [argument ...]",
        description="Copy the source, then run the command in the copy.",
    )
    parser.add_argument("--root", help="what is copied (default: the top of the working tree)")
    parser.add_argument("--runs", help="where snapshots are kept (default: .runs in the root)")
    parser.add_argument(
        "--link", action="append", default=[], metavar="NAME", help="show this in the copy as well"
    )
    parser.add_argument("--max-bytes", type=int, default=MAX_BYTES, help="of a file (%(default)s)")
    try:
        asked = parser.parse_args(options)
        if not command:
            parser.error("after --, give the command to run")
    except SystemExit as error:
        sys.exit(125 if error.code else 0)
    try:
        root = asked.root or _git(".", "rev-parse", "--show-toplevel").removesuffix("\n")
        root, here = Path(os.path.realpath(root)), Path(os.path.realpath("."))
        if not here.is_relative_to(root):
            raise ValueError(f"start it in {root} or in a folder of it, not in {here}")
        runs = Path(os.path.realpath(asked.runs or root / ".runs"))
        if here.is_relative_to(runs):
            raise ValueError(f"{here} belongs to a run already: leave source_backup out")
        links = asked.link
        run = snapshot(root, runs, argv=command, links=links, max_bytes=asked.max_bytes)
        record = json.loads((run / "run.json").read_text(encoding="ascii"))
        copy = run / "source"
        folder = copy / here.relative_to(root)
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
    except (OSError, ValueError) as error:
        _say(f"the command was not started: {error}")
        sys.exit(125)
    size = sum(file.get("bytes", 0) for file in record["files"].values())
    _say(f"{len(record['files'])} files ({size / 1e6:.1f} MB) copied to {run}")
    for name, why in itertools.islice(record["left_out"].items(), 5):
        _say(f"left out: {name!r} ({why})")
    if (more := len(record["left_out"]) - 5) > 0:
        _say(f"left out: {more} more, named in run.json")
    for argument in command:
        if _moved(argument, root, copy) != argument:
            _say(f"warning: {argument!r} is in the original; a relative name would be in the copy")
    environment = os.environ | {"PWD": str(folder), "SOURCE_BACKUP_RUN": str(run)}
    if "PYTHONPATH" in environment:
        paths = environment["PYTHONPATH"].split(os.pathsep)
        environment["PYTHONPATH"] = os.pathsep.join(_moved(path, root, copy) for path in paths)
    if "/" in command[0] and not os.path.lexists(command[0]):
        command[0] = os.path.join(here, command[0])
    # Python ignores these, and exec would hand that down: `| head` would not end the command.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvpe(command[0], command, environment)
    except OSError as error:
        _say(f"{command[0]}: {error.strerror}")
        sys.exit(127 if isinstance(error, FileNotFoundError) else 126)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in OF_A_HOOK}


def _git(folder: str | os.PathLike[str], *arguments: str) -> str:
    """What git prints; its warnings become ours, its failure a ValueError."""
    done = subprocess.run(
        ["git", "-C", folder, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=_environment(),
        check=False,
    )
    said = os.fsdecode(done.stderr).strip()
    if done.returncode:
        raise ValueError(f"git {arguments[0]} failed in {os.fspath(folder)!r}: {said}")
    if said:
        warnings.warn(said, stacklevel=2)
    return os.fsdecode(done.stdout)


def _commit(root: str | os.PathLike[str]) -> str | None:
    """The hash of HEAD; None before the first commit."""
    try:
        return _git(root, "rev-parse", "--verify", "--quiet", "HEAD").strip()
    except ValueError:
        return None


def _outside(folder: str | os.PathLike[str], name: str) -> bool:
    """Whether the name leads out of the folder: upwards, from the root, or through a link."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        return True
    folders = itertools.accumulate(path.parts[:-1], os.path.join)
    return any(os.path.islink(os.path.join(folder, each)) for each in folders)


def _copy(source: Path, target: Path) -> dict[str, str | int | bool]:
    """Copy a file or a link, and return what is recorded of it."""
    mode = os.lstat(source).st_mode
    if stat.S_ISLNK(mode):
        to = os.readlink(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(to, target)
        return {"link": to}
    digest, size = hashlib.sha256(), 0
    with open(source, "rb") as file:
        target.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with open(os.open(target, flags, mode & 0o777), "wb") as other:
            while block := file.read(2**20):
                digest.update(block)
                size += other.write(block)
    return {"sha256": digest.hexdigest(), "bytes": size, "executable": bool(mode & 0o100)}


def _link(root: Path, name: str, copy: Path) -> str:
    """Show root/name in the copy, as a link."""
    if _outside(copy, name):
        raise ValueError(f"a link must lie below {root}, but {name!r} does not")
    if not os.path.lexists(root / name):
        raise ValueError(f"there is no {name!r} in {root} to link to")
    if os.path.lexists(copy / name):
        raise ValueError(f"{name!r} is copied, at least in part, and cannot be a link as well")
    (copy / name).parent.mkdir(parents=True, exist_ok=True)
    os.symlink(root / name, copy / name)
    return str(root / name)


def _publish(staged: Path, runs: Path) -> Path:
    """Give the folder its final name in one step; of two in one second, one gets a number."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    for number in itertools.count(1):
        final = runs / (stamp if number == 1 else f"{stamp}-{number}")
        try:
            os.rename(staged, final)
            break
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    return final


def _stream(root: Path, names: list[str], reference: str) -> Iterator[bytes]:
    """The commit, in the language of `git fast-import`."""
    yield b"commit %s\n" % os.fsencode(reference)
    yield b"committer source_backup <source_backup@localhost> now\n" + _data(b"snapshot")
    if commit := _commit(root):
        yield b"from %s\ndeleteall\n" % commit.encode()
    for name in names:
        path = root / name
        try:
            mode = os.lstat(path).st_mode
            is_link = stat.S_ISLNK(mode)
            content = os.fsencode(os.readlink(path)) if is_link else path.read_bytes()
        except FileNotFoundError:
            continue  # deleted since it was listed
        kind = b"120000" if is_link else b"100755" if mode & 0o100 else b"100644"
        quoted = os.fsencode(name).replace(b"\\", b"\\\\").replace(b'"', b'\\"')
        yield b'M %s inline "%s"\n' % (kind, quoted.replace(b"\n", b"\\n")) + _data(content)
    yield b"done\n"


def _data(content: bytes) -> bytes:
    return b"data %d\n%s\n" % (len(content), content)


def _moved(path: str, root: Path, copy: Path) -> str:
    """The absolute path of something that is copied becomes that of the copy; others stay."""
    if os.path.isabs(path):
        real = Path(os.path.realpath(path))
        if real.is_relative_to(root) and os.path.lexists(moved := copy / real.relative_to(root)):
            return str(moved)
    return path


def _say(text: str) -> None:
    if sys.stderr is not None:  # closed; None would print to the command's output
        with contextlib.suppress(OSError):
            print("source_backup:", text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
