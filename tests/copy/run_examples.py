"""Run docstring examples, of each module or copied file in its own process: `python run_examples.py BLOCKED NAME …`.

A NAME is a module, such as zhixing.activations.gelu, or a file, which runs without access to the package, as do the
processes that it starts: BLOCKED is a folder with modules that take the place of the package and cannot be imported.
Print the failures, and exit with the number of modules and files that failed.
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

import jaxtyping  # noqa: F401 — imported once, before the forks: slow, like the next
import torch._dynamo  # noqa: F401 — torch's optimizers and DDP import it at first use


def load(name: str, blocked: Path):
    if not name.endswith(".py"):
        return importlib.import_module(name)
    sys.modules.update(dict.fromkeys(path.stem for path in blocked.iterdir()))
    sys.path.insert(0, str(blocked))
    os.environ["PYTHONPATH"] = str(blocked)
    specification = importlib.util.spec_from_file_location(Path(name).stem, name)
    module = importlib.util.module_from_spec(specification)
    sys.modules[module.__name__] = module  # dataclasses look up their types there
    specification.loader.exec_module(module)
    return module


def run(name: str, blocked: Path) -> str:
    """Return the report of failed examples; empty if all pass."""
    output = io.StringIO()
    with redirect_stdout(output):
        module = load(name, blocked)
        runner = doctest.DocTestRunner(verbose=False)
        for test in doctest.DocTestFinder().find(module):
            runner.run(test)
        failed = runner.summarize(verbose=False).failed
    return output.getvalue() if failed else ""


def main() -> int:
    failures = 0
    for name in sys.argv[2:]:
        if not (child := os.fork()):
            try:
                report = run(name, Path(sys.argv[1]))
            except BaseException:
                report = traceback.format_exc()
            if report:
                print(f"{name}:\n{report}", flush=True)
            os._exit(bool(report))
        failures += os.waitpid(child, 0)[1] != 0
    return failures


if __name__ == "__main__":
    sys.exit(main())
