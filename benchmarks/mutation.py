"""Break the library on purpose, and count how many of each module's mutants its tests notice.

    pip install -c constraints.txt -e '.[dev]'
    pip install cosmic-ray==8.7.0
    python benchmarks/mutation.py [--survivors] [area/module or area …]

A mutant is a module with one change by an operator of cosmic-ray: another number, comparison or sign, a loop without
iterations, a missing decorator. For each module, a sample is drawn with a fixed seed. A mutant is noticed if one of the
module's own tests fails with it; its results replace those of its module in results/mutation.json, and survivors.csv
says of each of the others why no test notices it. Without names, only modules are assessed that have changed since, or
whose tests have. With --survivors, after tests were added, only those mutants are tried again that were not noticed.
"""

import argparse
import ast
import gc
import json
import os
import random
import resource
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

from measure import machine

from zhixing_copy.catalogue import read_modules
from zhixing_copy.source import Module
from zhixing_site.site.evidence import digest, files_that_test

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results" / "mutation.json"
SAMPLE = 40  # mutants of a module
SECONDS = 60  # for a test
MEMORY = 6 * 2**30  # bytes of data of a process
# Mutants that fail without any test: bit operators on floating-point numbers.
BITWISE = ("_RShift", "_LShift", "_BitOr", "_BitAnd", "_BitXor")
# What runs tests, and what many tests import; processes are forks of one that has.
PRELOADED = ["pytest", "anyio.pytest_plugin", "hypothesis.strategies", "beartype", "jaxtyping", "torch._dynamo"]
PRELOADED += ["torchvision", "transformers", "timm", "kornia", "torchmetrics", "scipy.stats", "scipy.optimize"]
PRELOADED += ["sklearn.cluster", "sklearn.linear_model"]
OK, INTERNAL_ERROR, NO_TESTS = 0, 3, 5  # pytest's exit codes


@dataclass(frozen=True)
class Mutant:
    """A changed text of a module, and its changed lines."""

    module: str
    text: str
    change: str


# The mutants


def mutants(module: str, text: str) -> Iterator[Mutant]:
    """Yield the mutants of a module's text in a random order with a fixed seed, without those in annotations."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    places, seen = positions(text), {without_annotations(text), None}
    random.Random(module).shuffle(places)
    for name, occurrence in places:
        mutant = mutate_code(text, get_operator(name)(), occurrence)
        if mutant and (code := without_annotations(mutant)) not in seen:
            seen.add(code)
            yield Mutant(module, mutant, change(text, mutant))


def positions(text: str) -> list[tuple[str, int]]:
    """Return each operator's name with the number of each of its places in the text."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator, operator_names

    nodes, found = [*ast_nodes(get_ast(text))], []
    for name in sorted(operator_names()):
        operator = get_operator(name)
        if not (operator.arguments() or name.endswith((*BITWISE, "no-op"))):
            count = sum(len([*operator().mutation_positions(node)]) for node in nodes)
            found += [(name, occurrence) for occurrence in range(count)]
    return found


