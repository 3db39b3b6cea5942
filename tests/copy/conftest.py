"""Fixtures: a small package to copy from, and an empty project to copy into."""

import sys
from pathlib import Path

import pytest

from zhixing_copy import cli
from zhixing_copy import project as project_module
from zhixing_copy.catalogue import read_modules

sys.path.append(str(Path(__file__).parent))  # for proof.py

SHAPES = '''\
"""Areas of shapes."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from zhixing.plane.tools import check, half

# As good as it gets.
PI = math.pi
UNUSED = 3


def circle(r: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Area of a circle."""
    check(r)
    return PI * r**2


def triangle(
    base: Float[Tensor, "*shape"],
    height: Float[Tensor, "*shape"],
    *,
    unit: Callable[[Tensor], Tensor] = torch.abs,
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, ""]]:
    """Area of a triangle, and a number."""
    PI = 1  # of this function alone
    return half(unit(base * height)) * PI, torch.zeros(())


@torch.no_grad()
def both(r: Tensor) -> Tensor:
    """A circle, twice."""
    from zhixing.plane.late import twice

    return twice(circle(r))


@both.register
def _(r):
    return r
'''
TOOLS = '''\
"""What areas need."""

import itertools

from torch import Tensor, nn


def check(x: Tensor) -> None:
    """Raises ValueError."""
    if not x.is_floating_point():
        raise ValueError(f"got {x.dtype}")


def half(x: Tensor) -> Tensor:
    return x / _two()


def _two() -> int:
    return next(itertools.islice([1, 2], 1, None))


class Layer(nn.Module):
    """A layer."""
'''
LATE = '"""Late."""\n\n\ndef twice(x):\n    """Two of it."""\n    return 2 * x\n'
FILES = {"plane/shapes": SHAPES, "plane/tools": TOOLS, "plane/late": LATE}


@pytest.fixture(scope="session")
def blocked(tmp_path_factory) -> Path:
    """Return a folder that, in PYTHONPATH, makes the library unavailable to all processes."""
    folder = tmp_path_factory.mktemp("blocked")
    for name in "zhixing", "zhixing_copy", "jaxtyping":
        (folder / f"{name}.py").write_text(f"raise ModuleNotFoundError('{name} is blocked', name='{name}')\n")
    return folder


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """Return the folder of a package of three modules that replaces the installed one."""
    root = tmp_path / "package"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / f"{name}.py").write_text(text)

    for command in cli, project_module:
        monkeypatch.setattr(command, "installed", lambda: read_modules(root))
    return root


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """Return an empty folder, which becomes the working directory."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder
