"""The project's sessions: `nox -s docs`, `nox -s tests`, `nox -s lint`."""

import nox

nox.options.sessions = ["docs", "tests", "lint"]
nox.options.reuse_venv = "yes"

# One environment for all sessions: torch is installed once.
ENVIRONMENT = ".nox/dev"


def install(session: nox.Session) -> None:
    session.install("-c", "constraints.txt", "-e", ".[dev]")


@nox.session(venv_location=ENVIRONMENT)
def docs(session: nox.Session) -> None:
    """Run every snippet and build both sites into site/."""
    install(session)
    session.run("python", "-m", "zhixing_site", "build", *session.posargs)


@nox.session(venv_location=ENVIRONMENT)
def tests(session: nox.Session) -> None:
    """The library with its shapes checked, its answers to wrong input, and the builder."""
    install(session)
    hook = "--jaxtyping-packages=zhixing,beartype.beartype"
    session.run("pytest", "-n2", "-m", "not wrong_input", hook, *session.posargs)
    session.run("pytest", "-m", "wrong_input")


@nox.session(venv_location=ENVIRONMENT)
def lint(session: nox.Session) -> None:
    """Formatting, common mistakes, spelling."""
    install(session)
    session.run("ruff", "format", "--check")
    session.run("ruff", "check")
    session.run("typos")
