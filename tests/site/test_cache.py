"""A snippet runs again exactly when something that its run depended on has changed."""

import fcntl
import importlib.metadata
import os
import py_compile
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest

from zhixing_site.execution import cache
from zhixing_site.execution.snippet import read_snippet

TRIAL = "snippets/area/trial.py"
ROOTS = ".cache/runs/area/roots.json"


def runs_of(project) -> set[str]:
    """Run all snippets, check that none fails, and return those that were not cached."""
    assert project.run() == (0, "")
    return project.ran


def same_site(project, other) -> bool:
    """Compare the built sites, except for the sitemaps, which contain the time."""
    ours, theirs = (
        {path: content for path, content in each.site().items() if "sitemap" not in path} for each in (project, other)
    )
    return ours == theirs


def entry_without_time(project) -> dict:
    """Return the cache entry of a snippet without the time of the run."""
    entry = project.entry("area/roots")
    del entry["notebook"]["metadata"]["zhixing"]["seconds"]
    return entry


def test_unchanged_project_runs_nothing_in_any_process(project, tmp_path):
    count = tmp_path / "count"
    count.write_text("")
    project.article("area/trial", f"# %% one\nwith open({str(count)!r}, 'a') as file:\n    file.write('run ')\n")
    for _ in range(2):
        assert project.build() == (0, "")
    assert count.read_text() == "run "
    assert project.ran == set()


def test_snippet_without_a_cache_entry_runs(project):
    (project.root / ".cache/runs/area/squares.json").unlink()
    assert runs_of(project) == {"area/squares.py"}


def test_modification_times_do_not_matter(project):
    for path in project.root.rglob("*"):
        os.utime(path, (1, 1))
    assert runs_of(project) == set()


@pytest.mark.parametrize(
    ("path", "old", "new", "wanted"),
    [
        ("snippets/area/roots.py", "root(9)", "root(16)", {"area/roots.py"}),
        ("snippets/area/roots.py", "print(", "# A comment.\nprint(", {"area/roots.py"}),
        ("src/things/root.py", "x**0.5", "x**0.25", {"area/roots.py"}),
        ("src/things/power.py", "x * x", "x**2", {"area/squares.py"}),
        ("src/things/__init__.py", "", "# All.\n", {"area/roots.py", "area/squares.py"}),
        ("src/things/lonely.py", "1", "2", set()),
        ("snippets/area/squares.toml", "[names]", "# A comment.\n[names]", {"area/squares.py"}),
        ("mkdocs.yml", "Small", "Smaller", set()),
        ("docs/index.html", "Small", "Smaller", set()),
    ],
    ids=[
        "snippet",
        "comment in the snippet",
        "module",
        "other module",
        "package",
        "module not imported",
        "catalogue",
        "config",
        "home",
    ],
)
def test_changed_file_reruns_the_snippets_that_depend_on_it(project, path, old, new, wanted):
    project.replace(path, old, new)
    assert runs_of(project) == wanted
    assert runs_of(project) == set()


def test_changed_prose_runs_nothing_and_is_built(project):
    for language in ("en", "zh"):
        project.replace(
            f"docs/{language}/area/squares.md", "{ #table }\n", "{ #table }\n\n<!-- A comment. -->\n\n1, 2, 3.\n"
        )
    project.command("accept")
    assert project.build() == (0, "")
    assert project.ran == set()
    assert "1, 2, 3." in project.html("en/area/squares").text_content()


def test_changed_function_changes_the_page(project):
    project.replace("src/things/root.py", "x**0.5", "-(x**0.5)")
    assert project.build() == (0, "")
    assert "-3.0" in project.html("zh/area/roots").text_content()


def test_failed_run_is_not_cached(project):
    project.write(TRIAL, "# %% one\nfrom things.root import root\n\nroot(None)\n")
    assert project.run()[0] == 1
    assert project.run()[0] == 1
    project.write("src/things/root.py", "def root(x):\n    return x\n")
    assert runs_of(project) == {"area/roots.py", "area/trial.py"}


