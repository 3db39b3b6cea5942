"""Compile, without a GPU, the kernels of fused_selective_scan: `python benchmarks/selective_scan_compiled.py`.

Record registers, stack and shared memory as attention_compiled.py does, for everything that the autotuner may choose,
with all optional inputs, where the code is longest. The forward kernel is compiled with outputs, as a call has it, and
with states, as the backward pass has it.
"""

import hashlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from attention_compiled import CAPABILITIES, compile_all, usage

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src/zhixing/sequence/selective_scan_triton.py"
RESULT = ROOT / "benchmarks/results/selective_scan_compiled.json"

# Mamba's N, with both 16-bit types and float32; the smallest, and a large one.
SHAPES = ((16, "bfloat16"), (16, "float16"), (16, "float32"), (1, "bfloat16"), (64, "bfloat16"))
# {name: (kernel, the output that is None)}
KERNELS = {"outputs": ("_forward", "states"), "states": ("_forward", "y"), "gradients": ("_backward", None)}
OF_TYPE = {"u", "dt", "b", "c", "z", "y", "d_y", "d_u", "d_dt", "d_z"}  # the others are float32


def cases() -> list[dict]:
    """Return everything that may be launched at these sizes."""
    from zhixing.sequence.selective_scan_triton import _warps_to_try

    return [
        {"computes": name, "state_size": size, "dtype": dtype, "warps": warps, "capability": capability}
        for size, dtype in SHAPES
        for name, (kernel, _) in KERNELS.items()
        for capability in CAPABILITIES
        for warps in _warps_to_try(kernel, capability)
    ]


def compile_one(computes: str, state_size: int, dtype: str, warps: int, capability: int) -> dict:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from zhixing.sequence import selective_scan_triton

    kernel, absent = KERNELS[computes]
    function = getattr(selective_scan_triton, kernel)
    constants = {"SOFTPLUS": True, "SIZE": state_size, **selective_scan_triton._blocks(state_size)}
    # As in a launch with contiguous tensors: addresses and strides are multiples of 16, except the last stride, 1.
    element = {"float16": "*fp16", "bfloat16": "*bf16", "float32": "*fp32"}[dtype]
    signature, constexprs, attributes = {}, {}, {}
    for place, name in enumerate(function.arg_names):
        if name in constants or name == absent:
            signature[name], constexprs[place,] = "constexpr", constants.get(name)
        elif name.endswith("_strides"):
            outer = 3 if name in ("b_strides", "c_strides") else 2
            signature[name], constexprs[place, outer] = ("i32",) * outer + ("constexpr",), 1
            attributes |= {(place, i): [["tt.divisibility", 16]] for i in range(outer)}
        elif name in ("channels", "groups", "n", "bucket"):
            signature[name] = "i32"
        else:
            signature[name] = element if name in OF_TYPE else "*fp32"
            attributes[place,] = [["tt.divisibility", 16]]
    source = ASTSource(function, signature, constexprs, attributes)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps})
    return usage(compiled)


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
