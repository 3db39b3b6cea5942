"""Set before anything imports Triton: without a GPU its interpreter runs the kernels."""

import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
