"""Which errors mean that a device has too little memory, and what one line says then."""

from __future__ import annotations

import pytest
import torch

from blip2_train.errors import TrainingError
from blip2_train.training.out_of_memory import is_out_of_memory, out_of_memory_in_one_line

CUDA = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.64 GiB of which 1.20 GiB is free."
)
IN_OTHER_ERRORS = (
    f"{CUDA}\nException raised from malloc at CUDACachingAllocator.cpp",
    "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 8",
    "MPS backend out of memory (MPS allocated: 5.00 GiB, other allocations: 1.00 GiB, max allowed: 6.00 GiB).",
)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError(CUDA), *map(RuntimeError, IN_OTHER_ERRORS)])
def test_every_error_of_a_device_without_memory_is_one_line(error: RuntimeError) -> None:
    def training_step() -> None:
        raise error

    with pytest.raises(TrainingError) as refused, out_of_memory_in_one_line(1680, 16, 1):
        training_step()
    line = str(refused.value)
    assert "too little memory for micro-batches of 105 samples" in line and "\n" not in line
    assert "pass accumulate=20 (micro-batches of 84; the step stays 1680 samples)" in line
    assert refused.value.__cause__ is None and refused.value.__suppress_context__, "torch prints nothing of its own"


def test_other_errors_stay_as_they_are() -> None:
    for text in ("CUDA error: an illegal memory access was encountered", "shape '[2]' is invalid for input of size 3"):
        assert not is_out_of_memory(RuntimeError(text))
        with pytest.raises(RuntimeError, match=text.split("'")[0]), out_of_memory_in_one_line(8, 1, 1):
            raise RuntimeError(text)