def without_annotations(text: str) -> str | None:
    """Return the code's syntax tree, by which mutants are told apart; None for invalid code.

    It says nothing of the kinds of parameters either: cosmic-ray takes the `*` between them for an operator.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # such as "is" with a literal
            tree = ast.parse(text)
    except SyntaxError:
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign):
            node.annotation = ast.Constant(None)
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        if isinstance(node, ast.arguments):
            node.args = [*node.posonlyargs, *node.args, *node.kwonlyargs]
            node.defaults = [*node.defaults, *node.kw_defaults]
            node.posonlyargs, node.kwonlyargs, node.kw_defaults = [], [], []
    return ast.dump(tree)


def change(text: str, mutant: str) -> str:
    """Return the number of the first line that differs, and both versions of it."""
    old, new = text.splitlines(), mutant.splitlines()
    line = next((n for n, pair in enumerate(zip(old, new, strict=False)) if pair[0] != pair[1]), len(new))
    return f"{line + 1}: {old[line].strip()} → {new[line].strip() if line < len(new) else ''}"


# Running the tests


class QuickestFirst:
    """A plugin of pytest that sorts tests by the seconds that they took in an earlier run."""

    def __init__(self, earlier: dict[str, float]):
        self.earlier, self.seconds = earlier, {}

    def pytest_collection_modifyitems(self, items: list) -> None:
        items.sort(key=lambda item: self.earlier.get(item.nodeid, 0))

    def pytest_runtest_logreport(self, report) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0) + report.duration


def noticed(mutant: Mutant, tests: list[str], seconds: dict[str, float]) -> tuple[bool, dict[str, float]]:
    """Return whether a test fails with the mutant, in a copy of the repository, and the seconds of each test."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        root = Path(folder).resolve()
        copy(ROOT, root)
        (root / "src/zhixing" / f"{mutant.module}.py").write_text(mutant.text)
        os.chdir(root)
        os.environ |= {"PYTHONPATH": str(root / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
        sys.path.insert(0, str(root / "src"))
        return run_tests(tests, seconds), {key: s for path in root.glob("*.seconds") for key, s in read(path).items()}


def copy(root: Path, target: Path) -> None:
    """Copy the library and the tests, and link everything else."""
    for path in root.iterdir():
        if path.name in ("src", "tests"):
            shutil.copytree(path, target / path.name, ignore=shutil.ignore_patterns("__pycache__", "browser", "fuzz"))
        elif not path.name.startswith("."):
            (target / path.name).symlink_to(path)


def read(path: Path) -> dict[str, float]:
    return json.loads(path.read_text())


def run_tests(tests: list[str], seconds: dict[str, float]) -> bool:
    """Run the tests until one fails, first with shapes checked, then those that run without the check."""
    sys.path.append(str(ROOT))
    from noxfile import BARE, hook  # the latter reads the modules of the current folder

    bare = ["-m", f"({BARE}) and not mutation"]
    hooked = ["-m", f"not ({BARE} or mutation)", hook()]
    return any(fails([*options, *tests], seconds) for options in (hooked, bare))


def fails(arguments: list[str], seconds: dict[str, float]) -> bool:
    """Run pytest in a fork, which imports the library anew; it fails too if a conftest.py cannot import a mutant."""
    child = os.fork()
    if not child:
        try:
            run_pytest(arguments, seconds)
        finally:
            os._exit(INTERNAL_ERROR)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) not in (OK, NO_TESTS)


def run_pytest(arguments: list[str], seconds: dict[str, float]) -> None:
    import pytest

    gc.freeze()  # pytest collects garbage, for which what is preloaded is too much
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    options = ["-x", "-q", f"--timeout={SECONDS}", "-p", "no:cacheprovider", "-p", "no:xdist"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # for plugins that are imported already
    plugin = QuickestFirst(seconds)
    code = pytest.main([*options, *arguments], [plugin])
    Path(f"{os.getpid()}.seconds").write_text(json.dumps(plugin.seconds))
    os._exit(code)


# The report


def chosen(names: list[str], modules: dict[str, Module]) -> Iterator[tuple[str, list[str]]]:
    """Yield each module below the names (all modules if there are none), and its test files."""
    for module in sorted(modules):
        if not names or any(f"{module}/".startswith(f"{name}/") for name in names):
            tests = [path.relative_to(ROOT).as_posix() for path in files_that_test(module, modules, ROOT)]
            if tests:
                yield module, tests


def assess(module: str, tests: list[str], again: list[str] | None) -> dict | None:
    """Try a sample of the module's mutants; return how many were tried and noticed, and which were not.

    Only the mutants with the changes `again` are tried, if given and all among the sample: the others were noticed.
    None if a test fails even without a change.
    """
    text = (ROOT / "src/zhixing" / f"{module}.py").read_text()
    sample = [*islice(mutants(module, text), SAMPLE)]
    tried = [mutant for mutant in sample if mutant.change in (again or ())]
    if again is None or {mutant.change for mutant in tried} != {*again}:
        tried = sample
    options = {"max_workers": os.cpu_count(), "mp_context": CONTEXT, "max_tasks_per_child": 1}
    with ProcessPoolExecutor(**options) as executor:
        unchanged, seconds = executor.submit(noticed, Mutant(module, text, ""), tests, {}).result()
        if unchanged:
            return None
        results = executor.map(partial(noticed, tests=tests, seconds=seconds), tried)
        survivors = sorted(mutant.change for mutant, (found, _) in zip(tried, results, strict=True) if not found)
    return {"tried": len(sample), "noticed": len(sample) - len(survivors), "survivors": survivors}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", help="area/module or area (default: all)")
    parser.add_argument("--survivors", action="store_true", help="try only those again that were not noticed")
    options = parser.parse_args()
    recorded = json.loads(RESULTS.read_text())["modules"] if RESULTS.exists() else {}
    modules = read_modules(ROOT / "src/zhixing")
    for module, tests in chosen(options.modules, modules):
        known = recorded.get(module, {})
        if not options.modules and known.get("digest") == digest(module, modules, ROOT):
            continue
        again = known.get("survivors") if options.survivors else None
        if again == []:
            continue
        result = assess(module, tests, again)
        if not result:
            print(f"not assessed, since its tests fail without any change: {module}", flush=True)
            continue
        recorded[module] = {"digest": digest(module, modules, ROOT)} | result
        lines = [f"{result['noticed']:3} of {result['tried']} mutants noticed: {module}"]
        print(*lines, *(f"    {change}" for change in result["survivors"]), sep="\n", flush=True)
        facts = machine() | {"cosmic-ray": version("cosmic-ray")}
        report = {"machine": facts, "modules": dict(sorted(recorded.items()))}
        RESULTS.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    tried, found = (sum(each[key] for each in recorded.values()) for key in ("tried", "noticed"))
    print(f"{found} of {tried} noticed, {found / max(tried, 1):.1%}")


os.environ |= {"OMP_NUM_THREADS": "1", "TRITON_INTERPRET": "1"}  # as in tests/conftest.py, before what is preloaded
CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(PRELOADED)

if __name__ == "__main__":
    main()
