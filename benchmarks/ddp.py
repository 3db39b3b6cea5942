"""Record results of runs on several processes for the page on DDP: `python benchmarks/ddp.py`.

Run the functions of the page's snippet on an otherwise idle machine. Of timed functions, record the fastest pass.
"""

import ast
import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from zhixing.engineering.launch import launch

ROOT = Path(__file__).resolve().parents[1]
SNIPPET = ROOT / "snippets/engineering/ddp.py"
MODULES = "__init__", "ddp", "ddp_train", "launch", "ring_all_reduce"
RESULT = ROOT / "benchmarks/results/ddp.json"
TIMED = "timeline", "ring_steps"
PRINTED = "quick_start", "killed", "resumed"  # in this order: the killed run is resumed
RECORDED = *PRINTED, *TIMED, "traffic"


def functions() -> dict[str, Callable]:
    """Return the functions of the snippet, without running the rest of its cells."""
    program = ast.parse(SNIPPET.read_text())
    program.body = [node for node in program.body if isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef))]
    found = {}
    exec(compile(program, str(SNIPPET), "exec"), found)
    return found


def digest() -> str:
    """Return a digest of the recorded functions and of the library code that they use."""
    text = SNIPPET.read_text()
    parts = [(ROOT / f"src/zhixing/engineering/{name}.py").read_text() for name in MODULES]
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef) and node.name in RECORDED:
            parts.append(ast.get_source_segment(text, node))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def main() -> None:
    named = functions()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        printed = {name: named[name]().strip() for name in PRINTED}
    twice = [launch(named["timeline"], ranks=2)["timeline"][0] for _ in range(2)]
    passes = {name: twice[0][name] + twice[1][name] for name in twice[0]}
    logs = launch(named["ring_steps"], ranks=4)["ring_steps"]
    rounds = [[log[number] for log in logs] for number in range(len(logs[0]))]
    record = {
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "sources": digest(),
        "ddp": {name: since_start([min(found, key=lambda one: span([one]))])[0] for name, found in passes.items()},
        "ring": since_start(min(rounds, key=span)),
        "traffic": by_case(launch(named["traffic"], ranks=4)["traffic"]),
        **printed,
    }
    RESULT.write_text(json.dumps(record) + "\n")


def by_case(of_ranks: list[dict[tuple[str, int], int]]) -> list[list]:
    """Return rows of [function, ranks, elements sent by each rank]."""
    return [[*case, [sent[case] for sent in of_ranks if case in sent]] for case in of_ranks[0]]


def timestamps(lists: list[list[tuple]]) -> list[float]:
    return [value for entries in lists for entry in entries for value in entry if isinstance(value, float)]


def span(lists: list[list[tuple]]) -> float:
    return max(timestamps(lists)) - min(timestamps(lists))


def since_start(lists: list[list[tuple]]) -> list[list[list]]:
    """Return the same lists, with all times relative to the first, in seconds rounded to microseconds."""
    start = min(timestamps(lists))
    return [
        [[round(v - start, 6) if isinstance(v, float) else v for v in entry] for entry in entries] for entries in lists
    ]


if __name__ == "__main__":
    main()
