"""Measure time and memory of commands that run in parallel, and print tables of the results."""

import json
import os
import platform
import signal
import statistics
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

from zhixing_site.site.evidence import processor

TICK = 0.05  # seconds between two measurements of memory


@dataclass(frozen=True)
class Cost:
    """Measured time and memory."""

    seconds: float
    bytes: int  # peak of the resident memory of all processes; shared pages count for each


@dataclass(frozen=True)
class Row:
    """One comparison: all samples of both sides, a `result` computed from medians, and its target `wanted`.

    `other` is empty if there is nothing to compare with.
    """

    what: str
    ours: list[float]
    other: list[float]
    unit: str
    result: str = ""
    wanted: str = ""


@dataclass
class Table:
    """A table whose rows are printed when they are added."""

    rows: list[dict] = field(default_factory=list)

    def title(self, text: str) -> None:
        print("\n" + textwrap.fill(text, 100))
        print(f"Load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n", flush=True)
        print(f"{'':46}{'ours':>9}{'other':>9}      {'result':15}wanted")

    def add(self, row: Row) -> None:
        ours, other = (f"{statistics.median(side):.2f}" if side else "" for side in (row.ours, row.other))
        print(f"{row.what:46}{ours:>9}{other:>9} {row.unit:4} {row.result:15}{row.wanted}", flush=True)
        samples = {"ours": [round(each, 3) for each in row.ours], "other": [round(each, 3) for each in row.other]}
        self.rows.append({**vars(row), **samples, "load": round(os.getloadavg()[0], 2)})

    def save(self, path: Path, **facts: str) -> None:
        """Write the rows, with a description of the machine and other facts."""
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            json.dumps({"machine": machine() | facts, "rows": self.rows}, indent=1, ensure_ascii=False) + "\n"
        )


def machine() -> dict[str, str | int]:
    names = "torch", "matplotlib", "mkdocs", "mkdocs-material", "mkdocs-jupyter"
    facts = {"system": platform.system(), "processor": processor(), "cores": os.cpu_count()}
    facts["date"] = datetime.now(UTC).date().isoformat()
    return {**facts, "python": platform.python_version(), **{name: version(name) for name in names}}


@contextmanager
def running(*commands: list[str], root: Path) -> Iterator[list[psutil.Popen]]:
    """Run the commands as processes, and end them on exit from the context; a failed one ends the benchmark."""
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    with tempfile.TemporaryFile("w+") as log:
        options = {"cwd": root, "env": environment, "stdout": log, "stderr": log}
        processes = [psutil.Popen(command, **options) for command in commands]
        try:
            yield processes
        finally:
            failed = any(process.poll() for process in processes)
            end(processes)
        if failed:
            log.seek(0)
            sys.exit(f"{commands}\n{log.read()[-4000:]}")


def end(processes: list[psutil.Popen]) -> None:
    """End the processes as Ctrl-C does, so that they end their children; kill those that remain."""
    alive = [process for process in processes if process.poll() is None]
    for process in alive:
        process.send_signal(signal.SIGINT)
    for process in psutil.wait_procs(alive, timeout=20)[1]:
        process.kill()


def measure(*commands: list[str], root: Path) -> Cost:
    """Return the time and peak memory of commands that run in parallel."""
    started, peak = time.perf_counter(), 0
    with running(*commands, root=root) as alive:
        while alive:
            peak = max(peak, sum(map(resident, alive)))
            _, alive = psutil.wait_procs(alive, timeout=TICK)
        seconds = time.perf_counter() - started
    return Cost(seconds, peak)


def resident(process: psutil.Process) -> int:
    try:
        return sum(each.memory_info().rss for each in [process, *process.children(recursive=True)])
    except psutil.NoSuchProcess:
        return 0
