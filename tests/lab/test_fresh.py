"""Run the scripts and notebooks that readers download, in an environment with only what their install line installs.

Scripts include hidden cells, and run as on the oldest processor that the libraries support.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import environments
import nbclient
import nbformat
import pytest
from portable import lowest

from zhixing_site.content.page import read_pages
from zhixing_site.execution.runner import Run
from zhixing_site.execution.snippet import read_snippet, snippet_paths
from zhixing_site.site.notebooks import notebook_file, script_file

ROOT = Path(__file__).resolve().parents[2]
SNIPPETS = {path.relative_to(ROOT / "snippets").with_suffix("").as_posix(): path for path in snippet_paths(ROOT)}
PAGES = read_pages(ROOT, "en")
# One of each kind: figures, a Triton kernel, its own processes. The scripts test the cells of all articles.
NOTEBOOKS = ["activations/gelu", "attention/flash_attention", "engineering/ddp"]


@pytest.fixture(scope="session")
def fresh() -> Path:
    return environments.fresh(ROOT)


def environ(place: Path) -> dict[str, str]:
    return environments.variables(place) | lowest() | {"MPLBACKEND": "svg", "OMP_NUM_THREADS": "1"}


def run_of(article: str) -> Run:
    """Return a run without outputs."""
    snippet = read_snippet(SNIPPETS[article], ROOT)
    cells = [nbformat.v4.new_code_cell(cell.source, id=cell.name) for cell in snippet.cells]
    return Run(snippet, nbformat.v4.new_notebook(cells=cells))


@pytest.mark.parametrize("article", NOTEBOOKS)
def test_notebook_runs(fresh, article, tmp_path, monkeypatch):
    for name in set(os.environ) - set(environ(fresh)):
        monkeypatch.delenv(name)
    for name, value in environ(fresh).items():
        monkeypatch.setenv(name, value)
    # The client would start its own Python if the kernel's program were just `python`.
    kernel = {"argv": [str(fresh / "bin/python"), "-m", "ipykernel_launcher", "-f", "{connection_file}"]}
    specification = tmp_path / "kernels/python3/kernel.json"
    specification.parent.mkdir(parents=True)
    specification.write_text(json.dumps({**kernel, "display_name": "Python 3", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    run = run_of(article)
    notebook = nbformat.reads(notebook_file(PAGES[article], run), as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell("import sys, zhixing\nprint(sys.prefix, zhixing.__file__)"))
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    _, *cells, location = notebook.cells
    for cell, source in zip(cells, run.snippet.cells, strict=True):
        errors = [output.ename for output in cell.outputs if output.output_type == "error"]
        assert errors == [source.raises] * bool(source.raises)
    # A kernel may split the output of one print call.
    assert "".join(output.text for output in location.outputs).count(str(fresh)) == 2


@pytest.mark.parametrize("article", SNIPPETS)
def test_script_runs(fresh, article, tmp_path):
    script = tmp_path / "downloaded.py"
    script.write_text(script_file(PAGES[article], run_of(article)))
    done = subprocess.run(
        ["python", script.name],
        env=environ(fresh),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_environment_is_fresh(fresh):
    program = "import zhixing, sys; print(zhixing.__file__); import zhixing_site"
    done = subprocess.run(["python", "-c", program], env=environ(fresh), capture_output=True, text=True, check=False)
    assert str(fresh) in done.stdout
    assert "No module named 'zhixing_site'" in done.stderr
    assert sys.prefix not in done.stdout


def test_scripts_run_as_on_an_old_processor(fresh):
    program = "import torch; print(torch.backends.cpu.get_cpu_capability())"
    done = subprocess.run(["python", "-c", program], env=environ(fresh), capture_output=True, text=True, check=True)
    assert done.stdout == "DEFAULT\n"
