"""The closed forms of memory traffic, against what the tiled code loads and against the paper's bounds."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from zhixing.attention.memory_traffic import flash_block, flash_traffic, standard_traffic, tiled_traffic
from zhixing.attention.tiled_attention import tiled_forward


class Moved(TorchDispatchMode):
    """The elements that are converted between float16, which stands for main memory here, and float32."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if function is torch.ops.aten._to_copy.default:
            self.elements += out.numel()
        if function is torch.ops.aten.copy_.default:
            self.elements += args[1].numel()
        return out


@pytest.mark.parametrize(("n", "block_q", "block_k"), [(32, 8, 16), (33, 8, 5), (7, 64, 64), (64, 64, 1)])
def test_tiled_code_loads_and_stores_as_much_as_the_closed_form_says(n, block_q, block_k):
    d = 4
    q, k, v = torch.randn(3, 1, 1, n, d, generator=torch.Generator().manual_seed(0)).half()
    with Moved() as moved:
        tiled_forward(q, k, v, False, 1.0, block_q, block_k)
    assert moved.elements == tiled_traffic(n, d, block_q)


def test_standard_traffic_counts_every_matrix_of_algorithm_0():
    assert standard_traffic(3, 2) == (2 * 6 + 9) + (9 + 9) + (9 + 6 + 6)
    assert standard_traffic(1024, 64) == 4 * 1024**2 + 4 * 1024 * 64


def test_flash_traffic_counts_every_load_and_store_of_algorithm_1():
    # 7 keys in blocks of 3: each of three visits moves Q, O twice, and 7 sums and maxima twice.
    assert flash_block(2, 24) == 3
    assert flash_traffic(7, 2, 24) == (14 + 14) + 3 * (14 + 2 * 14 + 2 * (7 + 7))


def test_flash_traffic_follows_theorem_2():
    """Θ(N² D² / M): fourfold in N doubled and in D doubled, half in M doubled, up to the terms linear in N."""
    n, d, sram = 2**16, 64, 2**16
    base = flash_traffic(n, d, sram)
    assert flash_traffic(2 * n, d, sram) / base == pytest.approx(4, rel=0.01)
    assert flash_traffic(n, 2 * d, sram) / base == pytest.approx(4, rel=0.02)
    assert flash_traffic(n, d, 2 * sram) / base == pytest.approx(1 / 2, rel=0.01)
    # 4D / M visits of 3 N D numbers: the constant is 12.
    assert base / (n**2 * d**2 / sram) == pytest.approx(12, rel=0.03)


def test_no_less_than_inputs_and_output_at_the_largest_memory_of_proposition_3():
    """At M = N D the bound N² D² / M is N D, the size of the input, and nothing can move less."""
    n, d = 4096, 64
    assert n**2 * d**2 / (n * d) == n * d
    assert 4 * n * d <= flash_traffic(n, d, n * d) <= 20 * n * d
    assert tiled_traffic(n, d, n) == 4 * n * d + n


def test_block_of_algorithm_1():
    # On an A100: 192 KB, float16, head size 64.
    assert flash_block(64, 192 * 1024 // 2) == 384
    assert flash_block(64, 100) == 1
