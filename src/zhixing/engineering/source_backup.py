"""Keep the source of each run: copy the working tree, then become the command, inside the copy.

On the command line, at the top of a git working tree or in a folder of it:

    python -m zhixing.engineering.source_backup -- python train.py --lr 0.1

Needed are Python 3.11, git, and Linux or macOS. Not kept: what git ignores, empty folders, owners,
times, the installed packages.

What changes during the copying is recorded, and `restore` warns of it. Nothing notices a file that
was half-written before the copying began and is completed after its end, nor a second write within
one tick of the file system's clock. A power failure may damage a new copy; `restore` notices.
"""

import os
import sys


def _fail(kind, error, trace) -> None:
    """Where Python would exit with 1, like a training that fails."""
    sys.__excepthook__(kind, error, trace)
    if issubclass(kind, Exception):
        os._exit(125)


if __name__ == "__main__":
    sys.excepthook = _fail
    if not sys.flags.safe_path:  # The folder of the project: its json.py is not ours to import.
        del sys.path[0]

# ruff: noqa: E402
import argparse
import contextlib
import errno
import hashlib
import itertools
import json
import shutil
import signal
import stat
import subprocess
import warnings
from collections.abc import Container, Iterable, Iterator, Sequence
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
        mentioned. If git warns, of a folder that it cannot read, "." is left out. A name that is
        not UTF-8 has surrogates, as in all of `os`.

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
    said = []
    try:
        listed = _git(
            root, "ls-files", "-z", "--cached", "--others", "--exclude-standard", said=said
        )
    except ValueError as error:
        raise ValueError(
            f"{error}\nWithout a list of files there is no snapshot. If {os.fspath(root)!r} is not "
            "a git repository yet, `git init` is enough: nothing needs to be committed."
        ) from None
    kept, left_out = [], {}
    if said:
        left_out["."] = f"git: {said[0]}"
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
    command, the commit, the sha256 of each file, what is left out, and what changed during the
    copying. Links are copied as links. No folder or file is open to more people than the original.

    Args:
        root: A working tree of git, or a folder of one.
        runs: Made if it does not exist, for its owner alone; may lie inside `root`, and is never
            copied itself.
        argv: The command, for the record.
        links: Names below `root`, such as a folder of data, that the copy shows as links to the
            original. Files there are not copied.
        max_bytes: Size of the largest file.

    Raises:
        ValueError: As `source_files`; also if `runs` is `root`, or a name in `links` is not below
            `root`, does not exist, or is part of another.
        OSError: A file cannot be read, or the copy cannot be written, or somebody removes files
            from it. What was written is removed.

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
    runs.mkdir(0o700, parents=True, exist_ok=True)
    links = [os.path.normpath(name) for name in links]
    hidden = dict.fromkeys(links, "linked")
    if runs.is_relative_to(root):
        hidden[str(runs.relative_to(root))] = "the folder of runs"
    before, left_out = _listed(root, hidden, max_bytes)
    staged = runs / f".partial-{os.urandom(8).hex()}"
    staged.mkdir(root.stat().st_mode & 0o777 | 0o700)
    try:
        (staged / ".gitignore").write_text("*\n")  # no copy is source itself
        copy, files = staged / "source", {}
        copy.mkdir()
        for name in before:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                files[name] = _copy(root, copy, name)
        linked = {name: _link(root, copy, name) for name in links}
        record = {
            "argv": list(argv),
            "cwd": os.getcwd(),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "host": os.uname().nodename,
            "python": [sys.executable, sys.version],
            "root": str(root),
            "commit": _commit(root),
            "files": files,
            "left_out": left_out,
            "links": linked,
            "changed": _changed(before, files, _listed(root, hidden, max_bytes)[0]),
        }
        (staged / "run.json").write_text(json.dumps(record, indent=1) + "\n", encoding="ascii")
        _all_there(copy, files)
        return _publish(staged, runs)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise


