"""Load benchmarks, which are scripts and no package."""

import importlib.util
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


def load(name: str) -> ModuleType:
    """Return the module of benchmarks/<name>.py, which may import others beside it, as when it runs."""
    specification = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    sys.path.insert(0, str(FOLDER))
    try:
        specification.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
    return module


def of_another_triton(wanted: str) -> str:
    """Why a table of what this version compiles says nothing of what is compiled here; nothing if it does."""
    try:
        found = version("triton")
    except PackageNotFoundError:
        return "there is no Triton"
    return "" if found == wanted else f"the table is of Triton {wanted}, here is {found}"
