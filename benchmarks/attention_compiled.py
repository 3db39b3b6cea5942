"""Compile, without a GPU, all configurations of flash_attention's autotuner: `python benchmarks/attention_compiled.py`.

Record the properties of the compiled code for each configuration and GPU: registers and stack of a thread (a stack
means that registers spill), shared memory of a block, matrix instructions, and loads by the tensor memory accelerator.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src/zhixing/attention/flash_attention_triton.py"
RESULT = ROOT / "benchmarks/results/attention_compiled.json"

# A100, H100, B100 and B200, by compute capability.
CAPABILITIES = (80, 90, 100)
# Head sizes and types: the two most common sizes, with one 16-bit type each, then the extremes of the supported range.
SHAPES = ((64, "float16"), (128, "bfloat16"), (256, "float16"), (64, "float32"))
INSTRUCTIONS = ("mma.sync", "wgmma.mma_async", "tcgen05.mma")
KERNELS = ("_forward", "_backward_q", "_backward_kv")
TILES = ("queries", "keys", "warps", "stages")


def cases() -> list[dict]:
    """Return every configuration of every kernel, with the causal mask, whose code is longer than without."""
    import torch

    from zhixing.attention.flash_attention_triton import _tiles_to_try

    return [
        {
            "kernel": kernel,
            "head_size": size,
            "dtype": dtype,
            **dict(zip(TILES, tiles, strict=False)),
            "capability": capability,
        }
        for size, dtype in SHAPES
        for kernel in KERNELS
        for capability in CAPABILITIES
        for tiles in _tiles_to_try(kernel, size, getattr(torch, dtype), capability)
    ]


def compile_all(wanted: list[dict], script: str = __file__) -> list[dict]:
    """Return the properties of each case, in the same order; each core compiles a share of them in its own process."""
    workers = min(os.cpu_count(), len(wanted))
    with ThreadPoolExecutor(workers) as pool:
        parts = list(pool.map(partial(_in_child, script), [wanted[i::workers] for i in range(workers)]))
    return [parts[i % workers][i // workers] for i in range(len(wanted))]


def _in_child(script: str, wanted: list[dict]) -> list[dict]:
    # With this variable Triton's interpreter would replace the compiler.
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, script, "--child", json.dumps(wanted)]
    with tempfile.TemporaryDirectory() as cache:
        environment["TRITON_CACHE_DIR"] = cache  # empty
        completed = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(completed.stdout)


def compile_one(
    kernel: str, head_size: int, dtype: str, queries: int, keys: int, warps: int, stages: int, capability: int
) -> dict:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from zhixing.attention import flash_attention_triton

    function = getattr(flash_attention_triton, kernel)
    constants = {
        "GROUP": 1,
        "HEAD_SIZE": head_size,
        "BLOCK_D": triton.next_power_of_2(head_size),
        "CAUSAL": True,
        "BLOCK_Q": queries,
        "BLOCK_K": keys,
    }
    # As in a launch with contiguous tensors: addresses and strides are multiples of 16, except the last stride, 1.
    element = {"float16": "*fp16", "bfloat16": "*bf16", "float32": "*fp32"}[dtype]
    numbers = {"lse": "*fp32", "delta": "*fp32", "heads": "i32", "n_q": "i32", "n_k": "i32", "bucket": "i32"}
    numbers["scale"] = "fp32"
    signature, constexprs, attributes = {}, {}, {}
    for place, name in enumerate(function.arg_names):
        if name in constants:
            signature[name], constexprs[place,] = "constexpr", constants[name]
        elif name.endswith("_strides"):
            signature[name], constexprs[place, 3] = ("i32", "i32", "i32", "constexpr"), 1
            attributes |= {(place, i): [["tt.divisibility", 16]] for i in range(3)}
        else:
            signature[name] = numbers.get(name, element)
            if signature[name].startswith("*"):
                attributes[place,] = [["tt.divisibility", 16]]
    source = ASTSource(function, signature, constexprs, attributes)
    target = GPUTarget("cuda", capability, 32)
    compiled = triton.compile(source, target=target, options={"num_warps": warps, "num_stages": stages})
    ptx = compiled.asm["ptx"]
    return {
        **usage(compiled),
        "matrix": next((name for name in INSTRUCTIONS if name in ptx), None),
        "tf32": "tf32" in ptx,
        "tma": "cp.async.bulk.tensor" in ptx,
    }


def usage(compiled) -> dict[str, int]:
    """Return the registers and the bytes of stack of a thread, and the bytes of shared memory of a block."""
    import triton

    cuobjdump = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        output = subprocess.run([cuobjdump, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    registers, stack = re.search(r"REG:(\d+) STACK:(\d+)", output).groups()
    return {"registers": int(registers), "stack": int(stack), "shared": compiled.metadata.shared}


def digest() -> str:
    return hashlib.sha256(SOURCE.read_bytes()).hexdigest()


def main(arguments: Iterable[str]) -> None:
    match [*arguments]:
        case ["--child", wanted]:
            print(json.dumps([case | compile_one(**case) for case in json.loads(wanted)]))
        case _:
            import triton

            rows = compile_all(cases())
            lines = ",\n".join(f"    {json.dumps(row)}" for row in rows)
            head = f'  "triton": "{triton.__version__}",\n  "kernels": "{digest()}"'
            RESULT.write_text(f'{{\n{head},\n  "rows": [\n{lines}\n  ]\n}}\n')


if __name__ == "__main__":
    main(sys.argv[1:])
