"""Run a job in a process of its own, within limits of time and memory, and end everything that it starts.

Three processes: the build; a watcher, forked from the fork server; a worker, forked from the watcher, which does the
job. The watcher adopts every process that the worker starts, also one that leaves the worker's session (torchrun's
do), and kills them all.
"""

import ctypes
import faulthandler
import gc
import multiprocessing
import os
import pickle
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil

from zhixing_site.errors import BuildError

FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(["zhixing_site.execution.preload"])

INTERVAL = 0.05  # seconds between two checks of the limits
GRACE = 0.2  # seconds for the worker to write its traceback, before it is killed
PDEATHSIG, SUBREAPER = 1, 36  # PR_SET_PDEATHSIG and PR_SET_CHILD_SUBREAPER of linux/prctl.h


@dataclass(frozen=True)
class Limits:
    """Of all processes of a run together: `seconds` of processor time, bytes of memory."""

    seconds: float = 60
    bytes: int = 4 << 30


@dataclass(frozen=True)
class Ending:
    """What a run took: `seconds` of processor time, and at the `peak` resident bytes, of all its processes together."""

    seconds: float
    peak: int


class ProcessDied(Exception):
    """The process ended before its job was done: the cause, and what the process wrote to its standard streams."""


T, U = TypeVar("T"), TypeVar("U")
Job = Callable[[Path], T]  # called with a folder for its files; must be picklable


def run_watched(job: Job[T], folder: Path, limits: Limits) -> tuple[T, Ending]:
    """The job's result, and what its run took; raises BuildError if the job does, or ProcessDied."""
    process = FORKSERVER.Process(target=_watch, args=(job, folder, limits))
    process.start()
    process.join()
    if not (folder / "outcome").exists():
        raise ProcessDied("the process that watches the run ended unexpectedly", "")
    cause, ending = pickle.loads((folder / "outcome").read_bytes())
    if not (folder / "result").exists():
        raise ProcessDied(cause, (folder / "log").read_text(errors="replace"))
    result = pickle.loads((folder / "result").read_bytes())
    if isinstance(result, Exception):
        raise result
    return result, ending


def map_parallel(function: Callable[[T], U], items: Iterable[T]) -> list[U]:
    """The function's result for each item, of as many at once as there are cores.

    The function waits for watched processes. If this is interrupted, they end too.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        futures = [pool.submit(function, item) for item in items]
        try:
            results = []
            for future in futures:
                while not future.done():
                    wait([future], timeout=1)  # without a limit, an interrupt just before the wait would be missed
                results.append(future.result())
            return results
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            while not all(future.done() for future in futures):  # one may be starting its process only now
                for watcher in multiprocessing.active_children():
                    watcher.terminate()
                time.sleep(INTERVAL)
            raise


def _watch(job: Job, folder: Path, limits: Limits) -> None:
    """Start the worker, wait for it, and leave in `folder` the `outcome`: why it ended, and its Ending."""
    os.setsid()
    gc.enable()  # the fork server has disabled it
    _prctl(SUBREAPER, 1)
    build, terminated = multiprocessing.parent_process(), []
    signal.signal(signal.SIGTERM, lambda *_: terminated.append(True))
    worker = os.fork()
    if worker == 0:
        _work(job, folder)
    cause, peak = _wait(psutil.Process(worker), limits, lambda: terminated or not build.is_alive())
    while left := psutil.Process().children(recursive=True):
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=1)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)  # of each that was waited for, and of those that it waited for
    largest = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    ending = Ending(used.ru_utime + used.ru_stime, max(peak, largest))
    (folder / "outcome").write_bytes(pickle.dumps((cause, ending)))


def _wait(worker: psutil.Process, limits: Limits, is_stopped: Callable) -> tuple[str, int]:
    """Wait until the worker ends or must be killed; returns the cause, and the memory's peak."""
    longest = 10 * limits.seconds  # many more than of processor time: a run waits while the machine has other work
    end, peak, watcher = time.perf_counter() + longest, 0, psutil.Process()
    while True:
        seconds, memory = _usage(watcher)
        peak = max(peak, memory)
        reasons = {
            f"takes more than {limits.seconds:g} s of processor time": seconds > limits.seconds,
            f"lasts longer than {longest:g} s": time.perf_counter() > end,
            f"uses more than {limits.bytes / 2**30:.3g} GB of memory": peak > limits.bytes,
            "is stopped with the build": is_stopped(),
        }
        for reason in (reason for reason, holds in reasons.items() if holds):
            with suppress(psutil.NoSuchProcess):
                worker.send_signal(signal.SIGUSR1)
            time.sleep(GRACE)
            return reason, peak
        with suppress(psutil.TimeoutExpired):
            code = worker.wait(INTERVAL)
            if code < 0:
                return f"the process was terminated by {signal.Signals(-code).name}", peak
            return f"quits the process with exit code {code}", peak


def _usage(watcher: psutil.Process) -> tuple[float, int]:
    """Seconds of processor time and resident bytes of the processes below the watcher.

    The time of a process that has ended is counted for the one that waited for it.
    """
    ended = watcher.cpu_times()
    seconds, memory = ended.children_user + ended.children_system, 0
    for process in watcher.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            seconds += times.user + times.system + times.children_user + times.children_system
            memory += process.memory_info().rss
    return seconds, memory


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value)


def _work(job: Job, folder: Path) -> None:
    """Do the job in this process, which ends here, and leave in `folder` its `result`: a value or a BuildError."""
    os.setsid()
    _prctl(PDEATHSIG, signal.SIGKILL)
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
        result = job(folder)
    except BuildError as error:
        result = error
    except BaseException:
        os.write(2, traceback.format_exc().encode())
        os._exit(1)
    (folder / "written").write_bytes(pickle.dumps(result))
    (folder / "written").rename(folder / "result")
    os._exit(0)
