# %% picture
from itertools import pairwise

import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(5.2, 2.5))
lanes = {"copy": [1, 9.6], "working tree": [0, 3, 7, 9.6]}
for y, (name, edits) in enumerate(lanes.items()):
    for number, (start, end) in enumerate(pairwise(edits)):
        axes.barh(y, end - start, 0.42, start, color=f"C{number}", alpha=0.55)
        axes.text(end - 0.9, y, f"version {number + 1}", ha="center", va="center")
    axes.text(edits[0] + 0.1, y + 0.3, name, fontweight="bold")
for x, event in ((1, "start"), (4.4, "late import"), (7.7, "restart")):
    axes.plot([x, x], [-0.5, 1.21], ":", color="0.5", zorder=0)
    axes.text(x, -0.58, event, ha="center", va="top")
arrow = {"arrowstyle": "->", "lw": 1.5}
for x in (3, 7):
    axes.annotate("edit", (x, 1.24), (x, 1.62), ha="center", arrowprops=arrow)
axes.set(xlim=(-0.1, 9.7), ylim=(-0.95, 1.85))
axes.axis("off")

# %% setup
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from zhixing.engineering.source_backup import git_snapshot, restore, snapshot

BACKUP = [sys.executable, "-m", "zhixing.engineering.source_backup", "--"]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
# The settings of this user and this machine shall not matter.
os.environ["GIT_CONFIG_GLOBAL"], os.environ["GIT_CONFIG_NOSYSTEM"] = os.devnull, "1"
work = tempfile.TemporaryDirectory()


def repository(name):
    root = Path(work.name, name)
    subprocess.run(["git", "init", "-q", root], check=True)
    for key, value in (("user.name", "me"), ("user.email", "me@localhost")):
        subprocess.run(["git", "config", key, value], cwd=root, check=True)
    return root


def shell(script, root, **variables):
    command = ["bash", "-c", script]
    environment = os.environ | variables
    return subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True
    )


# %% late
TRAIN = """
print("training", flush=True)
input()  # for hours
from model import version
print(version)
"""


def edited_meanwhile(before):
    root = repository(f"late {len(before)}")  # one for each call
    (root / "train.py").write_text(TRAIN)
    (root / "model.py").write_text("version = 'old'")
    pipes = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
    command = [*before, sys.executable, "train.py"]
    quiet = {"stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(command, cwd=root, **pipes, **quiet) as training:
        training.stdout.readline()
        (root / "model.py").write_text("version = 'new'")
        return training.communicate("\n")[0].strip()


imported = {"working tree": edited_meanwhile([]), "copy": edited_meanwhile(BACKUP)}
for place, version in imported.items():
    print(f"started in the {place}: imports the {version} model")

# %% late_holds tags=["hidden"]
assert imported == {"working tree": "new", "copy": "old"}

# %% kinds
root = repository("kinds")
NAMES = {
    "edited": "edited.py",
    "new and staged": "staged.py",
    "new and untracked": "untracked.py",
    "deleted": "deleted.py",
    "made executable": "run.py",
    "symbolic link": "link.py",
    "space in the name": "two words.py",
    "newline in the name": "new\nline.py",
    "name not in UTF-8": os.fsdecode(b"\xe9t\xe9.py"),
    "name starts with a dash": "-dash.py",
    "changed binary": "weights.bin",
    "larger than 10 MB": "large.bin",
    "Windows line ends": "crlf.py",
    "clone inside": "clone/model.py",
    "ignored": "ignored.py",
}
late = {"new and staged", "new and untracked", "clone inside", "symbolic link"}
for kind, name in NAMES.items():
    if kind not in late:
        (root / name).write_bytes(
            b"before \0\n" if name == "weights.bin" else b"before\n"
        )
(root / "large.bin").write_bytes(bytes(10_000_001))
(root / "link.py").symlink_to("run.py")
(root / ".gitignore").write_text("ignored.py")
shell("git add -A && git commit -qm 'all of it'", root)
shell("git commit -qm 'another project' --allow-empty", repository("kinds/clone"))
for kind, name in NAMES.items():
    if kind not in ("deleted", "symbolic link"):
        (root / name).write_bytes(
            b"after \0\n" if name == "weights.bin" else b"after\n"
        )
(root / "large.bin").write_bytes(bytes(10_000_000) + b"1")
(root / "crlf.py").write_bytes(b"after\r\n")
(root / "run.py").chmod(0o755)
(root / "deleted.py").unlink()
(root / "link.py").unlink()
(root / "link.py").symlink_to("edited.py")
status = shell(
    "git add staged.py && git config core.autocrlf input && git status -s", root
)

# %% methods
APPLY = 'git archive HEAD | tar -x -C "$TO"; cd "$TO" && git apply "$TO.patch"'
METHODS = {
    'find "*.py"': """for f in $(find . -name "*.py"); do
        tar -c "$f" | tar -x -C "$TO"; done""",
    "git diff": f'git diff HEAD >"$TO.patch"; {APPLY}',
    "git diff --binary": f'git diff --binary HEAD >"$TO.patch"; {APPLY}',
    "git stash create": 'git archive "$(git stash create)" | tar -x -C "$TO"',
    "git add -A": """export GIT_INDEX_FILE="$TO.index"
        git add -A; git archive "$(git write-tree)" | tar -x -C "$TO" """,
}


def same(one, other):
    if one.is_symlink() or other.is_symlink():
        return (
            one.is_symlink()
            and other.is_symlink()
            and one.readlink() == other.readlink()
        )
    if not one.is_file() or not other.is_file():
        return one.is_file() == other.is_file()
    executable = {path.stat().st_mode & 0o100 for path in (one, other)}
    return one.read_bytes() == other.read_bytes() and len(executable) == 1


def kept(target):
    return {kind: same(root / name, target / name) for kind, name in NAMES.items()}


found = {}
for number, (method, script) in enumerate(METHODS.items()):
    target = Path(work.name, f"method{number}")
    target.mkdir()
    shell(script, root, TO=str(target))
    found[method] = kept(target)
target = Path(work.name, "commit")
target.mkdir()
commit = git_snapshot(root, "kinds")
shell(f'git archive {commit} | tar -x -C "$TO"', root, TO=str(target))
found["git_snapshot"] = kept(target)
found["snapshot"] = kept(
    restore(snapshot(root, root / ".runs"), Path(work.name, "copy"))
)
for method, kinds in found.items():
    lost = [kind for kind in kinds if not kinds[kind]]
    print(f"{method:>18} loses", "all" if len(lost) == len(NAMES) else ", ".join(lost))

# %% matrix tags=["hidden"]
figure, axes = plt.subplots(figsize=(5.2, 4.6))
for x, kinds in enumerate(found.values()):
    for y, is_kept in enumerate(kinds.values()):
        color, marker = ("C0", "o") if is_kept else ("C1", "x")
        axes.plot(x, y, marker, color=color, ms=8, mew=2.5)
axes.set_xticks(
    range(len(found)), found, rotation=35, ha="left", rotation_mode="anchor"
)
axes.set_yticks(range(len(NAMES)), NAMES)
axes.xaxis.tick_top()
axes.invert_yaxis()
axes.tick_params(length=0)
axes.grid(True, alpha=0.3)
for side in axes.spines.values():
    side.set_visible(False)
axes.plot([], [], "o", color="C0", ms=8, label="kept")
axes.plot([], [], "x", color="C1", ms=8, mew=2.5, label="lost")
axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.01), ncols=2, frameon=False)

