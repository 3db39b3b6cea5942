"""Measure time and memory of attention on the CPU by length, for its page: `python benchmarks/attention_cpu.py`.

Compare the definition, the tiled version in plain torch, and torch's function: the forward pass, and forward and
backward. Use one thread, and seconds of processor time, which other programs affect the least. The functions
alternate, so that disturbances affect all three. Each peak is measured in a new process, relative to the memory
resident before the call. Linux only.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import torch
import torch.nn.functional as F

from zhixing.attention.softmax_attention import softmax_attention
from zhixing.attention.tiled_attention import tiled_attention

RESULT = Path(__file__).parent / "results/attention_cpu.json"
HEADS, HEAD_SIZE = 2, 64
LENGTHS = 512, 1024, 2048, 4096, 8192
REPEAT = 7
FUNCTIONS = {"plain": softmax_attention, "tiled": tiled_attention, "torch": F.scaled_dot_product_attention}
PASSES = "forward", "both"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--peak", nargs=3, metavar=("FUNCTION", "PASSES", "LENGTH"), help="used internally, by child processes"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.peak:
        name, passes, length = options.peak
        print(peak(name, passes, int(length)))
        return
    record = {"machine": machine(), "heads": HEADS, "head_size": HEAD_SIZE, "rows": []}
    for length in LENGTHS:
        for passes in PASSES:
            times = time_all(passes, length)
            for name, seconds in times.items():
                row = {"function": name, "passes": passes, "length": length, "seconds": seconds}
                row["peak_bytes"] = peak_in_child(name, passes, length)
                record["rows"].append(row)
                print(
                    f"{name:6} {passes:8} {length:6} {statistics.median(seconds):8.4f} s {row['peak_bytes']:13,} bytes"
                )
    record["machine"]["load_after"] = round(os.getloadavg()[0], 2)
    RESULT.write_text(json.dumps(record, indent=1) + "\n")


def machine() -> dict[str, str | int | float]:
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def call(name: str, passes: str, length: int):
    """Create the input; return a call that does the work to measure."""
    generator = torch.Generator().manual_seed(0)
    qkv = [torch.randn(1, HEADS, length, HEAD_SIZE, generator=generator) for _ in range(3)]
    if passes == "forward":
        return lambda: FUNCTIONS[name](*qkv)
    leaves, weights = [x.requires_grad_() for x in qkv], torch.randn(qkv[0].shape, generator=generator)
    return lambda: torch.autograd.grad(FUNCTIONS[name](*leaves), leaves, weights)


def time_all(passes: str, length: int) -> dict[str, list[float]]:
    calls = {name: call(name, passes, length) for name in FUNCTIONS}
    seconds = {name: [] for name in FUNCTIONS}
    for turn in range(REPEAT + 1):
        for name, work in calls.items():
            started = time.process_time()
            work()
            if turn:  # the first is a warm-up
                seconds[name].append(round(time.process_time() - started, 6))
    return seconds


def peak_in_child(name: str, passes: str, length: int) -> int:
    command = [sys.executable, __file__, "--peak", name, passes, str(length)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=600).stdout)


def peak(name: str, passes: str, length: int) -> int:
    """Return the peak of resident bytes during the call, minus those before it."""
    call(name, passes, 64)()  # start threads and load libraries
    work = call(name, passes, length)
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak to the current value
    before = resident("VmRSS")
    work()
    return resident("VmHWM") - before


def resident(which: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{which}:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {which}")


if __name__ == "__main__":
    main()
