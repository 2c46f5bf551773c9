"""The device of tests marked `gpu`: a CUDA device; with BLIP2_TEST_DEVICE=cpu a CPU, to rehearse them."""

from __future__ import annotations

import os

import pytest
import torch

DEVICE = os.environ.get("BLIP2_TEST_DEVICE", "cuda")
ON_GPU = DEVICE == "cuda"
MARKS = [
    pytest.mark.gpu,
    pytest.mark.skipif(ON_GPU and not torch.cuda.is_available(), reason="needs a CUDA device"),
]
"""Of every module with such tests: `pytestmark = MARKS`."""
