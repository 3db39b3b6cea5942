"""Run snippets: from the cache where it holds, else each in its own processes, as many at once as there are cores."""

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from zhixing_site.errors import BuildError
from zhixing_site.execution import cache
from zhixing_site.execution.processes import Ending, Limits, SuddenEnd, all_at_once, in_watched_process
from zhixing_site.execution.snippet import Snippet, read_snippet

# What could make two runs of one snippet differ is fixed: the order of sets, the number of threads, and that kernels
# for a GPU are interpreted, whether there is one or not.
ENVIRONMENT = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "MPLBACKEND": "svg", "TRITON_INTERPRET": "1"}


@dataclass(frozen=True)
class Run:
    """One snippet's result; `ending` says how the run went, and is None where the result comes from the cache."""

    snippet: Snippet
    notebook: dict
    ending: Ending | None = None

    @property
    def seconds(self) -> float:
        """The processor time that the run took, when it ran."""
        return self.notebook["metadata"]["zhixing"]["seconds"]


Report = Callable[[str, Run | BuildError], None]  # called with a snippet's path and result when it is done


def run_all(
    paths: Iterable[Path], root: Path, limits: Limits, report: Report, cached: bool = True
) -> tuple[dict[str, Run], list[BuildError]]:
    """{snippet name: Run}, and the error of every snippet that went wrong."""

    def attempt(path: Path) -> Run | BuildError:
        try:
            result = run_one(path, root, limits, cached)
        except BuildError as error:
            result = error
        report(path.relative_to(root).as_posix(), result)
        return result

    # A compiled module is told from its source by time and size, which miss a quick second edit.
    for folder, _, _ in os.walk(root / "src"):
        if folder.endswith("__pycache__"):
            shutil.rmtree(folder, ignore_errors=True)
    os.environ.update(ENVIRONMENT)  # the fork server keeps what it starts with
    results = all_at_once(attempt, paths)
    runs = {result.snippet.name: result for result in results if isinstance(result, Run)}
    return runs, [result for result in results if isinstance(result, BuildError)]


def run_one(path: Path, root: Path, limits: Limits, cached: bool = True) -> Run:
    """Reads and writes the cache where `cached`; raises BuildError."""
    snippet = read_snippet(path, root)
    if cached and (notebook := cache.load(snippet, root)):
        return Run(snippet, notebook)
    with tempfile.TemporaryDirectory(prefix="zhixing-", ignore_cleanup_errors=True) as folder:
        try:
            notebook, ending = in_watched_process(partial(_execute, snippet, root), Path(folder), limits)
        except SuddenEnd as end:
            raise _located(end, snippet, Path(folder)) from None
    notebook["metadata"]["zhixing"]["seconds"] = round(ending.seconds, 2)
    if cached:
        cache.store(notebook, snippet, root)
    return Run(snippet, notebook, ending)


def _execute(snippet: Snippet, root: Path, folder: Path) -> dict:
    """The executed notebook; leaves in `folder` the `cell` that was begun last."""
    from zhixing_site.execution.executor import (
        SnippetExecutor,  # not above: the build itself never imports what a run needs
    )

    sys.argv = [snippet.path]
    return SnippetExecutor(snippet, root).execute(lambda cell: (folder / "cell").write_text(cell.name))


def _located(end: SuddenEnd, snippet: Snippet, folder: Path) -> BuildError:
    """At the line where the process was, if it could say so, else at the cell that was begun last."""
    if not (folder / "cell").exists():
        return BuildError(str(end), snippet.path)
    begun = (folder / "cell").read_text()
    cell = next(cell for cell in snippet.cells if cell.name == begun)
    places = re.findall(rf'File "[^"]*{re.escape(snippet.path)}", line (\d+)', end.log)
    return BuildError(str(end), snippet.path, int(places[0]) if places else cell.line, cell.name)


def all_cached(paths: Iterable[Path], root: Path) -> bool:
    """Whether no snippet has to run."""
    try:
        return all(cache.load(read_snippet(path, root), root) for path in paths)
    except BuildError:
        return False
