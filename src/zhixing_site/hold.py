"""Hold each file that can be copied against the tests: it stands alone, and passes what the package passes.

The file takes its module's place in the package, where the module's tests run. The file of a definition lacks the rest
of the module: a test that needs some of that does not count. Left out are tests marked `mutation`, which break the code
on purpose, and for a definition those marked `processes`, which take long.
"""

import ast
import contextlib
import importlib
import importlib.util
import json
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from zhixing_copy.catalogue import Entry, entries, read_modules, shortest, write
from zhixing_copy.source import PACKAGE, Module
from zhixing_copy.standalone import standalone
from zhixing_site import gap
from zhixing_site.fault import Fault
from zhixing_site.trace import digest, file_digest
from zhixing_site.watch import Limits, SuddenEnd, all_at_once, in_watched_process

FOLDER = Path(".cache/held")
LIMITS = Limits(seconds=900)  # for all files of a module
GAPS = "\n\nfrom zhixing_site.gap import __getattr__\n"
GAP = re.compile(rf"\b{gap.__name__}\b|\b{gap.NeedsMore.__name__}\b")  # in what a test says that needs more
IMPORT = re.compile(r"\bzhixing\.(\w+)(?:\.(\w+)| import (\w+(?:, \w+)*))")
BLOCKED = "zhixing", "zhixing_copy", "jaxtyping"

Modules = Mapping[str, Module]


@dataclass(frozen=True)
class Held:
    """The tests that each file of a module passes; `seconds` are 0 where all is known from before."""

    tests: dict[Entry, tuple[str, ...]]
    seconds: float = 0.0


Report = Callable[[str, Held | Fault], None]  # called with a module's path when its files are held


def all_files(modules: Modules) -> tuple[dict[Entry, str], list[Fault]]:
    """Each file that can be copied, and a fault for each that would not work."""
    files, faults = {}, []
    for entry in entries(modules):
        try:
            files[entry] = write(entry, modules)
        except ValueError as error:
            faults.append(Fault(f"{entry.name} cannot be copied: {error}", _path(entry.module)))
    return files, faults


def offered(modules: Modules) -> dict[str, tuple[str, str]]:
    """{"src/zhixing/activations/gelu.py:gelu_tanh": its file below code/, and its name for the command}."""
    return {
        f"{_path(entry.module)}:{entry.definition}": (f"{entry.name}.py", shortest(entry, modules))
        for entry in entries(modules)
    }


def write_files(files: Mapping[Entry, str], site: Path) -> None:
    """At addresses that stay: code/activations/gelu.py, code/activations/gelu.gelu_tanh.py."""
    for entry, text in files.items():
        path = site / "code" / f"{entry.name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def hold_all(
    files: Mapping[Entry, str], modules: Modules, root: Path, report: Report
) -> tuple[dict[str, Held], list[Fault]]:
    """{module's name: Held}, and a fault for each that has a file that does not stand alone, or fails a test."""

    def attempt(module: str) -> Held | Fault:
        own = {entry: text for entry, text in files.items() if entry.module == module}
        try:
            result = _hold_module(module, own, modules, root)
        except Fault as fault:
            result = fault
        report(_path(module), result)
        return result

    results = dict(zip(modules, all_at_once(attempt, modules), strict=True))
    held = {module: result for module, result in results.items() if isinstance(result, Held)}
    return held, [result for result in results.values() if isinstance(result, Fault)]


def _path(module: str) -> str:
    return f"src/zhixing/{module}.py"


def _hold_module(name: str, files: Mapping[Entry, str], modules: Modules, root: Path) -> Held:
    """Raises Fault."""
    tests = tests_of(name, modules, root)
    if not tests:
        raise Fault("no test below tests/ imports it, nor a module that does", _path(name))
    ground = _ground(tests, modules, root)
    keys = {entry: digest(f"{ground}{text}".encode()) for entry, text in files.items()}
    passed = {entry: found for entry, key in keys.items() if (found := _load(entry, key, root)) is not None}
    new, seconds = {entry: text for entry, text in files.items() if entry not in passed}, 0.0
    if new:
        with tempfile.TemporaryDirectory(prefix="zhixing-", ignore_cleanup_errors=True) as folder:
            try:
                found, ending = in_watched_process(partial(_hold, new, tests, root), Path(folder), LIMITS)
            except SuddenEnd as end:
                raise Fault(f"its copies cannot be held against the tests: {end}", _path(name)) from None
        for entry, names in found.items():
            _store(entry, keys[entry], names, root)
        passed, seconds = passed | found, ending.seconds
    return Held({entry: tuple(passed[entry]) for entry in files}, seconds)


