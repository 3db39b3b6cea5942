"""Run snippets, as many at once as there are cores; those whose result is cached do not run again."""

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from zhixing_site.errors import BuildError
from zhixing_site.execution import cache
from zhixing_site.execution.processes import Ending, Limits, ProcessDied, map_parallel, run_watched
from zhixing_site.execution.snippet import Snippet, read_snippet

# What could make two runs of one snippet differ is fixed: the order of sets, the number of threads, and that kernels
# for a GPU are interpreted, whether there is one or not.
ENVIRONMENT = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "MPLBACKEND": "svg", "TRITON_INTERPRET": "1"}


@dataclass(frozen=True)
class Run:
    """The result of one snippet; `ending` tells how the run ended, and is None if the result comes from the cache."""

    snippet: Snippet
    notebook: dict
    ending: Ending | None = None


Report = Callable[[str, Run | BuildError], None]  # called with a snippet's path and result when it is done


def run_all(
    paths: Iterable[Path], root: Path, limits: Limits, report: Report, cached: bool = True
) -> tuple[dict[str, Run], list[BuildError]]:
    """{snippet name: Run} of the snippets that ran well, and the errors of the others."""

    def attempt(path: Path) -> Run | BuildError:
        try:
            result = run_one(path, root, limits, cached)
        except BuildError as error:
            result = error
        report(path.relative_to(root).as_posix(), result)
        return result

    # Python compares a compiled module with its source by time and size, and so misses a quick second edit.
    for folder, _, _ in os.walk(root / "src"):
        if folder.endswith("__pycache__"):
            shutil.rmtree(folder, ignore_errors=True)
    os.environ.update(ENVIRONMENT)  # the fork server keeps what it starts with
    results = map_parallel(attempt, paths)
    runs = {result.snippet.name: result for result in results if isinstance(result, Run)}
    return runs, [result for result in results if isinstance(result, BuildError)]


def run_one(path: Path, root: Path, limits: Limits, cached: bool = True) -> Run:
    """Run one snippet, or take its result from the cache; raises BuildError."""
    snippet = read_snippet(path, root)
    if cached and (notebook := cache.load(snippet, root)):
        return Run(snippet, notebook)
    with tempfile.TemporaryDirectory(prefix="zhixing-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        try:
            (notebook, files, modules), ending = run_watched(partial(_execute, snippet, root), folder, limits)
        except ProcessDied as error:
            raise _located(error, snippet, folder) from None
    notebook["metadata"]["zhixing"]["seconds"] = round(ending.seconds, 2)
    if cached:
        cache.save(notebook, files, modules, snippet, root)
    return Run(snippet, notebook, ending)


def _execute(snippet: Snippet, root: Path, folder: Path) -> tuple:
    """What `execute` returns; leaves in `folder` the name of the `cell` that was begun last."""
    from zhixing_site.execution.executor import execute  # loaded by the fork server; the build does not need it

    return execute(snippet, root, lambda cell: (folder / "cell").write_text(cell.name))


def _located(error: ProcessDied, snippet: Snippet, folder: Path) -> BuildError:
    """The error at the line that the process wrote before it died, or else at the cell that was begun last."""
    cause, log = error.args
    cause = "\n".join([cause, *[line for line in log.splitlines() if line][-12:]])
    if not (folder / "cell").exists():
        return BuildError(cause, snippet.path)
    begun = (folder / "cell").read_text()
    cell = next(cell for cell in snippet.cells if cell.name == begun)
    lines = re.findall(rf'File "[^"]*{re.escape(snippet.path)}", line (\d+)', log)
    return cell.error(cause, int(lines[0]) if lines else 0)
