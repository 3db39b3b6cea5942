"""The notebooks and scripts that readers download, in an environment that has only what their one line installs."""

import fcntl
import json
import os
import shlex
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import nbclient
import nbformat
import pytest

from zhixing_site.lab import install_line, notebook_file, script_file
from zhixing_site.page import read_pages
from zhixing_site.run import Run
from zhixing_site.snippet import read_snippet, snippet_paths

ROOT = Path(__file__).resolve().parents[2]
SNIPPETS = [read_snippet(path, ROOT) for path in snippet_paths(ROOT)]
PAGES = read_pages(ROOT, "en")
EACH = pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet.name.removesuffix(".py"))


@pytest.fixture(scope="session")
def environment(tmp_path_factory) -> dict[str, str]:
    """The variables in which programs of a fresh environment run; made once for all workers of xdist."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    place, package = root / "fresh", root / "package"
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    variables |= {
        "PATH": f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PIP_CONSTRAINT": str(ROOT / "constraints.txt"),
        "MPLBACKEND": "svg",
        "OMP_NUM_THREADS": "1",
    }
    with open(root / "fresh.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not package.exists():
            shutil.copytree(ROOT / "src", package / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
            for name in "pyproject.toml", "README.md", "LICENSE":
                shutil.copy(ROOT / name, package)
            venv.create(place, with_pip=True)
            _, _, wanted = shlex.split(install_line())
            here = wanted.partition(" @ ")[0] + f" @ {package.as_uri()}"  # as it stands, and not as it is hosted
            for needed in here, "ipykernel":  # Jupyter is the reader's own
                pip = [place / "bin/python", "-m", "pip", "install", "--quiet", needed]
                done = subprocess.run(pip, env=variables, capture_output=True, text=True, check=False)
                assert done.returncode == 0, done.stderr
    return variables


def run_of(snippet) -> Run:
    """A run of which nothing is known."""
    cells = [nbformat.v4.new_code_cell(cell.source, id=cell.name) for cell in snippet.cells]
    return Run(snippet, nbformat.v4.new_notebook(cells=cells))


@EACH
def test_notebook_runs(environment, snippet, tmp_path, monkeypatch):
    for name in set(os.environ) - set(environment):
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    # The client would start its own Python for what a kernel calls `python`.
    kernel = {"argv": [str(fresh(environment) / "bin/python"), "-m", "ipykernel_launcher", "-f", "{connection_file}"]}
    specification = tmp_path / "kernels/python3/kernel.json"
    specification.parent.mkdir(parents=True)
    specification.write_text(json.dumps({**kernel, "display_name": "Python 3", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    article = PAGES[snippet.name.removesuffix(".py")]
    notebook = nbformat.reads(notebook_file(article, run_of(snippet)), as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell("import sys, zhixing\nprint(sys.prefix, zhixing.__file__)"))
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    _, *cells, place = notebook.cells
    for cell, written in zip(cells, snippet.cells, strict=True):
        errors = [output.ename for output in cell.outputs if output.output_type == "error"]
        assert errors == [written.raises] * bool(written.raises)
    assert place.outputs[0].text.count(str(fresh(environment))) == 2


def fresh(environment) -> Path:
    return Path(environment["PATH"].partition(os.pathsep)[0]).parent


@EACH
def test_script_runs(environment, snippet, tmp_path):
    script = tmp_path / "downloaded.py"
    script.write_text(script_file(PAGES[snippet.name.removesuffix(".py")], run_of(snippet)))
    done = subprocess.run(
        ["python", script.name], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr


def test_environment_is_fresh(environment):
    program = "import zhixing, sys; print(zhixing.__file__); import zhixing_site"
    done = subprocess.run(["python", "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert str(fresh(environment)) in done.stdout
    assert "No module named 'zhixing_site'" in done.stderr
    assert sys.prefix not in done.stdout