def tests_of(name: str, modules: Modules, root: Path) -> list[Path]:
    """The module's own file of tests; where there is none, those that import it, or else those of its users."""
    area, stem = name.split("/")
    own = root / "tests" / area / f"test_{stem}.py"
    found = {own} if own.exists() else _files_that_import(name, root)
    if not found:
        users = [user for user, module in modules.items() if name in module.sources]
        found = {path for user in users for path in tests_of(user, modules, root)}
    return sorted(found)


def _files_that_import(name: str, root: Path) -> set[Path]:
    """The files of tests in the module's area that do, or that use a file beside them that does."""
    files = {path: path.read_text() for path in (root / "tests" / name.partition("/")[0]).glob("*.py")}
    found = {path for path, text in files.items() if name in _imported(text)}
    helpers = [path.name for path in found if not path.stem.startswith("test_")]
    found |= {path for path, text in files.items() if any(helper in text for helper in helpers)}
    return {path for path in found if path.stem.startswith("test_")}


@cache
def _imported(text: str) -> set[str]:
    """The modules of the package that the text imports, also in programs that it holds as strings."""
    found = IMPORT.findall(text)
    return {f"{area}/{stem}" for area, stem, names in found for stem in ([stem] if stem else names.split(", "))}


def _ground(tests: list[Path], modules: Modules, root: Path) -> str:
    """A digest of what the tests are, import and run on, whatever file they hold."""
    areas = {test.parent for test in tests}
    files = {*tests, root / "tests/conftest.py", Path(__file__), Path(gap.__file__)}
    files |= {path for area in areas for path in area.glob("*.py") if not path.stem.startswith("test_")}
    texts = [path.read_text() for path in files if path.is_relative_to(root / "tests") and path.exists()]
    reached = modules.keys() & set().union(*map(_imported, texts))
    while more := {source for name in reached for source in modules[name].sources} - reached:
        reached |= more
    files |= {modules[name].path for name in reached}
    return digest("".join([_versions(), *map(file_digest, sorted(files))]).encode())


@cache
def _versions() -> str:
    """Of Python and all that is installed, whose folders are called by their versions."""
    installed = {found.name for place in sys.path for found in Path(place).glob("*.dist-info")}
    return " ".join([sys.version, *sorted(installed)])


def _load(entry: Entry, key: str, root: Path) -> list[str] | None:
    """The tests that this very file passed before."""
    try:
        kept = json.loads(_kept(entry, root).read_text())
    except (OSError, ValueError):
        return None
    return kept["tests"] if kept["key"] == key else None


def _store(entry: Entry, key: str, tests: list[str], root: Path) -> None:
    path = _kept(entry, root)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        json.dump({"key": key, "tests": tests}, file)
    os.replace(file.name, path)


def _kept(entry: Entry, root: Path) -> Path:
    return root / FOLDER / f"{entry.name}.json"


# In the process that is watched


def _hold(texts: Mapping[Entry, str], tests: list[Path], root: Path, folder: Path) -> dict[Entry, list[str]]:
    """The tests that each file passes; raises Fault at the first that fails one, or does not stand alone."""
    _load_what_tests_import(tests)
    passed, module, modules = {}, next(iter(texts)).module, read_modules(root / "src/zhixing")
    nothing = partial(_run_tests, Entry(module, "nothing"), "", {}, tests, [], root)
    idle, *_ = _in_fork(nothing, folder / "nothing")
    for number, (entry, text) in enumerate(texts.items()):
        place = folder / f"{number}"
        _in_fork(partial(_import_alone, entry, text), place / "alone")
        if same := [other for other in passed if _code(texts[other]) == _code(text)]:
            passed[entry] = passed[same[0]]
            continue
        borrowed = standalone(modules, entry.module, entry.definition).borrowed
        run = partial(_run_tests, entry, text, borrowed, tests, idle, root)
        passed[entry], failed, code = _in_fork(run, place / "tests")
        if failed or (not passed[entry] and not entry.definition):
            test, said = next(
                iter(failed.items()), ("its tests", f"none that needs it ran; pytest's exit code is {code}")
            )
            count = f" and {len(failed) - 1} others" * (len(failed) > 1)
            raise Fault(f"{entry.name} for itself fails {test}{count}\n{said}", _path(entry.module))
    return passed


def _code(text: str) -> str:
    """What the file does: a module of one definition does the same as the definition."""
    tree = ast.parse(text)
    return ast.dump(ast.Module(tree.body[ast.get_docstring(tree) is not None :], []))


