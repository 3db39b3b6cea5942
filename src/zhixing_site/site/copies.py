"""The files that readers can copy, at stable addresses below code/ of the site."""

from collections.abc import Mapping

from zhixing_copy.catalogue import CopyError, entries, shortest, write
from zhixing_copy.source import Module
from zhixing_site.errors import BuildError
from zhixing_site.project import site_url
from zhixing_site.store import Files


def copy_files(modules: Mapping[str, Module]) -> tuple[Files, list[BuildError]]:
    """{path: text} of code/activations/gelu.py, code/activations/gelu.gelu_tanh.py, …; errors of those that fail."""
    files, errors = {}, []
    for entry in entries(modules):
        try:
            files[f"code/{entry.name}.py"] = write(entry, modules, site_url())
        except CopyError as error:
            errors.append(BuildError(str(error), f"src/zhixing/{entry.module}.py"))
    return files, errors


def offered(modules: Mapping[str, Module]) -> dict[str, tuple[str, str]]:
    """{"src/zhixing/activations/gelu.py:gelu_tanh": (its file below code/, its name for `zhixing copy`)}."""
    return {
        f"src/zhixing/{entry.module}.py:{entry.definition}": (f"{entry.name}.py", shortest(entry, modules))
        for entry in entries(modules)
    }
