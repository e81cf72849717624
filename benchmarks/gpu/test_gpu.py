"""The encoder on one NVIDIA GPU, by back end, precision and batch size, and `spai-run` end to end (README.md here)."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from gpu.measurement import measure
from gpu.settings import Settings


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no NVIDIA GPU")
def test_gpu(benchmark: Any, request: pytest.FixtureRequest) -> None:
    folder = request.config.getoption("json_results")
    settings = Settings.of(os.environ)
    results = benchmark.pedantic(measure, args=(settings, Path(folder) if folder else None), rounds=1)
    assert any("tiles_per_s" in row for row in results.rows), "no contender ran"
