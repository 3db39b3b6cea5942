"""What the selective scan's kernels compile to for GPUs that are not here; and the benchmark for a GPU, without one."""

import json
from pathlib import Path

import pytest
import torch
from benchmark import load, of_another_triton

ROOT = Path(__file__).resolve().parents[2]


COMPILED = load("selective_scan_compiled")
TABLE = json.loads(COMPILED.RESULT.read_text())
ROWS = TABLE["rows"]
# The most shared memory of a block on 8.6, 8.9 and 12.0, in bytes; others have more. Source: CUDA's programming guide.
SMALLEST_SHARED = 99 * 1024


def test_table_is_of_these_kernels_and_of_what_the_autotuner_may_pick():
    """If not: `nox -s bench -- selective_scan_compiled`, which takes some minutes."""
    assert TABLE["kernels"] == COMPILED.digest()
    wanted = COMPILED.cases()
    assert [{name: row[name] for name in wanted[0]} for row in ROWS] == wanted


@pytest.mark.skipif(bool(of_another_triton(TABLE["triton"])), reason=of_another_triton(TABLE["triton"]))
def test_compiling_now_gives_what_the_table_says():
    wanted = {"computes": "gradients", "state_size": 16, "dtype": "bfloat16", "warps": 4, "capability": 90}
    (row,) = (row for row in ROWS if wanted.items() <= row.items())
    assert COMPILED.compile_all([wanted], COMPILED.__file__) == [row]


def test_table_is_of_the_triton_that_is_pinned():
    assert f"\ntriton=={TABLE['triton']}\n" in (ROOT / "constraints.txt").read_text()


def test_nothing_spills_with_mambas_16_states_or_one():
    usual = [row for row in ROWS if row["state_size"] <= 16]
    assert {(row["state_size"], row["dtype"], row["capability"]) for row in usual} == {
        (size, dtype, gpu) for size, dtype in COMPILED.SHAPES[:4] for gpu in (80, 90, 100)
    }
    assert [row for row in usual if row["stack"] != 0] == []


def test_with_more_states_something_does_not_spill():
    kernels = {(row["computes"], row["capability"]) for row in ROWS if row["state_size"] == 64}
    assert len(kernels) == 9
    assert kernels == {
        (row["computes"], row["capability"]) for row in ROWS if row["state_size"] == 64 and row["stack"] == 0
    }


def test_shared_memory_fits():
    assert [row for row in ROWS if row["shared"] > SMALLEST_SHARED] == []


# The benchmark.


def test_rows_compare_with_mamba_ssm_and_plain_torch_if_they_are_there():
    benchmark = load("selective_scan")

    def milliseconds(function):
        function()
        return 1.0

    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = list(benchmark.rows(milliseconds, device=device, shapes=((1, 2),), channels=(2, 3), size=2))
    assert [(row["pass"], row["channels"]) for row in rows] == [
        (direction, width) for width in (2, 3) for direction in ("forward", "backward")
    ]
    others = {"mamba-ssm": benchmark.mambas(), "torch": benchmark.plain()}
    expected = {name: "not measured" if function is None else 1.0 for name, function in others.items()}
    assert [row["milliseconds"] for row in rows] == [{"zhixing": 1.0} | expected] * 4
