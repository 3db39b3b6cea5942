"""Run one snippet in a process that is watched: for its time, its memory and whatever it leaves behind.

Three processes: the build; a watcher, forked from the fork server; a worker, forked from the watcher, which runs the
cells. The watcher adopts every process that the worker starts, also one that leaves the worker's session (torchrun's
do), and ends them all.
"""

import ctypes
import faulthandler
import multiprocessing
import os
import pickle
import re
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from zhixing_site.fault import Fault
from zhixing_site.snippet import Snippet

TICK = 0.05  # seconds between two looks at the processes
GRACE = 0.2  # seconds for the worker to say where it is, before it is ended
PDEATHSIG, SUBREAPER = 1, 36  # PR_SET_PDEATHSIG and PR_SET_CHILD_SUBREAPER of linux/prctl.h


@dataclass(frozen=True)
class Limits:
    seconds: float = 120
    bytes: int = 4 << 30


@dataclass(frozen=True)
class Ending:
    """How a run ended: the worker's exit code, or the limit that it passed. `peak`: resident bytes of all processes."""

    code: int
    passed: str
    seconds: float
    peak: int


def watch(snippet: Snippet, root: Path, folder: Path, limits: Limits, build: int) -> None:
    """Leaves in `folder`: `ending`, `outcome` (notebook or Fault), `cell` (the last one begun) and `log`."""
    os.setsid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SUBREAPER, 1)
    started, build_process, stopped = time.perf_counter(), psutil.Process(build), []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    worker = os.fork()
    if worker == 0:
        _work(snippet, root, folder)
    code, passed, peak = _wait(psutil.Process(worker), limits, lambda: stopped or not _alive(build_process))
    seconds = time.perf_counter() - started
    while left := psutil.Process().children(recursive=True):
        for process in left:
            _try(process.kill)
        psutil.wait_procs(left, timeout=1)
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    (folder / "ending").write_bytes(pickle.dumps(Ending(code, passed, seconds, max(peak, largest))))


def _wait(worker: psutil.Process, limits: Limits, stopped: Callable) -> tuple[int, str, int]:
    end, peak = time.perf_counter() + limits.seconds, 0
    while True:
        memory = [_try(process.memory_info) for process in psutil.Process().children(recursive=True)]
        peak = max(peak, sum(process.rss for process in memory if process))
        reasons = {
            f"runs longer than {limits.seconds:g} s": time.perf_counter() > end,
            f"uses more than {limits.bytes / 2**30:.3g} GB of memory": peak > limits.bytes,
            "is stopped with the build": stopped(),
        }
        for reason in (reason for reason, holds in reasons.items() if holds):
            _try(lambda: worker.send_signal(signal.SIGUSR1))
            time.sleep(GRACE)
            return 1, reason, peak
        try:
            return worker.wait(TICK), "", peak
        except psutil.TimeoutExpired:
            pass


def _alive(process: psutil.Process) -> bool:
    return process.is_running() and _try(process.status) not in (None, psutil.STATUS_ZOMBIE)


def _try(call):
    """The call's value, or None where its process is gone."""
    try:
        return call()
    except psutil.NoSuchProcess:
        return None


def _work(snippet: Snippet, root: Path, folder: Path) -> None:
    """The worker's whole life; it never returns."""
    os.setsid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    multiprocessing.set_start_method(None, force=True)  # Python's own, not the fork server's
    sys.argv = [snippet.path]
    os.mkdir(folder / "scratch")
    os.chdir(folder / "scratch")
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for source, target in ((os.open(os.devnull, os.O_RDONLY), 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    faulthandler.enable(file=2)
    faulthandler.register(signal.SIGUSR1, file=2)
    from zhixing_site.child import Execution  # not above: the build itself never imports what a run needs

    try:
        outcome = Execution(snippet, root).execute(lambda cell: (folder / "cell").write_text(cell.name))
    except Fault as fault:
        outcome = fault
    except BaseException:
        os.write(2, traceback.format_exc().encode())
        os._exit(1)
    (folder / "outcome").write_bytes(pickle.dumps(outcome))
    os._exit(0)


def read_outcome(folder: Path, snippet: Snippet) -> tuple[dict, Ending]:
    """The executed notebook and how the run ended; raises the run's Fault, or one that tells of its sudden end."""
    if not (folder / "ending").exists():
        raise Fault("the run was ended from outside", snippet.path)
    ending: Ending = pickle.loads((folder / "ending").read_bytes())
    if ending.passed or ending.code or not (folder / "outcome").exists():
        raise _sudden_end(folder, snippet, ending)
    outcome = pickle.loads((folder / "outcome").read_bytes())
    if isinstance(outcome, Fault):
        raise outcome
    return outcome, ending


def _sudden_end(folder: Path, snippet: Snippet, ending: Ending) -> Fault:
    begun = (folder / "cell").read_text() if (folder / "cell").exists() else snippet.cells[0].name
    cell = next(cell for cell in snippet.cells if cell.name == begun)
    log = (folder / "log").read_text(errors="replace")
    places = re.findall(rf'File "[^"]*{re.escape(snippet.path)}", line (\d+)', log)
    cause = ending.passed or f"quits the process with exit code {ending.code}"
    if ending.code < 0:
        cause = f"the process is ended by {signal.Signals(-ending.code).name}"
    said = "\n".join([line for line in log.splitlines() if line][-12:])
    return Fault(f"{cause}\n{said}".strip(), snippet.path, int(places[0]) if places else cell.line, cell.name)
