"""Set before anything imports torch or Triton, here and in the processes that tests start."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # where tests find environments.py

# Each worker of xdist has a core: more threads than cores wait for each other, and triple the processor time.
os.environ["OMP_NUM_THREADS"] = "1"

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # without a GPU its interpreter runs the kernels
