"""Time fused_selective_scan on this machine's GPU: `python benchmarks/selective_scan.py`.

Forward and backward, in bfloat16 with A, d and the bias in float32, with a gate and a softplus, beside mamba-ssm's
`selective_scan_fn`, which computes the same, if it is installed with that kernel, and zhixing's `selective_scan` in
plain torch. Sizes are those of a layer of Mamba-130M and of Mamba-2.8B.
"""

from collections.abc import Callable, Iterator
from itertools import product

import torch
from gpu import record
from torch.nn.functional import softplus

from zhixing.sequence.fused_selective_scan import fused_selective_scan

SHAPES = ((8, 2048), (1, 2048), (1, 16384))  # batch and length
CHANNELS = (1536, 5120)
NOT_MEASURED = "not measured"


def rows(
    milliseconds: Callable[[Callable[[], object]], float],
    *,
    device: str = "cuda",
    shapes: tuple[tuple[int, int], ...] = SHAPES,
    channels: tuple[int, ...] = CHANNELS,
    size: int = 16,
) -> Iterator[dict]:
    """Yield, for each shape and pass, the milliseconds of each function, or that it was not measured."""
    functions = {"zhixing": ours, "mamba-ssm": mambas(), "torch": plain()}
    for width, (batch, length) in product(channels, shapes):

        def normal(*shape, dtype=torch.bfloat16):
            return torch.randn(shape, device=device, dtype=dtype)

        u, dt, z, d_y = (normal(batch, length, width) for _ in range(4))
        b, c = (normal(batch, length, size) for _ in range(2))
        a = -torch.arange(1.0, size + 1, device=device).repeat(width, 1)
        d, bias = (normal(width, dtype=torch.float32) for _ in range(2))
        given = [x.requires_grad_() for x in (u, dt, a, b, c, d, z, bias)]
        times: dict[str, dict[str, float | str]] = {"forward": {}, "backward": {}}
        for name, function in functions.items():
            measured = (NOT_MEASURED,) * 2
            if function is not None:
                try:
                    measured = forward_and_backward(function, given, d_y, milliseconds)
                except torch.OutOfMemoryError:
                    measured = ("out of memory",) * 2
            for direction, time in zip(times, measured, strict=True):
                times[direction][name] = time if isinstance(time, str) else round(time, 3)
        for direction, of_pass in times.items():
            shape = {"batch": batch, "length": length, "channels": width}
            yield {"pass": direction, **shape, "milliseconds": of_pass}


def ours(u, dt, a, b, c, d, z, bias) -> torch.Tensor:
    return fused_selective_scan(u, dt, a, b, c, d=d, z=z, dt_bias=bias, dt_softplus=True)[0]


def mambas() -> Callable[..., torch.Tensor] | None:
    """Return mamba-ssm's function on our layout; its own is (B, D, L), to which its blocks' projections lead."""
    try:
        import selective_scan_cuda  # noqa: F401, its kernel, which an installation may lack
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except ImportError:
        return None

    def function(u, dt, a, b, c, d, z, bias):
        u, dt, b, c, z = (x.mT.contiguous() for x in (u, dt, b, c, z))
        return selective_scan_fn(u, dt, a, b, c, d, z, bias, delta_softplus=True).mT

    return function


def plain() -> Callable[..., torch.Tensor] | None:
    try:
        from zhixing.sequence.selective_scan import selective_scan
    except ModuleNotFoundError:
        return None
    return lambda u, dt, a, b, c, d, z, bias: selective_scan(u, softplus(dt + bias), a, b, c, d=d, z=z)[0]


def forward_and_backward(function, given, d_y, milliseconds) -> tuple[float, float]:
    with torch.no_grad():
        forward = milliseconds(lambda: function(*given))
    y = function(*given)
    return forward, milliseconds(lambda: torch.autograd.grad(y, given, d_y, retain_graph=True))


if __name__ == "__main__":
    record(rows, "selective-scan", "milliseconds, median")