# Ways in which a cell reads the file next to its snippet.
READERS = {
    "open": "with open(path) as file:\n    text = file.read()",
    "pathlib": "text = path.read_text()",
    "relative to the working directory": "import os\n\nos.chdir(path.parent)\ntext = Path(path.name).read_text()",
    "path with dots": "text = (path.parent / '..' / 'area' / path.name).read_text()",
    "bytes path": "with open(bytes(path)) as file:\n    text = file.read()",
    "descriptor": "import os\n\nnumber = os.open(path, os.O_RDONLY)\ntext = os.read(number, 99)\nos.close(number)",
    "numpy": "import numpy as np\n\ntext = np.loadtxt(path)",
    "torch": "import torch\n\ntry:\n    torch.load(path)\nexcept Exception:\n    pass",
    "thread": "import threading\n\nthread = threading.Thread(target=path.read_text)\nthread.start()\nthread.join()",
    "read and write": "with open(path, 'r+') as file:\n    text = file.read()",
}
# Ways in which a cell lists the folder that the file is in.
LISTERS = {
    "listdir": "import os\n\nprint(sorted(os.listdir(folder)))",
    "scandir": "import os\n\nprint(sorted(entry.name for entry in os.scandir(os.fsencode(folder))))",
    "working directory": "import os\n\nos.chdir(folder)\nprint(sorted(os.listdir()))",
    "iterdir": "print(sorted(folder.iterdir()))",
    "pathlib's glob": "print(sorted(folder.glob('*.txt')))",
    "glob": "import glob\n\nprint(sorted(glob.glob(f'{folder}/*.txt')))",
    "walk": "import os\n\nprint(list(os.walk(folder.parent)))",
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_changed_file_that_was_read_reruns_the_snippet(project, reader):
    project.write("snippets/area/data.txt", "1 2\n")
    snippet = f"# %% one\nfrom pathlib import Path\n\npath = Path(__file__).parent / 'data.txt'\n{reader}\n"
    project.write(TRIAL, snippet)
    assert runs_of(project) == {"area/trial.py"}
    assert runs_of(project) == set()
    project.write("snippets/area/data.txt", "1 3\n")
    assert runs_of(project) == {"area/trial.py"}
    (project.root / "snippets/area/data.txt").rename(project.root / "snippets/area/gone.txt")
    assert project.run()[0] == 1 or project.ran == {"area/trial.py"}


@pytest.mark.parametrize("lister", LISTERS.values(), ids=LISTERS)
def test_new_file_in_a_folder_that_was_listed_reruns_the_snippet(project, lister):
    project.write("data/deep/one.txt", "1")
    folder = "from pathlib import Path\n\nfolder = Path(__file__).parents[2] / 'data/deep'"
    project.write(TRIAL, f"# %% one\n{folder}\n{lister}\n")
    assert runs_of(project) == {"area/trial.py"}
    project.write("data/deep/one.txt", "2")
    assert runs_of(project) == set()
    project.write("data/deep/知.txt", "1")
    assert runs_of(project) == {"area/trial.py"}
    assert "知.txt" in project.printed("area/trial", "one") or "scandir" in lister
    (project.root / "data/deep/one.txt").unlink()
    assert runs_of(project) == {"area/trial.py"}
    assert runs_of(project) == set()


def test_new_module_beside_an_imported_one_runs_nothing(project):
    """Python lists the folders that it imports from."""
    project.write("src/things/new.py", "")
    project.write("src/other/__init__.py", "")
    assert runs_of(project) == set()


@pytest.mark.parametrize("address", ["path", "f'file:{path}?mode=ro', uri=True"], ids=["path", "address"])
def test_changed_database_that_was_read_reruns_the_snippet(project, address):
    def fill(number: int) -> None:
        with closing(sqlite3.connect(project.root / "data.db")) as database, database:
            database.executescript(f"DROP TABLE IF EXISTS t; CREATE TABLE t (x); INSERT INTO t VALUES ({number})")

    fill(1)
    snippet = f"""\
# %% one
import sqlite3
from pathlib import Path

path = Path(__file__).parents[2] / "data.db"
database = sqlite3.connect({address})
print(*database.execute("SELECT x FROM t"))
database.close()
"""
    project.write(TRIAL, snippet)
    assert runs_of(project) == {"area/trial.py"}
    assert runs_of(project) == set()
    fill(2)
    assert runs_of(project) == {"area/trial.py"}
    assert project.printed("area/trial", "one") == "(2,)\n"


@pytest.mark.parametrize("path", [".hidden/data.txt", "data/.data.txt", ".git/HEAD"])
def test_changed_hidden_file_that_was_read_reruns_the_snippet(project, path):
    project.write(path, "1")
    snippet = f"# %% one\nfrom pathlib import Path\n\nprint((Path(__file__).parents[2] / {path!r}).read_text())\n"
    project.write(TRIAL, snippet)
    assert runs_of(project) == {"area/trial.py"}
    project.write(path, "2")
    assert runs_of(project) == {"area/trial.py"}
    assert runs_of(project) == set()


@pytest.mark.parametrize("content", ["present", ""], ids=["full", "empty"])
def test_new_file_that_was_looked_for_reruns_the_snippet(project, content):
    snippet = """\
# %% one
from pathlib import Path

try:
    print("read", (Path(__file__).parent / "data.txt").read_text())
except FileNotFoundError:
    print("absent")
"""
    project.write(TRIAL, snippet)
    assert runs_of(project) == {"area/trial.py"}
    assert runs_of(project) == set()
    project.write("snippets/area/data.txt", content)
    assert runs_of(project) == {"area/trial.py"}
    assert project.printed("area/trial", "one") == f"read {content}\n"


def test_new_module_that_was_looked_for_reruns_the_snippet(project):
    snippet = """\
# %% one
try:
    from things.extra import EXTRA
except ImportError:
    EXTRA = "absent"
print(EXTRA)
"""
    project.write(TRIAL, snippet)
    assert runs_of(project) == {"area/trial.py"}
    project.write("src/things/extra.py", "EXTRA = 'present'\n")
    assert runs_of(project) == {"area/trial.py"}
    assert project.printed("area/trial", "one") == "present\n"


def test_file_that_is_only_written_is_not_a_dependency(project):
    snippet = (
        "# %% one\nfrom pathlib import Path\n\n(Path(__file__).parents[2] / 'out.txt').write_text(str(id(Path)))\n"
    )
    project.write(TRIAL, snippet)
    assert runs_of(project) == {"area/trial.py"}
    project.write("out.txt", "changed")
    assert runs_of(project) == set()


STARTERS = {
    "subprocess": "import subprocess\nimport sys\n\nsubprocess.run([sys.executable, '-c', 'pass'])",
    "shell": "import os\n\nos.system('true')",
    "fork": "import os\n\nif os.fork() == 0:\n    os._exit(0)\nos.wait()",
    "posix_spawn": "import os\n\nos.waitpid(os.posix_spawn('/usr/bin/env', ['env'], {}), 0)",
    "multiprocessing fork": "method = 'fork'",
    "multiprocessing spawn": "method = 'spawn'",
    "multiprocessing forkserver": "method = 'forkserver'",
}
STARTED = """
import multiprocessing
import os

if __name__ == "__main__" and "method" in globals():
    process = multiprocessing.get_context(method).Process(target=os.getpid)
    process.start()
    process.join()
    process.close()
"""


@pytest.mark.parametrize("starter", STARTERS.values(), ids=STARTERS)
def test_snippet_that_starts_a_process_depends_on_all_sources(project, starter):
    project.write("src/things/table.csv", "1, 2\n")
    project.write(TRIAL, f"# %% one\n{starter}\n\n# %% two\n{STARTED}\n")
    assert runs_of(project) == {"area/trial.py"}
    assert runs_of(project) == set()
    project.replace("src/things/lonely.py", "1", "2")
    assert runs_of(project) == {"area/trial.py"}
    assert runs_of(project) == set()


def test_snippet_that_starts_a_process_depends_on_data_among_the_sources(project):
    project.write("src/things/table.csv", "1, 2\n")
    read = "import things; from pathlib import Path; print((Path(things.__file__).parent / 'table.csv').read_text())"
    snippet = f"""\
# %% one
import os
import subprocess
import sys
from pathlib import Path

path = {{**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}}
print(subprocess.run([sys.executable, "-c", {read!r}], env=path, capture_output=True, text=True).stdout)
"""
    project.write(TRIAL, snippet)
    assert runs_of(project) == {"area/trial.py"}
    assert runs_of(project) == set()
    project.write("src/things/table.csv", "3, 4\n")
    assert runs_of(project) == {"area/trial.py"}
    assert "3, 4" in project.printed("area/trial", "one")


def test_new_version_of_an_imported_distribution_reruns_the_snippet(project, monkeypatch):
    version = cache._version
    monkeypatch.setattr(cache, "_version", lambda name: "0" if name == "mkdocs" else version(name))
    assert (project.run(), project.ran) == ((0, ""), set())
    monkeypatch.setattr(cache, "_version", lambda name: "0" if name == "matplotlib" else version(name))
    project.run()
    assert "area/squares.py" in project.ran
    assert (project.run(), project.ran) == ((0, ""), set())


def test_new_version_of_a_distribution_reruns_only_its_importers(project, monkeypatch):
    project.write(TRIAL, "# %% one\nimport scipy.special\n")
    assert runs_of(project) == {"area/trial.py"}
    version = cache._version
    monkeypatch.setattr(cache, "_version", lambda name: "0" if name == "scipy" else version(name))
    project.run()
    assert project.ran == {"area/trial.py"}


def test_changed_builder_reruns_all_snippets(project, monkeypatch):
    monkeypatch.setattr(cache, "_builder", lambda: "another")
    project.run()
    assert project.ran == {"area/roots.py", "area/squares.py"}
    assert (project.run(), project.ran) == ((0, ""), set())


def test_digest_of_the_builder_covers_python_and_every_file_of_the_package(monkeypatch, tmp_path):
    (tmp_path / "fonts").mkdir()
    for path, text in {"cache.py": "1", "fonts/x.otf": "2"}.items():
        (tmp_path / path).write_text(text)
    monkeypatch.setattr(cache, "__file__", str(tmp_path / "cache.py"))
    digests = set()
    for change in (
        lambda: None,
        lambda: (tmp_path / "fonts/x.otf").write_text("3"),
        lambda: (tmp_path / "y.py").write_text(""),
    ):
        change()
        digests.add(cache._builder.__wrapped__())
    monkeypatch.setattr("platform.python_version", lambda: "4.0.0")
    digests.add(cache._builder.__wrapped__())
    assert len(digests) == 4


def test_damage_anywhere_in_a_cache_entry_is_detected(project):
    path = project.root / ROOTS
    snippet = read_snippet(project.root / "snippets/area/roots.py", project.root)
    whole = path.read_bytes()
    assert cache.load(snippet, project.root)["cells"][0]["id"] == "root"
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place])
        assert cache.load(snippet, project.root) is None, f"cut at {place}"
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert cache.load(snippet, project.root) is None, f"flipped at {place}"
    path.write_bytes(whole)
    assert cache.load(snippet, project.root)["cells"][0]["id"] == "root"


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: whole[:1],
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:-1],
        lambda whole: whole + b"}",
        lambda whole: whole.replace(b"3.0", b"4.0"),
        lambda whole: whole[:50] + b"\xff\x00" + whole[52:],
        lambda whole: b"null",
        lambda whole: b"[]",
        lambda whole: whole.partition(b"\n")[2],
    ],
    ids=[
        "empty",
        "1 byte",
        "half",
        "a byte less",
        "a byte more",
        "changed result",
        "invalid UTF-8",
        "null",
        "list",
        "no digest",
    ],
)
def test_damaged_cache_entry_is_computed_again(project, pristine, damage):
    (project.root / ROOTS).write_bytes(damage((project.root / ROOTS).read_bytes()))
    assert runs_of(project) == {"area/roots.py"}
    assert entry_without_time(project) == entry_without_time(pristine)
    assert runs_of(project) == set()


