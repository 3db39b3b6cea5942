"""The sessions; all run in the environment of nox itself: `pip install -c constraints.txt -e '.[dev]'`."""

import sys
from pathlib import Path

import nox

nox.options.default_venv_backend = "none"


def run(session: nox.Session, program: str, *arguments: str) -> None:
    session.run(str(Path(sys.executable).parent / program), *arguments)


@nox.session
def docs(session: nox.Session) -> None:
    """Run every snippet and build both sites into site/."""
    run(session, "python", "-m", "zhixing_site", "build", *session.posargs)


@nox.session
def serve(session: nox.Session) -> None:
    """Show both sites while writing; what is saved appears by itself."""
    run(session, "python", "-m", "zhixing_site", "serve", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """The library with its shapes checked, its answers to wrong input, the builder, and the code on the pages."""
    hook = "--jaxtyping-packages=zhixing,beartype.beartype"
    run(session, "pytest", "-n2", "--ignore=tests/browser", "-m", "not wrong_input", hook, *session.posargs)
    run(session, "pytest", "--ignore=tests/browser", "-m", "wrong_input")
    # Without the hook as well, which a reader does not have: a page may show our answer to wrong input.
    run(session, "pytest", "-n2", "--markdown-docs", "docs/en")


@nox.session
def browser(session: nox.Session) -> None:
    """The built site in Chromium: pages, search, keyboard, print; failures leave screenshots in build/browser/."""
    run(session, "pytest", "-n2", "tests/browser", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Formatting, common mistakes, spelling."""
    run(session, "ruff", "format", "--check")
    run(session, "ruff", "check")
    run(session, "typos")


@nox.session
def bench(session: nox.Session) -> None:
    """The builder and its pages beside peers; `-- pages` for the pages alone, else what follows is for the builder.

    Needs `pip install -c constraints.txt -e '.[dev,bench]'`, Chromium and npm.
    """
    part, *rest = session.posargs or [""]
    if part != "pages":
        run(session, "python", "benchmarks/build.py", *session.posargs)
    if part in ("pages", ""):
        run(session, "python", "benchmarks/pages.py", *rest)
