"""Devices of the GPU tests: always the CPU, so that the tests stay in use, and a CUDA device if there is one."""

import pytest
import torch

WITHOUT_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(scope="session", params=["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, WITHOUT_CUDA])])
def device(request: pytest.FixtureRequest) -> str:
    """A torch device."""
    return request.param
