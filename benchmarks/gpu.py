"""Record what a benchmark measures on this machine's GPU."""

import json
import re
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

import torch

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks/results"


def record(rows: Callable[[Callable[[Callable[[], object]], float]], Iterable[dict]], stem: str, unit: str) -> None:
    """Print and save what `rows` yields; it gets a function that returns the median milliseconds of another."""
    if not torch.cuda.is_available():
        sys.exit("this benchmark needs a GPU, and torch finds none here")
    import triton

    device = torch.cuda.get_device_name()
    head = {
        "device": device,
        "torch": torch.__version__,
        "triton": triton.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "unit": unit,
    }

    def median(function: Callable[[], object]) -> float:
        return triton.testing.do_bench(function, warmup=100, rep=400, return_mode="median")

    results = []
    for row in rows(median):
        print(row, flush=True)
        results.append(row)
    lines = ",\n".join(f"    {json.dumps(row)}" for row in results)
    result_path(stem, device).write_text(f'{json.dumps(head, indent=2)[:-2]},\n  "rows": [\n{lines}\n  ]\n}}\n')


def result_path(stem: str, device: str) -> Path:
    return RESULTS / f"{stem}-{re.sub('[^a-z0-9]+', '-', device.lower()).strip('-')}.json"