def restore(run: str | os.PathLike[str], target: str | os.PathLike[str]) -> Path:
    """Write the files of a snapshot into a new folder, and check each against its sha256.

    Files that the run itself wrote into its copy are not part of the snapshot, nor are `links`.

    Returns:
        `target`, which appears only when all of it is there and right.

    Warns:
        UserWarning: Files changed, appeared or were gone during the copying, or git could not list
            all; the warning names them.

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
        record = json.loads((run / "run.json").read_text(encoding="ascii"))
        files = record["files"]
    except (FileNotFoundError, KeyError, ValueError) as error:
        raise ValueError(f"{run} is no whole snapshot: its run.json gives {error!r}") from error
    if os.path.lexists(target):
        raise ValueError(f"{target} exists already")
    staged = target.parent / f".partial-{os.urandom(8).hex()}"
    staged.mkdir(stat.S_IMODE(run.stat().st_mode) & 0o777 | 0o700, parents=True)
    try:
        for name in files:
            if _outside(staged, name):
                raise ValueError(f"{run}: the name {name!r} leads out of the folder")
            try:
                found = _copy(run / "source", staged, name)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                found = None
            if found != files[name]:
                raise ValueError(f"{run}: {name!r} was {files[name]}, but is {found}")
        _all_there(staged, files)
        os.rename(staged, target)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    left_out = record.get("left_out", {})
    unsure = {name: why for name, why in left_out.items() if why.startswith("git: ")}
    unsure |= record.get("changed", {})
    if unsure:
        warnings.warn(f"{run} may lack something, or mix two states: {unsure}", stacklevel=2)
    return target


def git_snapshot(root: str | os.PathLike[str], name: str, *, max_bytes: int = MAX_BYTES) -> str:
    """Store the same files as `snapshot` in git itself, as a commit that is on no branch.

    HEAD, the index, the stash and the working tree stay as they are; the commit's parent is HEAD.
    Equal files are stored once. The bytes are those on the disk: no filter and no conversion of
    line ends is applied. `git show refs/runs/NAME:file` prints a file, `git show -s refs/runs/NAME`
    what was left out and what changed meanwhile. Snapshots are never part of it.

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
    listed = _listed(Path(root), {}, max_bytes)
    if prefix := _git(root, "rev-parse", "--show-prefix").rstrip("\n"):
        raise ValueError(f"root must be the top of the working tree, but is its folder {prefix!r}")
    reference = f"refs/runs/{name}"
    _git(root, "check-ref-format", reference)
    if _git(root, "for-each-ref", reference):
        raise ValueError(f"{reference} exists already")
    # Without the limit, files that git has already, but not in a pack, are stored again.
    command = ["git", "-C", root, "-c", f"fastimport.unpackLimit={2**31 - 1}", "fast-import"]
    # --done: a stream that ends early, because this process was killed, makes no commit.
    process = subprocess.Popen(
        [*command, "--done", "--quiet", "--date-format=now"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=_environment(),
    )
    with process:
        try:
            process.stdin.writelines(_stream(Path(root), reference, max_bytes, *listed))
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
        KeyboardInterrupt: During the copying. The command was not started.
        SystemExit: With code 125 if no snapshot could be made, whatever the reason; the command was
            not started. With 127 if its program was not found, 126 if it could not be run. What
            fails before the call ends with Python's own code: in the module, only the search for
            it; in a copied file, also its imports, if the project has a json.py, say.

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
        _folders(root, copy, str(here.relative_to(root) / "file"))
        os.chdir(folder)
        size = sum(file.get("bytes", 0) for file in record["files"].values())
        _say(f"{len(record['files'])} files ({size / 1e6:.1f} MB) copied to {run}")
        _say_some("left out", [f"{name!r} ({why})" for name, why in record["left_out"].items()])
        changed = [f"{name!r} {why}" for name, why in record["changed"].items()]
        _say_some("warning: not of one moment", changed)
        _say_some("warning", [*_leading_away(root, copy, record["files"])])
        for argument in command:
            for path in (argument, argument.partition("=")[2]):
                if _moved(path, root, copy) != path:
                    _say(f"warning: {path!r} is in the original; a relative name is in the copy")
        environment = os.environ | {"PWD": str(folder), "SOURCE_BACKUP_RUN": str(run)}
        if "PYTHONPATH" in environment:
            paths = environment["PYTHONPATH"].split(os.pathsep)
            environment["PYTHONPATH"] = os.pathsep.join(_moved(path, root, copy) for path in paths)
        if "/" in command[0] and not os.path.lexists(command[0]):
            command[0] = os.path.join(here, command[0])
    except Exception as error:
        expected = isinstance(error, OSError | ValueError)
        _say(f"the command was not started: {error if expected else repr(error)}")
        sys.exit(125)
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


def _git(folder: str | os.PathLike[str], *arguments: str, said: list[str] | None = None) -> str:
    """What git prints. Its warnings are added to `said`, its failure is a ValueError."""
    done = subprocess.run(
        ["git", "-C", folder, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=_environment(),
        check=False,
    )
    errors = os.fsdecode(done.stderr).strip()
    if done.returncode:
        raise ValueError(f"git {arguments[0]} failed in {os.fspath(folder)!r}: {errors}")
    if errors and said is not None:
        said.append(errors)
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


def _listed(
    root: Path, hidden: dict[str, str], max_bytes: int
) -> tuple[dict[str, tuple[int, ...] | None], dict[str, str]]:
    """The source files, each with what a write to it changes, and what is left out."""
    names, left_out = source_files(root, max_bytes=max_bytes)
    for folder, why in hidden.items():
        below = {name for name in [*names, *left_out] if f"{name}/".startswith(f"{folder}/")}
        names = [name for name in names if name not in below]
        left_out = {name: why for name, why in left_out.items() if name not in below}
        if below:
            left_out[folder] = why
    state = dict.fromkeys(names)
    for name in names:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            status = os.lstat(root / name)
            state[name] = status.st_size, status.st_mode, status.st_mtime_ns, status.st_ctime_ns
    return state, left_out


def _changed(before: dict[str, object], copied: Container[str], after: dict[str, object]):
    """{name: why}: the copy of these may be of another moment than the rest, or is missing."""
    changed = {}
    for name in sorted({*before, *after}):
        if name not in before:
            changed[name] = "appeared during the copying"
        elif name not in copied:
            changed[name] = "was gone when it was to be copied"
        elif before[name] != after.get(name):
            changed[name] = "changed during the copying"
    return changed


def _folders(source: Path, target: Path, name: str) -> None:
    """Make the folders of a name, with the permissions of the original; never `target` itself."""
    for each in itertools.accumulate(PurePosixPath(name).parts[:-1], os.path.join):
        with contextlib.suppress(FileExistsError):
            os.mkdir(target / each, (source / each).stat().st_mode & 0o777 | 0o700)


def _copy(source: Path, target: Path, name: str) -> dict[str, str | int | bool]:
    """Copy a file or a link from folder to folder, and return what is recorded of it."""
    mode = os.lstat(source / name).st_mode
    if stat.S_ISLNK(mode):
        to = os.readlink(source / name)
        _folders(source, target, name)
        os.symlink(to, target / name)
        return {"link": to}
    digest, size = hashlib.sha256(), 0
    with open(source / name, "rb") as file:
        _folders(source, target, name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with open(os.open(target / name, flags, mode & 0o777), "wb") as other:
            while block := file.read(2**20):
                digest.update(block)
                size += other.write(block)
    return {"sha256": digest.hexdigest(), "bytes": size, "executable": bool(mode & 0o100)}


def _all_there(folder: Path, files: dict[str, dict[str, str | int | bool]]) -> None:
    """Raise FileNotFoundError if somebody has removed what was just copied."""
    for name, file in files.items():
        if "bytes" in file and os.lstat(folder / name).st_size != file["bytes"]:
            raise OSError(f"{folder / name} has changed since it was written")
        os.lstat(folder / name)


def _link(root: Path, copy: Path, name: str) -> str:
    """Show root/name in the copy, as a link."""
    if _outside(copy, name):
        raise ValueError(f"a link must lie below {root}, but {name!r} does not")
    if not os.path.lexists(root / name):
        raise ValueError(f"there is no {name!r} in {root} to link to")
    if os.path.lexists(copy / name):
        raise ValueError(f"{name!r} overlaps another link")
    _folders(root, copy, name)
    os.symlink(root / name, copy / name)
    return str(root / name)


def _leading_away(root: Path, copy: Path, files: dict[str, dict]) -> Iterator[str]:
    """Copied links that do not lead to the copy of what they name, as the original's do."""
    for name, file in files.items():
        if "link" in file and os.path.exists(root / name):
            leads = os.path.realpath(copy / name)
            wanted = _moved(str(root / name), root, copy)
            if leads != os.path.realpath(wanted):
                yield f"the link {name!r} leads to {leads}, not to {wanted}"


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


def _stream(
    root: Path,
    reference: str,
    max_bytes: int,
    before: dict[str, object],
    left_out: dict[str, str],
) -> Iterator[bytes]:
    """The files, then the commit, in the language of `git fast-import`."""
    entries = {}
    for mark, name in enumerate(before, 1):
        path = root / name
        try:
            mode = os.lstat(path).st_mode
            is_link = stat.S_ISLNK(mode)
            content = os.fsencode(os.readlink(path)) if is_link else path.read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            continue  # gone since it was listed
        yield b"blob\nmark :%d\n" % mark + _data(content)
        kind = b"120000" if is_link else b"100755" if mode & 0o100 else b"100644"
        quoted = os.fsencode(name).replace(b"\\", b"\\\\").replace(b'"', b'\\"')
        entries[name] = b'M %s :%d "%s"\n' % (kind, mark, quoted.replace(b"\n", b"\\n"))
    changed = _changed(before, entries, _listed(root, {}, max_bytes)[0])
    message = "snapshot\n\n" + json.dumps({"left_out": left_out, "changed": changed}, indent=1)
    yield b"commit %s\n" % os.fsencode(reference)
    yield b"committer source_backup <source_backup@localhost> now\n" + _data(message.encode())
    if commit := _commit(root):
        yield b"from %s\ndeleteall\n" % commit.encode()
    yield from entries.values()
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


def _say_some(what: str, lines: Sequence[str]) -> None:
    for line in lines[:5]:
        _say(f"{what}: {line}")
    if len(lines) > 5:
        _say(f"{what}: {len(lines) - 5} more, named in run.json")


def _say(text: str) -> None:
    if sys.stderr is not None:  # closed; None would print to the command's output
        with contextlib.suppress(OSError):
            print("source_backup:", text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
