"""The sessions; all run in the environment of nox itself: `pip install -c constraints.txt -e '.[dev]'`."""

import json
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import nox

nox.options.default_venv_backend = "none"
sys.path.insert(0, "tests")  # which has the module `environments`
COSTS = Path("build/costs")

BARE = "wrong_input or compiled"  # the marks of tests that run without the hook


def run(session: nox.Session, program: str, *arguments: str) -> None:
    session.run(str(Path(sys.executable).parent / program), *arguments)


def run_pytest(session: nox.Session, *arguments: str, report: str = "") -> None:
    """With ten minutes for a test, so that one that hangs fails and shows where; the times of tests go to a report."""
    reports = [f"--junitxml={COSTS / report}.xml"] if report else []
    run(session, "pytest", "--timeout=600", *reports, *arguments)


@contextmanager
def costs_told(session: nox.Session):
    """Keep how long this session takes, and end it with a table of what it costs, an article and in all."""
    name, started = session.name, time.monotonic()
    COSTS.mkdir(parents=True, exist_ok=True)
    yield
    (COSTS / f"{name}.json").write_text(json.dumps({"seconds": time.monotonic() - started}))
    run(session, "python", "benchmarks/costs.py")


def hook() -> str:
    """Has shapes checked, but in the modules of Triton kernels, which the check would wrap."""
    paths = sorted(Path("src/zhixing").rglob("*.py"))
    checked = [".".join(path.with_suffix("").parts[1:]) for path in paths if not path.stem.endswith("_triton")]
    return f"--jaxtyping-packages={','.join(checked)},beartype.beartype"


@nox.session
def docs(session: nox.Session) -> None:
    """Run every snippet and build both sites into site/."""
    with costs_told(session):
        run(session, "python", "-m", "zhixing_site", "build", *session.posargs)


@nox.session
def serve(session: nox.Session) -> None:
    """Show both sites while writing; what is saved appears by itself."""
    run(session, "python", "-m", "zhixing_site", "serve", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """The library with its shapes checked, its answers to wrong input, the builder, and the code on the pages."""
    import environments  # not above: nox alone lists the sessions without what it imports

    with costs_told(session):
        environments.fresh(Path.cwd())  # made here once, and not in the time of some test
        library = ["-n2", "--ignore=tests/browser", "-m", f"not ({BARE})", hook()]
        run_pytest(session, *library, *session.posargs, report="tests-library")
        run_pytest(session, "--ignore=tests/browser", "-m", BARE, report="tests-bare")
        # Without the hook as well, which a reader does not have: a page may show our answer to wrong input.
        run_pytest(session, "-n2", "--markdown-docs", "docs/en", report="tests-pages")


@nox.session
def browser(session: nox.Session) -> None:
    """The built site in Chromium: pages, search, keyboard, print; failures leave screenshots in build/browser/."""
    with costs_told(session):
        run_pytest(session, "-n2", "tests/browser", *session.posargs, report="browser-pages")


@nox.session
def lint(session: nox.Session) -> None:
    """Formatting, common mistakes, spelling."""
    run(session, "ruff", "format", "--check")
    run(session, "ruff", "check")
    run(session, "typos")


@nox.session
def portable(session: nox.Session) -> None:
    """Whether snippets hold, print and tell pages the same as other processors would; `-- area/article` for one."""
    run(session, "python", "tests/portable.py", *session.posargs)


@nox.session
def oldest(session: nox.Session) -> None:
    """The library's tests with the oldest versions that pyproject.toml admits, in an environment below .cache/.

    What breaks the code on purpose says nothing of versions; torchvision does not load beside the oldest torch.
    """
    import environments  # not above: nox alone lists the sessions without what it imports

    root = Path.cwd()
    requirements, constraints = environments.oldest(root)
    place = environments.environment("oldest", requirements, root, constraints)
    variables = environments.variables(place) | {"PYTHONPATH": str(root / "src")}
    areas = sorted(path for path in Path("tests").iterdir() if (Path("src/zhixing") / path.name).is_dir())
    pytest = [str(place / "bin/python"), "-m", "pytest", "--timeout=600", *map(str, areas), *session.posargs]
    left = session.run(
        *pytest, "-q", "--collect-only", "-m", "torchvision", env=variables, success_codes=[0, 5], silent=True
    )
    session.log(f"left out: {left.count('::')} tests that need torchvision")
    session.run(*pytest, "-n2", "-m", f"not ({BARE} or torchvision or mutation)", hook(), env=variables)
    session.run(*pytest, "-m", f"({BARE}) and not (torchvision or mutation)", env=variables)


@nox.session
def bench(session: nox.Session) -> None:
    """The builder and its pages beside peers; `-- pages` for the pages alone, else what follows is for the builder.

    `-- articles` times each article's main function beside its reference (or `-- articles activations/gelu …`);
    `-- ddp` records the time lines of the page on DDP anew; `-- attention_cpu` what attention costs on the CPU, and
    `-- attention_compiled` what its kernels compile to for several GPUs; `-- lighthouse` what Lighthouse says of site/.

    Needs `pip install -c constraints.txt -e '.[dev]'`, Chromium and npm.
    """
    part, *rest = session.posargs or [""]
    if part in ("articles", "ddp", "attention_cpu", "attention_compiled", "lighthouse"):
        run(session, "python", f"benchmarks/{part}.py", *rest)
        return
    if part != "pages":
        run(session, "python", "benchmarks/build.py", *session.posargs)
    if part in ("pages", ""):
        run(session, "python", "benchmarks/pages.py", *rest)


@nox.session
def gpu(session: nox.Session) -> None:
    """On a machine with a GPU: the tests of the kernels there, not interpreted, and their speed beside torch's."""
    run_pytest(session, "tests/attention", "-k", "flash", *session.posargs)
    run(session, "python", "benchmarks/attention.py")
