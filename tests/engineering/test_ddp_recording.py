"""What the page shows of runs that its build does not make, against the sources that these were made of."""

import importlib.util
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def benchmark():
    specification = importlib.util.spec_from_file_location("benchmark_ddp", ROOT / "benchmarks/ddp.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_recording_is_of_these_sources():
    """If not: `nox -s bench -- ddp`, on a machine that is otherwise idle."""
    record = json.loads(benchmark().RESULT.read_text())
    assert record["sources"] == benchmark().digest()
    assert record.keys() >= {"torch", "cores", "ddp", "ring", "traffic", "quick_start", "killed", "resumed"}
