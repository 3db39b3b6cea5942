"""What linear attention's kernels compile to for GPUs that are not here; and the benchmark for a GPU, without one."""

import json
from pathlib import Path

import pytest
import torch
from benchmark import load, of_another_triton

ROOT = Path(__file__).resolve().parents[2]


COMPILED = load("linear_attention_compiled")
TABLE = json.loads(COMPILED.RESULT.read_text())
ROWS = TABLE["rows"]
HALVES = [row for row in ROWS if row["dtype"] != "float32"]
# The most shared memory of a block on 8.6, 8.9 and 12.0, in bytes; others have more. Source: CUDA's programming guide.
SMALLEST_SHARED = 99 * 1024
INSTRUCTION = {80: "mma.sync", 90: "wgmma.mma_async", 100: "tcgen05.mma"}


def test_table_is_of_these_kernels_and_of_what_the_autotuner_may_pick():
    """If not: `nox -s bench -- linear_attention_compiled`, which takes some minutes."""
    assert TABLE["kernels"] == COMPILED.digest()
    wanted = COMPILED.cases()
    assert [{name: row[name] for name in wanted[0]} for row in ROWS] == wanted


@pytest.mark.skipif(bool(of_another_triton(TABLE["triton"])), reason=of_another_triton(TABLE["triton"]))
def test_compiling_now_gives_what_the_table_says():
    row = next(row for row in ROWS if (row["kernel"], row["head_size"], row["capability"]) == ("_outputs", 128, 90))
    (wanted, *_) = COMPILED.cases()
    assert COMPILED.compile_all([{name: row[name] for name in wanted}], COMPILED.__file__) == [row]


def test_table_is_of_the_triton_that_is_pinned():
    assert f"\ntriton=={TABLE['triton']}\n" in (ROOT / "constraints.txt").read_text()


def test_nothing_spills_at_half_precision_and_the_usual_head_sizes():
    assert {(row["head_size"], row["capability"]) for row in HALVES} == {
        (d, gpu) for d in (64, 128) for gpu in INSTRUCTION
    }
    assert [row for row in HALVES if row["stack"] != 0] == []


def test_shared_memory_fits():
    assert [row for row in ROWS if row["shared"] > SMALLEST_SHARED] == []


def test_half_precision_uses_the_matrix_instructions_of_its_gpu():
    products = [row for row in HALVES if row["kernel"] != "_divisor_gradients"]
    assert [row for row in products if row["matrix"] != INSTRUCTION[row["capability"]]] == []


def test_only_states_beside_16_bits_are_tf32():
    assert {row["kernel"] for row in HALVES if row["tf32"]} == {"_outputs", "_gradients_qk", "_gradients_v"}
    singles = [row for row in ROWS if row["dtype"] == "float32"]
    assert {row["kernel"] for row in singles} == set(COMPILED.KERNELS)
    assert [row for row in singles if row["tf32"] or row["matrix"]] == []


# The benchmark.


def test_rows_compare_with_softmax_attention_and_with_fla_if_it_is_there():
    benchmark = load("linear_attention")

    def milliseconds(function):
        function()
        return 1.0

    device = "cuda" if torch.cuda.is_available() else "cpu"
    sizes = {"lengths": (8, 16), "head_sizes": (16,), "channels": 16, "tokens": 16}
    rows = list(benchmark.rows(milliseconds, device=device, **sizes))
    assert [(row["pass"], row["length"]) for row in rows] == [
        (direction, n) for n in (8, 16) for direction in ("forward", "backward")
    ]
    fla = 1.0 if benchmark.flas() else "not measured"
    assert [row["milliseconds"] for row in rows] == [{"zhixing": 1.0, "fla": fla, "softmax": 1.0}] * 4