def _load_what_tests_import(tests: list[Path]) -> None:
    """Before the forks, each of which would load it again: all but the package."""
    for test in tests:
        for each in Module("", test).imports.values():
            if each.module.partition(".")[0] != PACKAGE:
                with contextlib.suppress(Exception):  # which the tests will raise again
                    importlib.import_module(each.module)


def _in_fork(work: Callable[[Path], object], folder: Path) -> object:
    """What the work returns, in a process of its own and a folder of its own; raises the Fault that it raised."""
    folder.mkdir(parents=True)
    child, result = os.fork(), folder / "result.json"
    if child == 0:
        os.chdir(folder)
        try:
            result.write_text(json.dumps({"value": work(folder)}))
        except Fault as fault:
            result.write_text(json.dumps({"cause": fault.cause, "path": fault.path}))
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if not result.exists():
        raise RuntimeError(f"the process ended with status {status}")
    answer = json.loads(result.read_text())
    if "cause" in answer:
        raise Fault(answer["cause"], answer["path"])
    return answer["value"]


def _import_alone(entry: Entry, text: str, folder: Path) -> None:
    """Raises Fault where the file needs the package, or anything that it does not say."""
    sys.modules.update(dict.fromkeys(BLOCKED))
    path = folder / f"{entry.stem}.py"
    path.write_text(text)
    try:
        _import(entry.stem, path)
    except Exception as error:
        raise Fault(f"{entry.name} does not stand alone: {error!r}", _path(entry.module)) from error


def _import(name: str, path: Path) -> None:
    specification = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module  # where its dataclasses look for their types
    specification.loader.exec_module(module)


def _run_tests(
    entry: Entry,
    text: str,
    borrowed: Mapping[str, list[str]],
    tests: list[Path],
    idle: list[str],
    root: Path,
    folder: Path,
) -> tuple[list[str], dict[str, str], int]:
    """With the file in its module's place: the tests that pass, those that fail and not for a gap, pytest's exit code.

    Those that pass without the module say nothing of it and are left out: `idle`. What the file holds of other modules
    takes its place there, too: a class would not be the same one else.
    """
    import pytest

    source = folder / "src"
    _lay_out(root / "src/zhixing", source / "zhixing")
    _put(source, entry.module, text + GAPS * bool(entry.definition))
    for module, names in borrowed.items():
        original = (root / _path(module)).read_text()
        _put(source, module, f"{original}\n\nfrom {_dotted(entry.module)} import {', '.join(names)}\n")
    # Processes that tests start find the file, too.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(source), str(root / "src")])
    sys.path[:0] = [str(source), str(root / "src")]
    settings = ["-q", "--tb=native", "--disable-plugin-autoload", "-p", "no:cacheprovider"]
    settings += [f"--rootdir={root}", f"--basetemp={folder / 'tests'}"]
    if (root / "pyproject.toml").exists():
        settings += [f"--config-file={root / 'pyproject.toml'}"]
    settings += ["-m", "not mutation and not processes" if entry.definition else "not mutation"]
    tally = Tally(idle)
    code = pytest.main([*settings, *map(str, tests)], plugins=[tally])
    return tally.passed, tally.failed, code


def _put(source: Path, module: str, text: str) -> None:
    path = source / f"zhixing/{module}.py"
    path.unlink()
    path.write_text(text)


def _dotted(module: str) -> str:
    return f"{PACKAGE}.{module.replace('/', '.')}"


def _lay_out(source: Path, target: Path) -> None:
    """The package again, of links to its files."""
    for path in source.rglob("*"):
        link = target / path.relative_to(source)
        if path.is_dir() and not path.is_symlink():
            link.mkdir(parents=True, exist_ok=True)
        elif path.parent.name != "__pycache__":
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.resolve())


class Tally:
    """A plugin of pytest that collects the names of tests that pass, and what others say that fail."""

    def __init__(self, idle: list[str]):
        self.idle = set(idle)
        self.passed: list[str] = []
        self.failed: dict[str, str] = {}

    def pytest_collection_modifyitems(self, items) -> None:
        items[:] = [item for item in items if item.nodeid not in self.idle]

    def pytest_runtest_logstart(self) -> None:
        gap.touched.clear()

    def pytest_runtest_logreport(self, report) -> None:
        if report.passed and report.when == "call" and not gap.touched:
            self.passed.append(report.nodeid)
        self.pytest_collectreport(report)

    def pytest_collectreport(self, report) -> None:
        if report.failed and not gap.touched and not GAP.search(report.longreprtext):
            self.failed.setdefault(report.nodeid, "\n".join(report.longreprtext.splitlines()[-12:]))
