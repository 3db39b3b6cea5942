"""Create virtual environments for tests below .cache/, and reuse them until their requirements change."""

import fcntl
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Iterable
from pathlib import Path

from zhixing_copy.standalone import digest
from zhixing_site.project import file_digest
from zhixing_site.site.notebooks import install_line

FOLDER = Path(".cache/environments")
# Libraries that a GPU build of torch requires in exact versions, which differ between versions of torch.
OF_TORCH = ("cuda-", "nvidia-")


def environment(kind: str, requirements: Iterable[str], root: Path, constraints: str | None = None) -> Path:
    """Return the folder of an environment with these requirements; create it if the one of this kind does not match.

    The default constraints are those of constraints.txt. Only one environment of each kind is kept. A lock makes
    concurrent callers wait.
    """
    wanted = sorted(requirements)
    constraints = (root / "constraints.txt").read_text() if constraints is None else constraints
    project = (root / "pyproject.toml").read_text()
    key = digest("\n".join([sys.version, project, constraints, *wanted]))[:16]
    folder = root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"{kind}-{key}"
    with open(folder / f"{kind}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Create it in place, since its programs contain the interpreter's path; a last file marks it as complete.
        complete = place / "whole"
        if not complete.exists():
            for other in folder.glob(f"{kind}-*"):
                shutil.rmtree(other)
            _make(place, wanted, constraints)
            complete.touch()
    return place


def fresh(root: Path) -> Path:
    """Return an environment with what a notebook's install line installs, from the current working tree."""
    package = root / ".cache/package"
    _, _, wanted = shlex.split(install_line())
    here = wanted.partition(" @ ")[0] + f" @ {package.as_uri()}"  # this working tree, not the hosted repository
    (root / ".cache").mkdir(exist_ok=True)
    with open(root / ".cache/package.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(package, ignore_errors=True)
        generated = shutil.ignore_patterns("*.egg-info", "__pycache__")
        shutil.copytree(root / "src", package / "src", ignore=generated)
        for name in "pyproject.toml", "README.md", "LICENSE":
            shutil.copy(root / name, package)
        files = sorted(path for path in package.rglob("*") if path.is_file())
        current = digest("".join(f"{path} {file_digest(path)}" for path in files))
        place = environment("fresh", [here, "ipykernel"], root)  # readers have Jupyter already
        installed = place / "installed"
        if not installed.exists() or installed.read_text() != current:
            pip = [place / "bin/python", "-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall", package]
            subprocess.run(pip, env=variables(place), check=True)
            installed.write_text(current)
    return place


def variables(place: Path) -> dict[str, str]:
    """Return the environment variables for its programs, without those that set Python's module search path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return kept | {"PATH": f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}"}


def oldest(root: Path) -> tuple[list[str], str]:
    """Return the requirements of the library's tests, and constraints to the oldest allowed versions."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    requirements = project["dependencies"] + project["optional-dependencies"]["tests"]
    bounds = dict(_lower_bound(each) for each in requirements if ">=" in each)
    lines = [line for line in (root / "constraints.txt").read_text().splitlines() if "==" in line]
    kept = [line for line in lines if line.partition("==")[0] not in bounds and not line.startswith(OF_TORCH)]
    return requirements, "".join(f"{line}\n" for line in [*kept, *(f"{name}=={low}" for name, low in bounds.items())])


def _lower_bound(requirement: str) -> tuple[str, str]:
    name, _, rest = requirement.partition(";")[0].partition(">=")
    return name.strip(), rest.strip()


def _make(place: Path, requirements: list[str], constraints: str) -> None:
    venv.create(place, with_pip=True)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(constraints)
        file.flush()
        pip = [place / "bin/python", "-m", "pip", "install", "--quiet", "-c", file.name, *requirements]
        subprocess.run(pip, env=variables(place), check=True)
