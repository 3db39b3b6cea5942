"""Make virtual environments for tests below .cache/, which are kept while nothing changes that they were made from."""

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
# Libraries that a build of torch for GPUs names by exact versions: each torch brings its own.
OF_TORCH = ("cuda-", "nvidia-")


def environment(kind: str, requirements: Iterable[str], root: Path, constraints: str | None = None) -> Path:
    """The folder of an environment with these requirements, which is made if there is none of this kind that fits.

    The constraints are by default those of constraints.txt. Only one environment of a kind is kept; of two processes
    that ask for it at the same time, one waits for the other.
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
        # Not made elsewhere and renamed: its programs name the interpreter by its path. A half-made one lacks a file.
        whole = place / "whole"
        if not whole.exists():
            for other in folder.glob(f"{kind}-*"):
                shutil.rmtree(other)
            _make(place, wanted, constraints)
            whole.touch()
    return place


def fresh(root: Path) -> Path:
    """The folder of an environment with what the one line of a notebook installs: the package as it is now."""
    package = root / ".cache/package"
    _, _, wanted = shlex.split(install_line())
    here = wanted.partition(" @ ")[0] + f" @ {package.as_uri()}"  # this working tree, not what is hosted
    (root / ".cache").mkdir(exist_ok=True)
    with open(root / ".cache/package.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(package, ignore_errors=True)
        made = shutil.ignore_patterns("*.egg-info", "__pycache__")  # by Python and pip, from the source
        shutil.copytree(root / "src", package / "src", ignore=made)
        for name in "pyproject.toml", "README.md", "LICENSE":
            shutil.copy(root / name, package)
        files = sorted(path for path in package.rglob("*") if path.is_file())
        now = digest("".join(f"{path} {file_digest(path)}" for path in files))
        place = environment("fresh", [here, "ipykernel"], root)  # readers have Jupyter already
        installed = place / "installed"
        if not installed.exists() or installed.read_text() != now:
            pip = [place / "bin/python", "-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall", package]
            subprocess.run(pip, env=variables(place), check=True)
            installed.write_text(now)
    return place


def variables(place: Path) -> dict[str, str]:
    """The variables for the environment's programs, without those that tell Python where to find our modules."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return kept | {"PATH": f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}"}


def oldest(root: Path) -> tuple[list[str], str]:
    """What the library's tests need, and constraints by which it is the oldest that pyproject.toml admits."""
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
