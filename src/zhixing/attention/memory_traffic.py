"""How many numbers attention moves between a GPU's main memory and its chips, forward, one head.

Source: Dao et al., FlashAttention, arXiv 2205.14135, algorithms 0 and 1, theorem 2 and
proposition 3; Dao, FlashAttention-2, arXiv 2307.08691, algorithm 1.
"""

import math


def standard_traffic(n: int, d: int) -> int:
    """Three kernels, of which each reads its inputs and writes its result: 4 N² + 4 N D.

    Args:
        n: N, the number of queries and of keys.
        d: D, the head size.

    Examples:
        >>> standard_traffic(1024, 64)
        4456448
    """
    logits = 2 * n * d + n * n  # reads Q and K, writes S
    weights = 2 * n * n  # reads S, writes P
    output = n * n + n * d + n * d  # reads P and V, writes O
    return logits + weights + output


def flash_traffic(n: int, d: int, sram: int) -> int:
    """FlashAttention, algorithm 1: keys and values once, queries and output for each block of them.

    Args:
        n: N, the number of queries and of keys.
        d: D, the head size.
        sram: M, the numbers that fit on the chip; D ≤ M ≤ N D.

    Examples:
        >>> flash_traffic(1024, 64, 98304)
        733184
    """
    visits = math.ceil(n / flash_block(d, sram))
    queries = n * d + 2 * n * d  # reads Q and O, writes O
    statistics = 4 * n  # reads and writes the sum and the maximum
    return 2 * n * d + visits * (queries + statistics)


def flash_block(d: int, sram: int) -> int:
    """B_c = ⌈M / 4D⌉, the keys of a tile: four blocks of D columns share the chip.

    Examples:
        >>> flash_block(64, 98304)
        384
    """
    return math.ceil(sram / (4 * d))


def tiled_traffic(n: int, d: int, block_q: int) -> int:
    """FlashAttention-2, algorithm 1: queries and output once, keys and values for each block.

    Args:
        n: N, the number of queries and of keys.
        d: D, the head size.
        block_q: B_r, the queries of a tile.

    Examples:
        >>> tiled_traffic(1024, 64, 128)
        1180672
    """
    visits = math.ceil(n / block_q)
    return n * d + visits * 2 * n * d + n * d + n  # reads Q, K and V, writes O and the log-sum-exp
