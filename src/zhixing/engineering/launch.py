"""Run code on several processes of this machine, with a time limit, and leave none of them behind.

`torchrun` starts a script; `launch` runs functions of a notebook, which fresh processes could not
import. Both are for lessons and tests: jobs on several machines are started by torchrun itself.
"""

import contextlib
import inspect
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

# Told to end, torchrun kills the ranks that are still there after so many seconds; its own are 30.
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--shutdown-timeout=3"]

# The module of the functions that are sent, and the program that becomes the ranks. It forks them
# once torch is imported, which takes longer than all else; where CUDA is used, each would have to
# be started afresh.
FUNCTIONS = """\
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
{preload}

{sources}
"""
PROGRAM = """\
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist

import functions

{sources}

def run(rank):
    results = {{name: getattr(functions, name)() for name in {names}}}
    torch.save(results, f"{{rank}}.pt")


if __name__ == "__main__":
    fork_ranks(run, {ranks}, {seconds})
"""


def launch(
    *functions: Callable[[], object],
    ranks: int,
    using: Sequence[Callable] = (),
    seconds: float = 60.0,
) -> dict[str, list]:
    """Run functions without arguments, one after the other, on each of `ranks` new processes.

    Only source reaches the processes: that of the functions and of those which they call, `using`.
    `torch`, `dist`, `nn` and `F` are there, anything else they import themselves. The process group
    (gloo) is initialised; a collective that waits for half of `seconds` raises.

    Returns:
        {function's name: what it returned on rank 0, on rank 1, …}: anything that `torch.save`
        writes and `torch.load` reads with `weights_only`, such as numbers, tensors, lists, dicts.

    Raises:
        ValueError: No rank or no function; two functions of one name; a function without a name or
            without source, as one that was typed into a plain Python prompt; one that uses a
            variable of the function around it.
        RuntimeError: A rank failed; the message ends with what it printed. The others are ended.
        TimeoutError: The ranks were not done after `seconds`; they are ended.

    Examples:
        >>> import torch.distributed as dist
        >>> def rank():
        ...     return dist.get_rank()
        >>> launch(rank, ranks=2)
        {'rank': [0, 1]}
    """
    if ranks < 1 or not functions:
        raise ValueError(f"got {ranks} ranks and {len(functions)} functions; one each is the least")
    sent = [*using, *functions]
    names = [function.__name__ for function in sent]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two functions have one name: {', '.join(sorted(repeated))}")
    with tempfile.TemporaryDirectory() as folder:
        sources = "\n\n".join(_source(function, names) for function in sent)
        # torch's DDP and optimizers import it at first use: in seconds, better once than on each
        # rank.
        uses = re.search(r"DistributedDataParallel|\boptim\b", sources)
        preload = "import torch._dynamo" if uses else ""
        text = FUNCTIONS.format(sources=sources, preload=preload)
        Path(folder, "functions.py").write_text(text)
        blanks = {"names": names[len(using) :], "ranks": ranks, "seconds": seconds / 2}
        own = f"{inspect.getsource(fork_ranks)}\n\n{inspect.getsource(_in_group)}"
        Path(folder, "program.py").write_text(PROGRAM.format(sources=own, **blanks))
        run_all([[sys.executable, "program.py"]], seconds, folder=folder)
        results = [torch.load(Path(folder, f"{rank}.pt")) for rank in range(ranks)]
    return {name: [result[name] for result in results] for name in results[0]}


def _source(function: Callable, sent: list[str]) -> str:
    """Its text, for a module in which these names are defined."""
    name = function.__name__
    if not name.isidentifier():
        raise ValueError(f"{name} cannot be sent: only functions made by `def` can")
    if around := {*function.__code__.co_freevars} - {*sent}:
        raise ValueError(f"{name} uses {', '.join(around)} of the function around it, not sent")
    try:
        return textwrap.dedent(inspect.getsource(function))
    except OSError as error:
        raise ValueError(
            f"{name} cannot be sent, as its source is not known: define it in a file or a notebook"
        ) from error


