"""Compile, without a GPU, the kernels of fused_linear_attention: `python benchmarks/linear_attention_compiled.py`.

Record the same properties as attention_compiled.py, for everything that the autotuner may choose, with a decay and
normalized, where the code is longest. The matrix instructions of 16 bits multiply states in TF32; float32 uses none.
"""

import hashlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from attention_compiled import CAPABILITIES, INSTRUCTIONS, compile_all, usage

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src/zhixing/attention/linear_attention_triton.py"
RESULT = ROOT / "benchmarks/results/linear_attention_compiled.json"

# The two most common head sizes, D = E, with one 16-bit type each, then float32.
SHAPES = ((64, "float16"), (128, "bfloat16"), (64, "float32"))
KERNELS = ("_carry", "_outputs", "_divisor_gradients", "_gradients_qk", "_gradients_v")
OF_TYPE = {"q", "k", "v", "out", "d_out", "a", "b", "d_q", "d_k", "d_v"}  # the others are float32


def cases() -> list[dict]:
    """Return everything that may be launched at these sizes; `_carry` also reversed."""
    from zhixing.attention.linear_attention_triton import _launches_to_try

    return [
        {
            "kernel": kernel,
            "reversed": backward,
            "head_size": size,
            "dtype": dtype,
            "warps": launch.warps,
            "stages": launch.stages,
            "capability": capability,
        }
        for size, dtype in SHAPES
        for kernel in KERNELS
        for backward in ((False, True) if kernel == "_carry" else (False,))
        for capability in CAPABILITIES
        for launch in _launches_to_try(kernel, capability)
    ]


def compile_one(
    kernel: str, head_size: int, dtype: str, warps: int, stages: int, capability: int, **reverse: bool
) -> dict:
    import torch
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from zhixing.attention import linear_attention_triton

    function = getattr(linear_attention_triton, kernel)
    of_size = torch.empty(1, 1, 1, head_size, dtype=getattr(torch, dtype), device="meta")
    constants = {
        "SIZE_D": head_size,
        "SIZE_E": head_size,
        "REVERSED": reverse["reversed"],
        **linear_attention_triton._blocks(function, of_size, of_size),
    }
    # As in a launch with contiguous tensors: addresses and strides are multiples of 16, except the last stride, 1.
    element = {"float16": "*fp16", "bfloat16": "*bf16", "float32": "*fp32"}[dtype]
    numbers = {"heads": "i32", "n": "i32", "bucket": "i32", "scale": "fp32"}
    signature, constexprs, attributes = {}, {}, {}
    for place, name in enumerate(function.arg_names):
        if name in constants:
            signature[name], constexprs[place,] = "constexpr", constants[name]
        elif name.endswith("_strides"):
            outer = 2 if name == "decay_strides" else 3
            signature[name], constexprs[place, outer] = ("i32",) * outer + ("constexpr",), 1
            attributes |= {(place, i): [["tt.divisibility", 16]] for i in range(outer)}
        elif name in numbers:
            signature[name] = numbers[name]
        else:
            signature[name] = element if name in OF_TYPE else "*fp32"
            attributes[place,] = [["tt.divisibility", 16]]
    source = ASTSource(function, signature, constexprs, attributes)
    target = GPUTarget("cuda", capability, 32)
    compiled = triton.compile(source, target=target, options={"num_warps": warps, "num_stages": stages})
    ptx = compiled.asm["ptx"]
    matrix = next((name for name in INSTRUCTIONS if name in ptx), None)
    return {**usage(compiled), "matrix": matrix, "tf32": "tf32" in ptx}


def digest() -> str:
    return hashlib.sha256(SOURCE.read_bytes()).hexdigest()


def main(arguments: Iterable[str]) -> None:
    match [*arguments]:
        case ["--child", wanted]:
            print(json.dumps([case | compile_one(**case) for case in json.loads(wanted)]))
        case _:
            import triton

            rows = compile_all(cases(), __file__)
            lines = ",\n".join(f"    {json.dumps(row)}" for row in rows)
            head = f'  "triton": "{triton.__version__}",\n  "kernels": "{digest()}"'
            RESULT.write_text(f'{{\n{head},\n  "rows": [\n{lines}\n  ]\n}}\n')


if __name__ == "__main__":
    main(sys.argv[1:])
