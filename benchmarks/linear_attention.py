"""Time fused_linear_attention on this machine's GPU: `python benchmarks/linear_attention.py`.

Forward and backward, in bfloat16, with a decay for each token, beside torch's softmax attention with a causal mask, and
fla's `chunk_simple_gla`, which computes the same, if it is installed. The numbers of heads and batch entries give 2048
channels and 16384 tokens.
"""

from collections.abc import Callable, Iterator
from itertools import product

import torch
from gpu import record
from torch.nn.functional import scaled_dot_product_attention

from zhixing.attention.fused_linear_attention import fused_linear_attention

LENGTHS = (512, 1024, 2048, 4096, 8192, 16384)
HEAD_SIZES = (64, 128)
NOT_MEASURED = "not measured"


def rows(
    milliseconds: Callable[[Callable[[], object]], float],
    *,
    device: str = "cuda",
    lengths: tuple[int, ...] = LENGTHS,
    head_sizes: tuple[int, ...] = HEAD_SIZES,
    channels: int = 2048,
    tokens: int = 16384,
) -> Iterator[dict]:
    """Yield, for each shape and pass, the milliseconds of each function, or that it was not measured."""
    for head_size, length in product(head_sizes, lengths):
        shape = (tokens // length, channels // head_size, length, head_size)
        q, k, v, d_out = (torch.randn(shape, device=device, dtype=torch.bfloat16) for _ in range(4))
        log_decay = -torch.rand(shape[:3], device=device) / 16
        given = [x.requires_grad_() for x in (q, k, v, log_decay)]
        times: dict[str, dict[str, float | str]] = {"forward": {}, "backward": {}}
        for name, attention in {"zhixing": ours, "fla": flas(), "softmax": softmax}.items():
            measured = (NOT_MEASURED,) * 2
            if attention is not None:
                measured = forward_and_backward(attention, given, d_out, milliseconds)
            for direction, time in zip(times, measured, strict=True):
                times[direction][name] = time if time == NOT_MEASURED else round(time, 3)
        for direction, of_pass in times.items():
            yield {"pass": direction, "head_size": head_size, "length": length, "milliseconds": of_pass}


def ours(q, k, v, log_decay) -> torch.Tensor:
    return fused_linear_attention(q, k, v, log_decay=log_decay)[0]


def softmax(q, k, v, log_decay) -> torch.Tensor:
    return scaled_dot_product_attention(q, k, v, is_causal=True)


def flas() -> Callable[..., torch.Tensor] | None:
    """Return fla's function on our layout, without the time of changing it: its own is (B, N, H, D)."""
    try:
        from fla.ops.simple_gla import chunk_simple_gla
    except ModuleNotFoundError:
        return None

    def attention(q, k, v, log_decay):
        moved = (x.transpose(1, 2) for x in (q, k, v, log_decay))
        return chunk_simple_gla(*moved)[0].transpose(1, 2)

    return attention


def forward_and_backward(attention, given, d_out, milliseconds) -> tuple[float, float]:
    with torch.no_grad():
        forward = milliseconds(lambda: attention(*given))
    out = attention(*given)
    settings = {"retain_graph": True, "allow_unused": True}  # softmax attention has no decay
    return forward, milliseconds(lambda: torch.autograd.grad(out, given, d_out, **settings))


if __name__ == "__main__":
    record(rows, "linear-attention", "milliseconds, median")