def fork_ranks(run: Callable[[int], None], ranks: int, seconds: float) -> None:
    """Call `run(rank)` in as many forks of this process, joined in a process group (gloo).

    They meet through a file, which no other job can hold, unlike a port. A collective that waits
    for `seconds` raises. When one fork fails, all are ended and this process exits with 1.

    Examples:
        >>> import contextlib, tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        ...     fork_ranks(lambda rank: Path(f"{rank}.txt").touch(), 2, 30.0)
        ...     print(*sorted(path.name for path in Path().glob("*.txt")))
        0.txt 1.txt
    """
    torch.set_num_threads(1)
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            context.Process(
                target=_in_group, args=(run, rank, ranks, seconds, f"{folder}/meet"), daemon=True
            )
            for rank in range(ranks)
        ]
        for process in processes:
            process.start()
        while any(process.exitcode is None for process in processes):
            if any(process.exitcode for process in processes):
                time.sleep(0.5)  # the others may be about to say why
                break
            time.sleep(0.01)
    if failed := {n: p.exitcode for n, p in enumerate(processes) if p.exitcode}:
        sys.exit(f"exit codes by rank: {failed}")


def _in_group(
    run: Callable[[int], None], rank: int, ranks: int, seconds: float, meeting: str
) -> None:
    dist.init_process_group(
        "gloo",
        init_method=f"file://{meeting}",
        rank=rank,
        world_size=ranks,
        timeout=timedelta(seconds=seconds),
    )
    run(rank)
    dist.barrier()
    dist.destroy_process_group()


def torchrun(*arguments: str, ranks: int, seconds: float = 60.0) -> str:
    """What `torchrun --standalone --nproc-per-node=<ranks> <arguments>` prints, on one machine.

    Raises:
        RuntimeError: A rank failed; the message ends with what was printed.
        TimeoutError: It was not done after `seconds`. It was asked to end, and its ranks with it.

    Examples:
        >>> print(torchrun("--no-python", "echo", "hello", ranks=2), end="")
        hello
        hello
    """
    command = [*TORCHRUN, "--standalone", f"--nproc-per-node={ranks}", *arguments]
    return run_all([command], seconds)[0]


def run_all(commands: list[list[str]], seconds: float, folder: str | None = None) -> list[str]:
    """What the commands print, run at once; all are ended as soon as one fails or time is up.

    Examples:
        >>> run_all([["echo", "hello"], ["echo", "again"]], 30.0)
        ['hello\\n', 'again\\n']
    """
    end = time.monotonic() + seconds
    # The processes import what this one would, and share the cores among them.
    path = os.pathsep.join(map(os.path.abspath, sys.path))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as place:
        logs = [Path(place, f"{number}") for number in range(len(commands))]
        processes = []
        try:
            for command, log in zip(commands, logs, strict=True):
                with open(log, "w") as file:
                    process = subprocess.Popen(
                        command,
                        stdout=file,
                        stderr=subprocess.STDOUT,
                        env=environment,
                        cwd=folder,
                        start_new_session=True,
                    )
                processes.append(process)
            while any(process.poll() is None for process in processes):
                if time.monotonic() > end:
                    raise TimeoutError(f"not done after {seconds:g} s{_tails(logs)}")
                if any(process.poll() for process in processes):
                    break
                time.sleep(0.02)
            if codes := {n: p.poll() for n, p in enumerate(processes) if p.poll()}:
                raise RuntimeError(f"exit codes by process: {codes}{_tails(logs)}")
            return [log.read_text() for log in logs]
        except BaseException:
            end_all(processes)
            raise


def end_all(processes: list[subprocess.Popen]) -> None:
    """SIGTERM, on which torchrun ends its ranks; SIGKILL for what is still there after 10 s.

    Each process leads a group, which holds the ranks that it forked. Those of torchrun lead groups
    of their own, which is why it must be left the time to end them.

    Examples:
        >>> import subprocess
        >>> process = subprocess.Popen(["sleep", "100"], start_new_session=True)
        >>> end_all([process])
        >>> process.returncode
        -15
    """
    for process in processes:
        _signal(process, signal.SIGTERM)
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        _signal(process, signal.SIGKILL)
        process.wait()


def _signal(process: subprocess.Popen, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _tails(logs: list[Path], length: int = 6000) -> str:
    texts = [log.read_text(errors="replace").strip()[-length:] for log in logs]
    return "".join(f"\n--- process {number}\n{text}" for number, text in enumerate(texts) if text)