def test_build_with_a_damaged_cache_gives_the_same_site(project, pristine):
    for path in (project.root / ".cache").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:1000])
    assert project.build() == (0, "")
    assert project.ran == {"area/roots.py", "area/squares.py"}
    assert same_site(project, pristine)


def test_result_of_another_snippet_is_not_used(project):
    project.write(TRIAL, "# %% root\nprint('trial')\n")
    assert runs_of(project) == {"area/trial.py"}
    (project.root / ".cache/runs/area/trial.json").replace(project.root / ROOTS)
    assert runs_of(project) == {"area/roots.py", "area/trial.py"}


def test_edit_of_the_same_size_in_the_same_second_reruns_the_snippet(project):
    """Python itself would import the old .pyc, whose recorded time and size match the new source."""
    path = project.root / "src/things/root.py"
    py_compile.compile(str(path), doraise=True)
    before = path.stat()
    project.replace("src/things/root.py", "x**0.5", "x**1.5")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert runs_of(project) == {"area/roots.py"}
    assert project.printed("area/roots", "root") == "27.0\n"


SLOW = """\
# %% one
import subprocess
import sys
import time
from pathlib import Path

subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], start_new_session=True)
if not (Path(__file__).parents[2] / "quick").exists():
    (Path(__file__).parents[2] / "begun").write_text("")
    time.sleep(1000)
print("done")
"""


