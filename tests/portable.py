"""Run snippets as on other processors: `python tests/portable.py [area/article or area …]`.

Each snippet runs with each set of instructions that this processor supports, and the results are compared.

ATen, MKL, oneDNN and NumPy choose instructions when they are loaded; other instructions change the order of summation.
So each setting has its own process, with its own fork server.
"""

import difflib
import multiprocessing
import os
import platform
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from zhixing_site.content.expand import Expander, output_text
from zhixing_site.content.page import VALUE, Page, read_pages
from zhixing_site.errors import BuildError
from zhixing_site.execution.processes import Limits
from zhixing_site.execution.runner import run_all
from zhixing_site.execution.snippet import snippet_paths
from zhixing_site.project import LANGUAGES

MAX_DIFFERENCE = 8  # lines shown of a difference in output

Outcome = dict | BuildError  # an executed notebook, or the error that ended the run


def settings() -> dict[str, dict[str, str] | None]:
    """Return {name: environment variables that select these instructions, or None if this processor lacks them}."""
    found = _dispatched()
    intel = platform.machine() in ("x86_64", "AMD64")
    newer = [name for name in found if re.search("AVX512|AVX10|V4", name)]
    return {
        "own instructions": {},
        "AVX2": _keep_to("avx2", "AVX2", "AVX2", newer) if {"AVX2", "X86_V3"} & {*found} else None,
        "SSE": lowest() if intel else None,
        "MKL_CBWR=COMPATIBLE": {"MKL_CBWR": "COMPATIBLE"} if intel else None,
    }


def lowest() -> dict[str, str]:
    """Return the variables with which a program runs as on the oldest processor that the libraries support."""
    return _keep_to("default", "SSE4_2", "SSE41", _dispatched())


def _keep_to(aten: str, mkl: str, onednn: str, disabled: list[str]) -> dict[str, str]:
    return {
        "ATEN_CPU_CAPABILITY": aten,
        "MKL_ENABLE_INSTRUCTIONS": mkl,
        "ONEDNN_MAX_CPU_ISA": onednn,
        "NPY_DISABLE_CPU_FEATURES": " ".join(disabled),
    }


def _dispatched() -> list[str]:
    """Return the instruction sets that both NumPy and this processor support; it cannot disable any other."""
    import numpy  # not above: it is needed only here

    return numpy.show_config(mode="dicts")["SIMD Extensions"].get("found", [])


def portable(paths: list[Path], root: Path) -> bool:
    """Compare the success, output and quoted values of each snippet under all settings; return whether all agree."""
    outcomes: dict[str, dict[str, Outcome]] = {}
    for name, variables in settings().items():
        if variables is None:
            print(f"not run under {name}, which this processor lacks", flush=True)
        else:
            print(f"running under {name}", *(f"{key}={value!r}" for key, value in variables.items()), flush=True)
            outcomes[name] = _run_under(variables, paths, root)
    pages = [page for language in LANGUAGES for page in read_pages(root, language).values()]
    verdicts = set()
    for path in (path.relative_to(root).as_posix() for path in paths):
        own, *_ = results = [outcome[path] for outcome in outcomes.values()]
        quoting = [page for page in pages if f"snippets/{page.snippet}" == path]
        found = [
            f"under {name}: {difference}".replace("\n", "\n      ")
            for name, outcome in zip(outcomes, results, strict=True)
            for difference in _differences(own, outcome, quoting)
        ]
        failed = any(isinstance(outcome, BuildError) for outcome in results)
        verdict = "fails" if failed else "differs" if found else "holds"
        print(f"{verdict:8} {path}", *found, sep="\n    ", flush=True)
        verdicts.add(verdict)
    return verdicts <= {"holds"}


def _run_under(variables: dict[str, str], paths: list[Path], root: Path) -> dict[str, Outcome]:
    """Return {path: outcome}; the variables replace those of all settings."""
    unset = {name for setting in settings().values() for name in setting or ()}
    environment = {name: value for name, value in os.environ.items() if name not in unset} | variables
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_run_uncached, environment, paths, root).result()
        except BrokenProcessPool as error:
            raise BuildError(
                f"the process that runs snippets under these variables ended unexpectedly: {variables}"
            ) from error


def _run_uncached(environment: dict[str, str], paths: list[Path], root: Path) -> dict[str, Outcome]:
    """Return {path: outcome}, in a new process whose fork server starts in this environment."""
    os.environ.clear()
    os.environ.update(environment)
    runs, errors = run_all(paths, root, Limits(), lambda *_: None, cached=False)
    return {run.snippet.path: run.notebook for run in runs.values()} | {error.path: error for error in errors}


def _differences(own: Outcome, other: Outcome, pages: list[Page]) -> Iterator[str]:
    """Yield the error, or the differences in output and quoted values from the run with our own instructions."""
    if isinstance(other, BuildError):
        yield str(other)
    if isinstance(own, BuildError) or isinstance(other, BuildError):
        return
    for ours, theirs in zip(own["cells"], other["cells"], strict=True):
        texts = ["\n".join(map(output_text, cell["outputs"])) for cell in (ours, theirs)]
        if texts[0] != texts[1]:
            yield f"cell {ours['id']} prints otherwise\n{_diff(*texts)}"
    for page in pages:
        for mark in VALUE.finditer(page.text):
            before, after = (_quoted(page, mark, notebook) for notebook in (own, other))
            if before != after:
                yield f"{page.path}:{page.line(mark)} quotes {mark[0]} as {after}, not {before}"


def _diff(one: str, other: str) -> str:
    lines = [*difflib.unified_diff(one.splitlines(), other.splitlines(), lineterm="", n=0)][2:]
    lines = [line for line in lines if not line.startswith("@@")]
    rest = [f"… and {len(lines) - MAX_DIFFERENCE} more lines"] * (len(lines) > MAX_DIFFERENCE)
    return "\n".join(lines[:MAX_DIFFERENCE] + rest)


def _quoted(page: Page, mark: re.Match, notebook: dict) -> str:
    """Return the value as the page shows it; empty if the run has no such value, as in an example of the syntax."""
    try:
        return Expander(page, {page.snippet: notebook}, Path()).value(mark)
    except ValueError:
        return ""


def main(articles: list[str]) -> int:
    """Return the exit code: 0 if the snippets of these articles and areas, or all snippets, agree everywhere."""
    root = Path.cwd()
    paths = {path.relative_to(root / "snippets").with_suffix("").as_posix(): path for path in snippet_paths(root)}
    if unknown := {*articles} - {*paths, *(name.partition("/")[0] for name in paths)}:
        print(f"there is no snippet of {', '.join(sorted(unknown))}", file=sys.stderr)
        return 1
    chosen = [path for name, path in paths.items() if not articles or {name, name.partition("/")[0]} & {*articles}]
    return 0 if portable(chosen, root) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
