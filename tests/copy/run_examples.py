"""Run the examples of modules and of copied files: `python run_examples.py NAME …`, each in a process of its own.

A NAME is a module, as zhixing.activations.gelu, or a file, which is run where the package cannot be imported. Prints
what went wrong, and exits with the number of those that did.
"""

import doctest
import importlib
import importlib.util
import io
import os
import sys
import traceback
from contextlib import redirect_stdout
from pathlib import Path

import jaxtyping  # noqa: F401 — before the forks, like the next: most of the time is theirs
import torch._dynamo  # noqa: F401 — which torch's optimizers and DDP import at first use

BLOCKED = "zhixing", "zhixing_copy", "jaxtyping"


def load(name: str):
    if not name.endswith(".py"):
        return importlib.import_module(name)
    sys.modules.update(dict.fromkeys(BLOCKED))
    specification = importlib.util.spec_from_file_location(Path(name).stem, name)
    module = importlib.util.module_from_spec(specification)
    sys.modules[module.__name__] = module  # where its dataclasses look for their types
    specification.loader.exec_module(module)
    return module


def run(name: str) -> str:
    """What went wrong."""
    said = io.StringIO()
    with redirect_stdout(said):
        module = load(name)
        runner = doctest.DocTestRunner(verbose=False)
        for test in doctest.DocTestFinder().find(module):
            runner.run(test)
        failed = runner.summarize(verbose=False).failed
    return said.getvalue() if failed else ""


def main() -> int:
    wrong = 0
    for name in sys.argv[1:]:
        if not (child := os.fork()):
            try:
                said = run(name)
            except BaseException:
                said = traceback.format_exc()
            if said:
                print(f"{name}:\n{said}", flush=True)
            os._exit(bool(said))
        wrong += os.waitpid(child, 0)[1] != 0
    return wrong


if __name__ == "__main__":
    sys.exit(main())
