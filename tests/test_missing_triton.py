"""What functions with kernels say where there is no Triton, or no GPU."""

import os
import subprocess
import sys

import pytest

from zhixing_copy.catalogue import installed
from zhixing_copy.standalone import standalone

QKV = "*torch.zeros(3, 1, 1, 4, 16)"
# {module: (arguments, the name of the first one)}
CALLS = {
    "attention/flash_attention": (QKV, "q"),
    "attention/fused_linear_attention": (QKV, "q"),
    "sequence/fused_selective_scan": ("x := torch.zeros(1, 1, 1), x, x[0], x, x", "u"),
}
EACH = pytest.mark.parametrize("module", CALLS)
pytestmark = pytest.mark.wrong_input


def last_line_of_errors(module: str, before: str = "") -> str:
    """Call the function in a process of its own, with Triton's interpreter off."""
    name = module.rpartition("/")[2]
    imports = f"import torch\nfrom zhixing.{module.replace('/', '.')} import {name}\n"
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", f"{before}{imports}{name}({CALLS[module][0]})\n"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    return done.stderr.splitlines()[-1]


@EACH
def test_without_triton(module):
    last = last_line_of_errors(module, "import sys\nsys.modules['triton'] = None\n")
    assert last.startswith(f"ModuleNotFoundError: {module.rpartition('/')[2]} needs Triton")
    assert last.endswith("pip install triton")


@EACH
def test_copied_file_without_triton(module, monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs Triton, .* pip install triton"):
        exec(standalone(installed(), module).text, {"__name__": "copy"})


@EACH
def test_without_gpu_and_interpreter(module):
    last, first = last_line_of_errors(module), CALLS[module][1]
    assert last.startswith(f"RuntimeError: {module.rpartition('/')[2]} runs on a GPU, but {first} is on cpu")
    assert f"{first}.to('cuda')" in last
    assert "TRITON_INTERPRET=1" in last