def processes_with(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("ZHIXING_TEST") == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            pass
    return found


def wait_until(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def builds(project):
    """Return a function that starts a build in a new process; kill what remains after the test."""
    mark, started = uuid.uuid4().hex, []

    def start() -> subprocess.Popen:
        command = [sys.executable, "-m", "zhixing_site", "build"]
        environment = {**os.environ, "ZHIXING_TEST": mark}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(command, cwd=project.root, env=environment, **quiet))
        return started[-1]

    start.mark = mark
    yield start
    for process in processes_with(mark):
        process.kill()
    for build in started:
        build.wait()
        build.stderr.close()


# When to kill a build, as recognised from files in the project's folder.
MOMENTS = {
    "while the first process starts": lambda root: True,
    "while a snippet runs": lambda root: (root / "begun").exists(),
    "while a result is stored": lambda root: (root / ROOTS).exists(),
    "while the sites are built": lambda root: any(root.glob(".cache/*/site")),
}


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_killed_build_leaves_no_processes_and_a_valid_cache(project, pristine, builds, moment):
    if moment is not MOMENTS["while the sites are built"]:
        project.article("area/trial", SLOW)
        (project.root / ROOTS).unlink()
    before = project.site()
    build = builds()
    wait_until(lambda: moment(project.root) and processes_with(builds.mark))
    build.kill()
    wait_until(lambda: not processes_with(builds.mark), 30)
    assert project.site() in (before, pristine.site())
    project.write("quick", "")
    assert project.run() == (0, "")
    assert project.notebook("area/roots")["cells"] == pristine.notebook("area/roots")["cells"]
    if moment is not MOMENTS["while the sites are built"]:
        return
    assert project.build() == (0, "")
    assert same_site(project, pristine)


def test_interrupted_build_leaves_no_processes_and_no_files(project, builds):
    project.article("area/trial", SLOW)
    before = project.site()
    build = builds()
    wait_until(lambda: (project.root / "begun").exists())
    build.send_signal(signal.SIGINT)
    messages = build.communicate()[1]
    assert build.returncode == 130
    assert b"Traceback" not in messages
    wait_until(lambda: not processes_with(builds.mark), 30)
    assert project.site() == before
    assert not list(project.root.glob(".cache/*/site"))


ENDS = [(kind, seconds) for kind in (signal.SIGKILL, signal.SIGINT) for seconds in (0.5, 1.5, 3)]
ENDS += [(signal.SIGTERM, 1.5)]  # not caught, so that it acts like SIGKILL


@pytest.mark.parametrize(("kind", "seconds"), ENDS, ids=[f"{kind.name} {seconds}" for kind, seconds in ENDS])
def test_build_ended_at_any_time_leaves_no_processes(project, builds, kind, seconds):
    """Include moments that leave no file: the start of the fork server or of a watcher."""
    project.article("area/trial", SLOW)
    build = builds()
    time.sleep(seconds)
    for _ in range(3):  # Python ignores a KeyboardInterrupt inside a callback, as while it imports
        build.send_signal(kind)
        with suppress(subprocess.TimeoutExpired):
            build.wait(10)
            break
    wait_until(lambda: not processes_with(builds.mark), 30)


def test_two_simultaneous_builds_give_the_same_site(project, pristine, builds):
    """Both start without cached results, and with compiled modules that both delete."""
    for path in (project.root / ".cache/runs").rglob("*.json"):
        path.unlink()
    for path in (project.root / "src").rglob("*.py"):
        py_compile.compile(str(path), doraise=True)
    both = [builds(), builds()]
    for build in both:
        assert (build.communicate()[1], build.returncode) == (b"", 0)
    assert same_site(project, pristine)
    assert not list(project.root.glob(".cache/*/site"))
    assert not list((project.root / ".cache/runs").rglob(".*"))
    assert runs_of(project) == set()


def test_build_waits_while_another_replaces_the_site(project, builds):
    before = project.site()
    project.replace("docs/index.html", "Small", "Smaller")
    with open(project.root / ".cache/lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        build = builds()
        wait_until(lambda: any(project.root.glob(".cache/*/site/index.html")))
        time.sleep(1)
        assert build.poll() is None
        assert project.site() == before
    assert (build.communicate()[1], build.returncode) == (b"", 0)
    assert "Smaller" in project.read("site/index.html")


def test_compiled_modules_that_appear_and_vanish_are_not_an_error(project, monkeypatch):
    """Another build may import the sources and delete their compiled modules at the same time."""
    scandir = os.scandir

    def unstable_scandir(path):
        name = "" if isinstance(path, int) else Path(path).name
        if name == "things":
            (Path(path) / "__pycache__").mkdir(exist_ok=True)
        if name == "__pycache__":
            Path(path).rmdir()
        return scandir(path)

    monkeypatch.setattr("os.scandir", unstable_scandir)
    assert project.run() == (0, "")


def test_cache_entry_records_the_processor_time_of_the_run(project):
    busy = "import time\n\nwhile time.process_time() < 0.5:\n    pass"
    project.write(TRIAL, f"# %% one\n{busy}\ntime.sleep(0.5)\nspent = time.process_time()\n")
    assert runs_of(project) == {"area/trial.py"}
    recorded = project.notebook("area/trial")["metadata"]["zhixing"]
    spent = recorded["values"]["spent"]
    assert spent - 0.01 <= recorded["seconds"] < spent + 0.5  # sleeping uses no processor time


def test_cache_entry_records_the_dependencies_of_the_run(project):
    entry = project.entry("area/roots")
    read = {"snippets/area/roots.py", "src/things/__init__.py", "src/things/root.py"}
    assert {path for path, digest in entry["files"].items() if digest != "absent"} == read
    assert {"torch", "matplotlib", "ipython"} <= entry["distributions"].keys()
    assert "mkdocs" not in entry["distributions"]


def test_distributions_of_modules():
    """As the standard library finds them, for every installed top-level module, also one that several share."""
    owners = importlib.metadata.packages_distributions()
    assert any(len({*names}) > 1 for names in owners.values())
    for module, names in owners.items():
        assert {*names} <= {*cache._distributions_of(module)}
    assert cache._distributions_of("PIL") == ["pillow"]
    assert cache._distributions_of("typing_extensions") == ["typing_extensions"]
    assert cache._distributions_of("nothing") == []
