"""Run snippets as on other processors: under each instruction set that this one has, by all libraries that choose one.

ATen, MKL, oneDNN and NumPy choose by themselves, each when it is loaded, and sum in another order with another choice.
So each setting is a process of its own with a fork server of its own.
"""

import difflib
import os
import pickle
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from zhixing_site.content.expand import Expander, output_text
from zhixing_site.content.page import VALUE, Page, read_pages
from zhixing_site.errors import BuildError
from zhixing_site.execution.processes import Limits
from zhixing_site.execution.runner import run_all
from zhixing_site.project import LANGUAGES

OWN = "own instructions"
DIFFERENCES = 8  # lines of a cell's difference that are told

Outcome = dict | BuildError  # an executed notebook, or why there is none


def settings() -> dict[str, dict[str, str] | None]:
    """{name: the variables that make all libraries keep to it, or None where this processor lacks it}"""
    found = _dispatched()
    intel = platform.machine() in ("x86_64", "AMD64")
    newer = [name for name in found if re.search("AVX512|AVX10|V4", name)]
    return {
        OWN: {},
        "AVX2": _keep_to("avx2", "AVX2", "AVX2", newer) if {"AVX2", "X86_V3"} & {*found} else None,
        "SSE": lowest() if intel else None,
        "MKL_CBWR=COMPATIBLE": {"MKL_CBWR": "COMPATIBLE"} if intel else None,
    }


def lowest() -> dict[str, str]:
    """The variables by which a program runs as on the oldest processor that the libraries support."""
    return _keep_to("default", "SSE4_2", "SSE41", _dispatched())


def _keep_to(aten: str, mkl: str, onednn: str, newer: list[str]) -> dict[str, str]:
    return {
        "ATEN_CPU_CAPABILITY": aten,
        "MKL_ENABLE_INSTRUCTIONS": mkl,
        "ONEDNN_MAX_CPU_ISA": onednn,
        "NPY_DISABLE_CPU_FEATURES": " ".join(newer),
    }


def _dispatched() -> list[str]:
    """The sets of instructions that NumPy has code for and this processor has; it refuses to disable any other."""
    import numpy  # not above: only here, and by matplotlib

    return numpy.show_config(mode="dicts")["SIMD Extensions"].get("found", [])


def portable(paths: list[Path], root: Path, limits: Limits) -> bool:
    """Tell for each snippet whether it runs and prints the same under each setting; whether all do."""
    outcomes: dict[str, dict[str, Outcome]] = {}
    for name, variables in settings().items():
        if variables is None:
            print(f"not run under {name}, which this processor lacks", flush=True)
            continue
        print(
            " ".join([f"running under {name}", *(f"{key}={value!r}" for key, value in variables.items())]), flush=True
        )
        outcomes[name] = _run_under(variables, paths, root, limits)
    pages = [page for language in LANGUAGES for page in read_pages(root, language).values()]
    clean = True
    for path in (path.relative_to(root).as_posix() for path in paths):
        own, *others = ((name, each[path]) for name, each in outcomes.items())
        told = [f"under {name}: {line}" for name, outcome in (own, *others) for line in _errors(outcome)]
        verdict = "fails" if told else "holds"
        for name, outcome in others:
            told += [f"under {name}: {line}" for line in _differences(own[1], outcome, path, pages)]
        verdict = "differs" if told and verdict == "holds" else verdict
        print(f"{verdict:8} {path}", *(line.replace("\n", "\n      ") for line in told), sep="\n    ", flush=True)
        clean = clean and not told
    return clean


def _run_under(variables: dict[str, str], paths: list[Path], root: Path, limits: Limits) -> dict[str, Outcome]:
    """{path: outcome}; raises BuildError where the runs break off."""
    names = {name for each in settings().values() for name in each or ()}
    environment = {name: value for name, value in os.environ.items() if name not in names} | variables
    with tempfile.TemporaryDirectory(prefix="zhixing-") as folder:
        file = Path(folder, "outcomes")
        command = [sys.executable, "-m", "zhixing_site", "run", "--afresh", file, "--seconds", str(limits.seconds)]
        command += ["--gigabytes", str(limits.bytes / 2**30), *paths]
        done = subprocess.run(command, cwd=root, env=environment, check=False)
        if not file.exists():
            raise BuildError(f"the runs end with exit code {done.returncode}")
        return pickle.loads(file.read_bytes())


def run_afresh(paths: list[Path], root: Path, limits: Limits, file: Path) -> None:
    """Run the snippets without the cache, and write {path: outcome}."""
    outcomes = {}

    def keep(path: str, result) -> None:
        outcomes[path] = result if isinstance(result, BuildError) else result.notebook

    run_all(paths, root, limits, keep, cached=False)
    file.write_bytes(pickle.dumps(outcomes))


def _errors(outcome: Outcome) -> Iterator[str]:
    if isinstance(outcome, BuildError):
        yield str(outcome)


def _differences(own: Outcome, other: Outcome, path: str, pages: list[Page]) -> Iterator[str]:
    """What cells print, and pages quote, otherwise than under this processor's own instructions."""
    if isinstance(own, BuildError) or isinstance(other, BuildError):
        return
    for one, another in zip(own["cells"], other["cells"], strict=True):
        texts = ["\n".join(map(output_text, cell["outputs"])) for cell in (one, another)]
        if texts[0] != texts[1]:
            yield f"cell {one['id']} prints otherwise\n{_difference(*texts)}"
    for page in pages:
        if f"snippets/{page.snippet}" == path:
            for mark in VALUE.finditer(page.text):
                before, after = (_quoted(page, mark, notebook) for notebook in (own, other))
                if before != after:
                    yield f"{page.path}:{page.line(mark)} quotes {mark[0]} as {after}, not {before}"


def _difference(one: str, another: str) -> str:
    lines = [*difflib.unified_diff(one.splitlines(), another.splitlines(), lineterm="", n=0)][2:]
    lines = [line for line in lines if not line.startswith("@@")]
    rest = [f"… and {len(lines) - DIFFERENCES} more lines"] * (len(lines) > DIFFERENCES)
    return "\n".join(lines[:DIFFERENCES] + rest)


def _quoted(page: Page, mark: re.Match, notebook: dict) -> str:
    """As the page would show it; nothing where it is no value of the run, as in an example of how to quote."""
    try:
        return Expander(page, {page.snippet: notebook}, Path()).value(mark)
    except ValueError:
        return ""
