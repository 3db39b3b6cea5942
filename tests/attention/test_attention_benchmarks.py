"""What the kernels compile to for GPUs that are not here; and the benchmark for a GPU, without one."""

import json
from pathlib import Path

import pytest
import torch
from benchmark import load, of_another_triton

ROOT = Path(__file__).resolve().parents[2]


COMPILED = load("attention_compiled")
TABLE = json.loads(COMPILED.RESULT.read_text())
ROWS = TABLE["rows"]
# The most shared memory that a block can have, in bytes: CUDA's programming guide, table of compute capabilities.
SHARED = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
SMALLEST_SHARED = 99 * 1024  # 8.6, 8.9 and 12.0
INSTRUCTION = {80: "mma.sync", 90: "wgmma.mma_async", 100: "tcgen05.mma"}


def test_table_is_of_these_kernels_and_of_what_the_autotuner_may_pick():
    """If not: `nox -s bench -- attention_compiled`, which takes some minutes."""
    assert TABLE["kernels"] == COMPILED.digest()
    wanted = COMPILED.cases()
    assert [{name: row[name] for name in wanted[0]} for row in ROWS] == wanted
    assert len(ROWS) <= 60


@pytest.mark.skipif(bool(of_another_triton(TABLE["triton"])), reason=of_another_triton(TABLE["triton"]))
def test_compiling_now_gives_what_the_table_says():
    row = next(row for row in ROWS if (row["kernel"], row["head_size"], row["capability"]) == ("_forward", 64, 90))
    (wanted, *_) = COMPILED.cases()
    assert COMPILED.compile_all([{name: row[name] for name in wanted}]) == [row]


def test_table_is_of_the_triton_that_is_pinned():
    assert f"\ntriton=={TABLE['triton']}\n" in (ROOT / "constraints.txt").read_text()


def test_nothing_spills_at_half_precision_and_the_usual_head_sizes():
    usual = [row for row in ROWS if row["head_size"] in (64, 128) and row["dtype"] != "float32"]
    assert {row["capability"] for row in usual} == {80, 90, 100}
    assert [row for row in usual if row["stack"] != 0] == []


def test_shared_memory_fits():
    assert [row for row in ROWS if row["shared"] > SHARED[row["capability"]]] == []
    smallest = {}
    for row in ROWS:
        if row["capability"] == 80:
            smallest.setdefault((row["kernel"], row["head_size"], row["dtype"]), []).append(row["shared"])
    assert {kernel: used for kernel, used in smallest.items() if min(used) > SMALLEST_SHARED} == {}


def test_half_precision_uses_the_matrix_instructions_of_its_gpu():
    halves = [row for row in ROWS if row["dtype"] != "float32"]
    assert [row for row in halves if row["matrix"] != INSTRUCTION[row["capability"]]] == []


def test_float32_is_not_tf32():
    singles = [row for row in ROWS if row["dtype"] == "float32"]
    assert {row["kernel"] for row in singles} == set(COMPILED.KERNELS)
    assert [row for row in singles if row["tf32"] or row["matrix"]] == []


def test_tensor_memory_accelerator_loads_where_there_is_one():
    assert [row for row in ROWS if row["tma"] != (row["capability"] >= 90)] == []


# The benchmark.


def test_rows_compare_with_the_best_of_torch():
    benchmark = load("attention")
    calls = []

    def milliseconds(function):
        function()
        calls.append(function)
        return 1.0 if len(calls) % 2 else 5.0

    sizes = {"lengths": (8, 16), "head_sizes": (16,), "channels": 16, "tokens": 16}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = list(benchmark.rows(milliseconds, device=device, **sizes))
    assert [(row["pass"], row["causal"], row["length"]) for row in rows[:3]] == [
        ("forward", False, 8),
        ("backward", False, 8),
        ("forward", False, 16),
    ]
    assert len(rows) == 8
    for row in rows:
        assert {"zhixing", "flash", "math"} <= row["tflops"].keys()
        assert row["of_best"] == 1.0 or not any(row["tflops"].values())


@pytest.mark.parametrize(("causal", "count"), [(False, 4 * 2 * 3 * 5**2 * 7), (True, 2 * 2 * 3 * 5**2 * 7)])
def test_operations(causal, count):
    assert load("attention").operations((2, 3, 5, 7), causal) == count


def test_result_is_named_after_the_device():
    path = load("gpu").result_path("attention", "NVIDIA H100 80GB HBM3")
    assert path.name == "attention-nvidia-h100-80gb-hbm3.json"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_benchmark_without_a_gpu_says_so():
    with pytest.raises(SystemExit, match="torch finds none here"):
        load("gpu").record(load("attention").rows, "attention", "")


def test_record_is_what_was_measured(tmp_path, monkeypatch):
    gpu = load("gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    monkeypatch.setattr(gpu, "RESULTS", tmp_path)
    gpu.record(lambda median: [{"length": 1}, {"length": 2}], "attention", "ms")
    saved = json.loads((tmp_path / "attention-some-gpu.json").read_text())
    assert (saved["device"], saved["unit"]) == ("Some GPU", "ms")
    assert saved["rows"] == [{"length": 1}, {"length": 2}]
