"""Nox sessions, which run in the environment of nox itself: `pip install -c constraints.txt -e '.[dev]'`."""

import json
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import nox

nox.options.default_venv_backend = "none"
sys.path.insert(0, "tests")  # for environments.py
COSTS = Path("build/costs")

BARE = "wrong_input or compiled"  # marks of tests that run without the import hook


def run(session: nox.Session, program: str, *arguments: str) -> None:
    session.run(str(Path(sys.executable).parent / program), *arguments)


def run_pytest(session: nox.Session, *arguments: str, report: str = "") -> None:
    """Run pytest, with a time limit of ten minutes for each test; write the times of the tests to a report."""
    reports = [f"--junitxml={COSTS / report}.xml"] if report else []
    run(session, "pytest", "--timeout=600", *reports, *arguments)


@contextmanager
def report_costs(session: nox.Session):
    """Record the duration of this session, and print a table of costs, per article and in total."""
    name, started = session.name, time.monotonic()
    COSTS.mkdir(parents=True, exist_ok=True)
    yield
    (COSTS / f"{name}.json").write_text(json.dumps({"seconds": time.monotonic() - started}))
    run(session, "python", "benchmarks/costs.py")


def hook() -> str:
    """Return the pytest option that checks shapes, except in Triton modules, whose kernels the check would wrap."""
    paths = sorted(Path("src/zhixing").rglob("*.py"))
    checked = [".".join(path.with_suffix("").parts[1:]) for path in paths if not path.stem.endswith("_triton")]
    return f"--jaxtyping-packages={','.join(checked)},beartype.beartype"


@nox.session
def docs(session: nox.Session) -> None:
    """Run every snippet and build both sites into site/."""
    with report_costs(session):
        run(session, "python", "-m", "zhixing_site", "build", *session.posargs)


@nox.session
def serve(session: nox.Session) -> None:
    """Preview both sites; pages reload when files are saved."""
    run(session, "python", "-m", "zhixing_site", "serve", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Test the library with shapes checked, its errors for wrong input, the builder, and the code on the pages."""
    import environments  # here, since `nox --list` works without its dependencies

    with report_costs(session):
        environments.fresh(Path.cwd())  # once, and not in the time of a test
        library = ["-n2", "--ignore=tests/browser", "-m", f"not ({BARE})", hook()]
        run_pytest(session, *library, *session.posargs, report="tests-library")
        run_pytest(session, "--ignore=tests/browser", "-m", BARE, report="tests-bare")
        # Without the hook, as for readers: a page may show our error for wrong input.
        run_pytest(session, "-n2", "--markdown-docs", "docs/en", report="tests-pages")


@nox.session
def browser(session: nox.Session) -> None:
    """Test the built site in Chromium: pages, search, keyboard, print; failures leave screenshots in build/browser/."""
    with report_costs(session):
        run_pytest(session, "-n2", "tests/browser", *session.posargs, report="browser-pages")


@nox.session
def lint(session: nox.Session) -> None:
    """Check formatting, common mistakes and spelling."""
    run(session, "ruff", "format", "--check")
    run(session, "ruff", "check")
    run(session, "typos")


@nox.session
def portable(session: nox.Session) -> None:
    """Compare success, output and quoted values of snippets on other instruction sets; `-- area/article` for one."""
    run(session, "python", "tests/portable.py", *session.posargs)


@nox.session
def oldest(session: nox.Session) -> None:
    """Run the library's tests with the oldest versions that pyproject.toml allows, in an environment below .cache/.

    Tests that break the code on purpose do not depend on versions; torchvision does not load with the oldest torch.
    """
    import environments  # here, since `nox --list` works without its dependencies

    root = Path.cwd()
    requirements, constraints = environments.oldest(root)
    place = environments.environment("oldest", requirements, root, constraints)
    variables = environments.variables(place) | {"PYTHONPATH": str(root / "src")}
    areas = sorted(path for path in Path("tests").iterdir() if (Path("src/zhixing") / path.name).is_dir())
    pytest = [str(place / "bin/python"), "-m", "pytest", "--timeout=600", *map(str, areas), *session.posargs]
    skipped = session.run(
        *pytest, "-q", "--collect-only", "-m", "torchvision", env=variables, success_codes=[0, 5], silent=True
    )
    session.log(f"left out: {skipped.count('::')} tests that need torchvision")
    session.run(*pytest, "-n2", "-m", f"not ({BARE} or torchvision or mutation)", hook(), env=variables)
    session.run(*pytest, "-m", f"({BARE}) and not (torchvision or mutation)", env=variables)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Throw damaged pages, snippets, modules, tables, file names and copies at the builder and at `zhixing`.

    `-- --minutes 20` instead of five; `-- --seed 7 --mutants 1` for the mutant of a finding alone.
    """
    run(session, "python", "tests/fuzz/fuzz.py", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Compare the builder and its pages with alternatives; `-- pages` for the pages alone, or options for the builder.

    `-- articles` times each article's main function and its reference (or `-- articles activations/gelu …`). `-- ddp`
    records the timelines of the page on DDP again, `-- attention_cpu` the cost of attention on the CPU, and
    `-- attention_compiled` properties of its compiled kernels for several GPUs, `-- linear_attention_compiled` those of
    linear attention, `-- selective_scan_compiled` those of the selective scan. `-- lighthouse` scores site/,
    `-- mutation` the tests (which needs cosmic-ray too, and hours).

    Needs `pip install -c constraints.txt -e '.[dev]'`, Chromium and npm.
    """
    part, *rest = session.posargs or [""]
    compiled = ("attention_compiled", "linear_attention_compiled", "selective_scan_compiled")
    if part in ("articles", "ddp", "attention_cpu", *compiled, "lighthouse", "mutation"):
        run(session, "python", f"benchmarks/{part}.py", *rest)
        return
    if part != "pages":
        run(session, "python", "benchmarks/build.py", *session.posargs)
    if part in ("pages", ""):
        run(session, "python", "benchmarks/pages.py", *rest)


@nox.session
def gpu(session: nox.Session) -> None:
    """On a machine with a GPU: test the compiled kernels, and time them beside other implementations."""
    run_pytest(session, "tests/attention", "tests/sequence", "-k", "flash or fused", *session.posargs)
    run(session, "python", "benchmarks/attention.py")
    run(session, "python", "benchmarks/linear_attention.py")
    run(session, "python", "benchmarks/selective_scan.py")