# %% methods_hold tags=["hidden"]
lost = {
    method: {kind for kind in kinds if not kinds[kind]}
    for method, kinds in found.items()
}
assert lost["snapshot"] == lost["git_snapshot"] == {"ignored", "larger than 10 MB"}
assert len(NAMES) == 15
assert lost["git add -A"] == {"ignored", "clone inside", "Windows line ends"}
assert lost["git diff --binary"] == lost["git stash create"]
assert lost["git stash create"] == lost["git add -A"] | {"new and untracked"}
assert lost["git diff"] == {*NAMES}
assert lost['find "*.py"'] == {
    "space in the name",
    "newline in the name",
    "changed binary",
    "larger than 10 MB",
}

# %% sizes
project = repository("sizes")
for number in range(50):
    lines = [f"weight_{number}_{line} = {line * number}" for line in range(600)]
    (project / f"part{number}.py").write_text("\n".join(lines))
shell("git add -A && git commit -qm 'fifty files'", project)


def bytes_in(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


before = bytes_in(project / ".git")
for number in range(20):
    with open(project / "part7.py", "a") as file:
        file.write(f"\nlr = {number}")
    git_snapshot(project, f"run{number}")
    snapshot(project, Path(work.name, "runs"))
commits = bytes_in(project / ".git") - before
copies = bytes_in(Path(work.name, "runs"))
print(f"20 copies take {copies / 1e6:.0f} MB")
print(f"20 commits take less than {commits // 10**5 / 10 + 0.1:.1f} MB")

# %% sizes_hold tags=["hidden"]
assert copies > 40 * commits

# %% masked
careless = """#!/bin/bash
$* | tee log.txt
echo finished >>log.txt
"""
careful = """#!/bin/bash
set -o pipefail
"$@" | tee log.txt
"""
PROGRAM = "import sys; print(sys.argv[1:]); sys.exit(3)"
scripts = repository("scripts")
(scripts / "fail.py").write_text(PROGRAM)
command = [sys.executable, "fail.py", "two words"]
codes = {}
for name, before in {
    "careless": ["bash", "-c", careless, "-"],
    "careful": ["bash", "-c", careful, "-"],
    "source_backup": BACKUP,
}.items():
    done = subprocess.run(
        [*before, *command], cwd=scripts, capture_output=True, text=True
    )
    codes[name] = done.returncode
    print(f"{name:>13}: {done.stdout.strip():13} exit code {done.returncode}")

# %% masked_holds tags=["hidden"]
assert codes == {"careless": 0, "careful": 3, "source_backup": 3}
work.cleanup()
