"""Set environment variables before torch and Triton are imported, also for processes that tests start."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for environments.py and portable.py

# Each xdist worker has one core: more threads than cores would triple the processor time.
os.environ["OMP_NUM_THREADS"] = "1"

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # run the kernels in its interpreter
