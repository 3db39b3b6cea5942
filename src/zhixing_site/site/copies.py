"""Write the files that readers can copy, at stable addresses below code/ of the site."""

from collections.abc import Mapping
from pathlib import Path

from zhixing_copy.catalogue import Entry, entries, shortest, write
from zhixing_copy.source import Module
from zhixing_site.errors import BuildError
from zhixing_site.project import site_url


def all_copies(modules: Mapping[str, Module]) -> tuple[dict[Entry, str], list[BuildError]]:
    """{entry: text of its file}, and an error for each file that would not work."""
    files, errors = {}, []
    for entry in entries(modules):
        try:
            files[entry] = write(entry, modules, site_url())
        except ValueError as error:
            errors.append(BuildError(f"{entry.name} cannot be copied: {error}", _path(entry.module)))
    return files, errors


def offered(modules: Mapping[str, Module]) -> dict[str, tuple[str, str]]:
    """{"src/zhixing/activations/gelu.py:gelu_tanh": (its file below code/, its name for `zhixing copy`)}."""
    return {
        f"{_path(entry.module)}:{entry.definition}": (f"{entry.name}.py", shortest(entry, modules))
        for entry in entries(modules)
    }


def write_copies(files: Mapping[Entry, str], site: Path) -> None:
    """Write code/activations/gelu.py, code/activations/gelu.gelu_tanh.py and so on."""
    for entry, text in files.items():
        path = site / "code" / f"{entry.name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _path(module: str) -> str:
    return f"src/zhixing/{module}.py"
