"""A Bench on a clock that its contenders move, and one on the real clock."""

import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import measure
import models
import pytest
import torch

from spai_train.detectors.spai.model import SPAI, SPAIConfig
from tests.support.desk import Clock, Desk


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The one that turns are timed by, too."""
    clock = Clock()
    monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter=clock, process_time=clock))
    return clock


@pytest.fixture
def desk(tiny_config: SPAIConfig, tmp_path: Path, clock: Clock) -> Desk:
    torch.manual_seed(0)
    return Desk(SPAI(tiny_config).eval(), tmp_path, clock)


@pytest.fixture
def real(tiny_config: SPAIConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A clock that goes by itself, and the benchmarks' tiny model, which is exported to a folder of the test's."""
    monkeypatch.setitem(models.CONFIGS, "tiny", tiny_config)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return Desk(models.random_model("tiny"), tmp_path, time.perf_counter, seconds=0.01, rounds=1)
