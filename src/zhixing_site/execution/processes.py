"""Run one job in a process that is watched: for its time, its memory and whatever it leaves behind.

Three processes: the build; a watcher, forked from the fork server; a worker, forked from the watcher, which does
the job. The watcher adopts every process that the worker starts, also one that leaves the worker's session (torchrun's
do), and ends them all.
"""

import ctypes
import faulthandler
import multiprocessing
import os
import pickle
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil

from zhixing_site.errors import BuildError

FORKSERVER = multiprocessing.get_context("forkserver")
# What IPython imports only where a shell is made.
IPYTHON = [f"IPython.core.{name}" for name in ("application", "completer", "completerlib", "magics", "oinspect")]
FORKSERVER.set_forkserver_preload(
    ["torch", "zhixing_site.execution.processes", *IPYTHON, "zhixing_site.execution.preload"]
)

TICK = 0.05  # seconds between two looks at the processes
GRACE = 0.2  # seconds for the worker to say where it is, before it is ended
PDEATHSIG, SUBREAPER = 1, 36  # PR_SET_PDEATHSIG and PR_SET_CHILD_SUBREAPER of linux/prctl.h


@dataclass(frozen=True)
class Limits:
    """Of all processes of a run together: `seconds` of processor time, bytes of memory."""

    seconds: float = 60
    bytes: int = 4 << 30

    @property
    def wall(self) -> float:
        """The seconds that a run may last: many more, since it waits while the machine has other work to do."""
        return 10 * self.seconds


@dataclass(frozen=True)
class Ending:
    """How a run ended: the worker's exit code, or the limit that it passed.

    `seconds` of processor time, and at the `peak` resident bytes, of all its processes together.
    """

    code: int
    passed: str
    seconds: float
    peak: int


T, U = TypeVar("T"), TypeVar("U")
Job = Callable[[Path], object]  # called with a folder for whatever it writes; anything that can be pickled


def in_watched_process(job: Job, folder: Path, limits: Limits) -> tuple[object, Ending]:
    """What the job returns, and how its process ended.

    Raises:
        BuildError: That which the job raised.
        SuddenEnd: The process ended before that.
    """
    process = FORKSERVER.Process(target=_watch, args=(job, folder, limits, os.getpid()))
    process.start()
    process.join()
    if not (folder / "ending").exists():
        raise SuddenEnd("the run was ended from outside", "")
    ending: Ending = pickle.loads((folder / "ending").read_bytes())
    if ending.passed or ending.code or not (folder / "outcome").exists():
        cause = ending.passed or f"quits the process with exit code {ending.code}"
        if ending.code < 0:
            cause = f"the process is ended by {signal.Signals(-ending.code).name}"
        raise SuddenEnd(cause, (folder / "log").read_text(errors="replace"))
    outcome = pickle.loads((folder / "outcome").read_bytes())
    if isinstance(outcome, BuildError):
        raise outcome
    return outcome, ending


def all_at_once(work: Callable[[T], U], items: Iterable[T]) -> list[U]:
    """What the work, which waits for watched processes, returns of each item; as many at once as there are cores.

    Where this is interrupted, the processes end with it.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            while not all(future.done() for future in futures):  # one may be starting its process only now
                for watcher in multiprocessing.active_children():
                    watcher.terminate()
                time.sleep(TICK)
            raise


class SuddenEnd(Exception):
    """A process that ended with its job undone; `log` is what it wrote to its standard streams."""

    def __init__(self, cause: str, log: str):
        super().__init__(cause)
        self.cause, self.log = cause, log

    def __str__(self) -> str:
        said = "\n".join([line for line in self.log.splitlines() if line][-12:])
        return f"{self.cause}\n{said}".strip()


def _watch(job: Job, folder: Path, limits: Limits, build: int) -> None:
    """Leaves in `folder`: `ending`, `outcome` (what the job returned, or a BuildError) and `log`."""
    os.setsid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SUBREAPER, 1)
    build_process, stopped = psutil.Process(build), []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    worker = os.fork()
    if worker == 0:
        _work(job, folder)
    code, passed, peak = _wait(psutil.Process(worker), limits, lambda: stopped or not _alive(build_process))
    while left := psutil.Process().children(recursive=True):
        for process in left:
            _try(process.kill)
        psutil.wait_procs(left, timeout=1)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)  # of each that was waited for, and of those that it waited for
    largest = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    ending = Ending(code, passed, used.ru_utime + used.ru_stime, max(peak, largest))
    (folder / "ending").write_bytes(pickle.dumps(ending))


def _wait(worker: psutil.Process, limits: Limits, stopped: Callable) -> tuple[int, str, int]:
    end, peak, watcher = time.perf_counter() + limits.wall, 0, psutil.Process()
    while True:
        processes = watcher.children(recursive=True)
        memory = [_try(process.memory_info) for process in processes]
        peak = max(peak, sum(process.rss for process in memory if process))
        reasons = {
            f"takes more than {limits.seconds:g} s of processor time": _used(watcher, processes) > limits.seconds,
            f"lasts longer than {limits.wall:g} s": time.perf_counter() > end,
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


def _used(watcher: psutil.Process, processes: list[psutil.Process]) -> float:
    """Seconds of processor time of these, and of those that ended, which count for whoever waited for them."""
    times = filter(None, [_try(process.cpu_times) for process in processes])
    ended = watcher.cpu_times()
    own = sum(each.user + each.system + each.children_user + each.children_system for each in times)
    return own + ended.children_user + ended.children_system


def _alive(process: psutil.Process) -> bool:
    return process.is_running() and _try(process.status) not in (None, psutil.STATUS_ZOMBIE)


def _try(call):
    """The call's value, or None where its process is gone."""
    try:
        return call()
    except psutil.NoSuchProcess:
        return None


def _work(job: Job, folder: Path) -> None:
    """The worker's whole life; it never returns."""
    os.setsid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    multiprocessing.set_start_method(None, force=True)  # Python's own, not the fork server's
    FORKSERVER.set_forkserver_preload(["__main__"])  # as well: a fork server that the job starts loads no torch
    os.mkdir(folder / "scratch")
    os.chdir(folder / "scratch")
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for source, target in ((os.open(os.devnull, os.O_RDONLY), 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    faulthandler.enable(file=2)
    faulthandler.register(signal.SIGUSR1, file=2)
    try:
        outcome = job(folder)
    except BuildError as error:
        outcome = error
    except BaseException:
        os.write(2, traceback.format_exc().encode())
        os._exit(1)
    (folder / "outcome").write_bytes(pickle.dumps(outcome))
    os._exit(0)
