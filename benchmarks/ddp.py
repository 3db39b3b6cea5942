"""Record when gradients come and collectives run, for the figures of the page on DDP: `python benchmarks/ddp.py`.

Runs the functions of the page's snippet on a machine that is otherwise idle, and keeps the fastest pass of each.
"""

import json
import linecache
import os
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from zhixing.engineering.launch import launch
from zhixing_site.snippet import read_snippet

ROOT = Path(__file__).resolve().parents[1]
SNIPPET = ROOT / "snippets/engineering/ddp.py"


def functions() -> dict:
    """The functions of the snippet's cells, without what the cells do besides."""
    found = {"torch": torch, "dist": dist, "nn": nn, "F": F}
    linecache.getlines(str(SNIPPET))
    for cell in read_snippet(SNIPPET, ROOT).cells:
        if cell.name in ("timeline", "ring_steps"):
            source = cell.source.partition("\n\n\n")[0]
            exec(compile("\n" * (cell.line - 1) + source, str(SNIPPET), "exec"), found)
    return found


def main() -> None:
    named = functions()
    twice = [launch(named["timeline"], ranks=2)["timeline"][0] for _ in range(2)]
    passes = {name: twice[0][name] + twice[1][name] for name in twice[0]}
    logs = launch(named["ring_steps"], ranks=4)["ring_steps"]
    rounds = [[log[number] for log in logs] for number in range(len(logs[0]))]
    record = {
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "ddp": {name: since_start([min(found, key=lambda one: span([one]))])[0] for name, found in passes.items()},
        "ring": since_start(min(rounds, key=span)),
    }
    (ROOT / "benchmarks/results/ddp.json").write_text(json.dumps(record) + "\n")


def moments(lists: list[list[tuple]]) -> list[float]:
    return [value for entries in lists for entry in entries for value in entry if isinstance(value, float)]


def span(lists: list[list[tuple]]) -> float:
    return max(moments(lists)) - min(moments(lists))


def since_start(lists: list[list[tuple]]) -> list[list[list]]:
    """The same, with all moments in seconds since the first, to the microsecond."""
    start = min(moments(lists))
    return [
        [[round(v - start, 6) if isinstance(v, float) else v for v in entry] for entry in entries] for entries in lists
    ]


if __name__ == "__main__":
    main()
