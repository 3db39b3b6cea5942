"""Use copied files as their users do: in programs and processes that cannot import the library."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from zhixing_copy import cli
from zhixing_copy.catalogue import entries, installed, read


@pytest.fixture
def zhixing(project) -> Callable[..., None]:
    """Return a function that runs the command in an empty project."""

    def zhixing(*arguments: str) -> None:
        assert cli.main(list(arguments)) == 0

    return zhixing


@pytest.fixture
def run(project, blocked):
    """Return a function that runs a program in the project, without the library."""

    def run(program: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        (project / "program.py").write_text(program)
        environment = {"PYTHONPATH": str(blocked), **environment}
        return subprocess.run(
            [sys.executable, *(arguments or ["program.py"])],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def test_library_is_not_there(run):
    program = """\
import subprocess, sys
for name in "zhixing", "zhixing.activations.gelu", "zhixing_copy", "jaxtyping":
    assert subprocess.run([sys.executable, "-c", f"import {name}"], capture_output=True).returncode == 1
import zhixing
"""
    assert run(program).stderr.endswith("ModuleNotFoundError: zhixing is blocked\n")


def test_each_name_in_the_list_is_copied(zhixing, project, capsys):
    zhixing("list")
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    for number, name in enumerate(listed):
        zhixing("copy", name, "--to", f"file{number}.py")
    files = [read((project / f"file{number}.py").read_text()) for number in range(len(listed))]
    assert [file.fields["name"] for file in files] == [entry.name for entry in entries(installed())]
    assert all(file.intact for file in files)


def test_no_file_gets_a_name_that_cannot_be_imported_or_hides_a_module(zhixing, capsys):
    for entry in entries(installed()):
        zhixing("copy", entry.name, "--to", f"{entry.name}/")
    assert capsys.readouterr().err == ""


USE = """\
from launch import launch


def rank():
    import sys

    return dist.get_rank(), [name for name in ("zhixing", "jaxtyping") if name in sys.modules]


def total():
    x = torch.ones(3)
    dist.all_reduce(x)
    return x


print(launch(rank, total, ranks=2))
"""


def test_launch(zhixing, run):
    zhixing("copy", "launch.launch")
    done = run(USE)
    assert done.stdout == ("{'rank': [(0, []), (1, [])], 'total': [tensor([2., 2., 2.]), tensor([2., 2., 2.])]}\n"), (
        done.stderr
    )


def test_torchrun_in_a_file_near_the_root_and_in_a_notebook(zhixing, run):
    """The code of a notebook's cell is in no file."""
    with tempfile.NamedTemporaryFile(suffix=".py", prefix="near_the_root_", dir=tempfile.gettempdir()) as file:
        path = Path(file.name)
        zhixing("copy", "torchrun", "--to", "torchrun.py")
        path.write_text(Path("torchrun.py").read_text())
        program = f"""\
import sys
sys.path.insert(0, {str(path.parent)!r})
from {path.stem} import torchrun
print(torchrun("--no-python", "echo", "hello", ranks=2), end="")
space = {{"__name__": "__main__"}}
exec(open("torchrun.py").read(), space)
print(space["torchrun"]("--no-python", "echo", "again", ranks=1), end="")
"""
        done = run(program)
    assert done.stdout == "hello\nhello\nagain\n", done.stderr


def test_training_script(zhixing, run):
    zhixing("copy", "engineering/ddp_train", "--to", "train.py")
    torchrun = "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"
    done = run("", *torchrun, "train.py", "--epochs=1", OMP_NUM_THREADS="1")
    assert done.stdout.startswith("epoch 1: loss "), done.stderr
    assert Path("checkpoint.pt").is_file()


def test_kernels_without_triton(zhixing, run, project, capsys):
    names = {"a": "flash_attention", "b": "attention/flash_attention", "c": "flash_attention_triton"}
    for file, name in names.items():
        zhixing("copy", name, "--to", f"{file}.py")
        assert capsys.readouterr().out.endswith("; needs torch, triton\n")
    (project / "triton.py").write_text("raise ModuleNotFoundError('No module named triton', name='triton')\n")
    program = """\
for name in "abc":
    try:
        __import__(name)
    except ModuleNotFoundError as error:
        print(error.name, error.__suppress_context__, error)
"""
    message = "triton True flash_attention needs Triton, available for Linux: pip install triton\n"
    done = run(program)
    assert done.stdout == 3 * message, done.stderr


def test_kernels_alone(zhixing, run):
    """This module has no public definition, and so no example."""
    module = "attention/flash_attention_triton"
    assert not installed()[module].public
    zhixing("copy", module, "--to", "kernels.py")
    program = """\
import torch
from kernels import _launch_forward
q = k = torch.zeros(1, 1, 4, 16)
v = torch.arange(4.0).view(1, 1, 4, 1).expand(q.shape).contiguous()
out, lse = _launch_forward(q, k, v, True, 0.25)
print(out[0, 0, :, 0].tolist(), lse.exp().round().flatten().tolist())
"""
    done = run(program, TRITON_INTERPRET="1", CUDA_VISIBLE_DEVICES="")
    assert done.stdout == "[0.0, 0.5, 1.0, 1.5] [1.0, 2.0, 3.0, 4.0]\n", done.stderr
