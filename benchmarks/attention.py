"""Compare flash_attention with torch's attention on this machine's GPU: `python benchmarks/attention.py`.

Forward and backward, in float16; the numbers of heads and batch entries give 2048 channels and 16384 tokens. All of
torch's backends run on the same tensors, except those that do not support them.
"""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product

import torch
from gpu import record
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from zhixing.attention.flash_attention import flash_attention

LENGTHS = (512, 1024, 2048, 4096, 8192, 16384)
HEAD_SIZES = (64, 128)
BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}


def rows(
    milliseconds: Callable[[Callable[[], object]], float],
    *,
    device: str = "cuda",
    lengths: tuple[int, ...] = LENGTHS,
    head_sizes: tuple[int, ...] = HEAD_SIZES,
    channels: int = 2048,
    tokens: int = 16384,
) -> Iterator[dict]:
    """Yield, for each shape and pass, the TFLOP/s of each function, and ours divided by the best of torch's."""
    for head_size, causal, length in product(head_sizes, (False, True), lengths):
        shape = (tokens // length, channels // head_size, length, head_size)
        q, k, v, d_out = (torch.randn(shape, device=device, dtype=torch.float16) for _ in range(4))
        q, k, v = (x.requires_grad_() for x in (q, k, v))
        speeds: dict[str, dict[str, float]] = {"forward": {}, "backward": {}}
        for name, attention in {"zhixing": flash_attention, **torch_backends()}.items():
            try:
                times = forward_and_backward(partial(attention, causal=causal), q, k, v, d_out, milliseconds)
            except RuntimeError as error:  # such as out of memory
                if name == "zhixing":
                    raise
                print(f"{name} does not support {shape}: {str(error).splitlines()[0]}", file=sys.stderr)
                continue
            for direction, time, factor in zip(speeds, times, (1, 2.5), strict=True):
                speeds[direction][name] = factor * operations(shape, causal) / time / 1e9
        for direction, tflops in speeds.items():
            best = max((speed for name, speed in tflops.items() if name != "zhixing"), default=None)
            yield {
                "pass": direction,
                "head_size": head_size,
                "causal": causal,
                "length": length,
                "tflops": {name: round(speed, 1) for name, speed in tflops.items()},
                "of_best": best and round(tflops["zhixing"] / best, 3),
            }


def forward_and_backward(attention, q, k, v, d_out, milliseconds) -> tuple[float, float]:
    with torch.no_grad():
        forward = milliseconds(lambda: attention(q, k, v))
    out = attention(q, k, v)
    return forward, milliseconds(lambda: torch.autograd.grad(out, (q, k, v), d_out, retain_graph=True))


def torch_backends() -> dict[str, Callable[..., torch.Tensor]]:
    def with_backend(backend: SDPBackend) -> Callable[..., torch.Tensor]:
        def attention(q, k, v, *, causal):
            with sdpa_kernel(backend):
                return scaled_dot_product_attention(q, k, v, is_causal=causal)

        return attention

    return {name: with_backend(backend) for name, backend in BACKENDS.items()}


def operations(shape: tuple[int, int, int, int], causal: bool) -> float:
    """Count the operations of the forward pass's two matrix products; the backward pass has five, 2.5 times as many."""
    batch, heads, n, d = shape
    return 4 * batch * heads * n * n * d / (2 if causal else 1)


if __name__ == "__main__":
    record(rows, "attention", "TFLOP/s, from the median of the times")
