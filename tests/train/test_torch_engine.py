"""A checkpoint scored in torch, and the same exported: one pipeline, the same numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spai_runtime.detector import Detector
from spai_runtime.engines.base import DeviceMemoryError
from spai_train.data.table import Row
from spai_train.detectors.spai.model import SPAI
from spai_train.evaluation.scored import score_rows
from spai_train.memory import BatchLimit
from spai_train.torch_engine import (
    CPU_BATCH_SIZE,
    CUDA_BATCH_SIZE,
    TorchEngine,
    as_detector,
    evaluating,
    load_detector,
)
from tests.support.images import Write


def test_scores_are_those_of_the_exported_detector(tiny_checkpoint: Path, tiny_detector: Path, photo: Write) -> None:
    path = photo("a.png", 70, 90)
    with load_detector(tiny_checkpoint, "cpu") as ours, Detector.load(tiny_detector, device="cpu") as exported:
        assert ours.score(path).logit == pytest.approx(exported.score(path).logit, abs=1e-5)
        assert ours.threshold == exported.threshold
        assert ours.manifest.views == exported.manifest.views


def test_a_threshold_of_the_user_wins(tiny_checkpoint: Path) -> None:
    with load_detector(tiny_checkpoint, "cpu", threshold=0.25) as detector:
        assert (detector.threshold.value, detector.threshold.source) == (0.25, "given by the user")


def test_bf16_is_close_and_comes_out_as_float32(tiny_model: SPAI, photo: Write) -> None:
    path = photo("a.png", 70, 90)
    half = as_detector(tiny_model, precision=torch.bfloat16).score(path)
    assert half.attention.dtype == "float32"
    assert half.logit == pytest.approx(as_detector(tiny_model).score(path).logit, abs=0.05)


@pytest.mark.parametrize("device", ["cpu", "cpu:1"])
def test_batches_suit_the_device(device: str) -> None:
    """One of several processes on a CPU has a number."""
    assert TorchEngine(torch.nn.Identity(), device).batch_size == CPU_BATCH_SIZE
    assert TorchEngine(torch.nn.Identity(), "cuda:0").batch_size == CUDA_BATCH_SIZE


def test_evaluating_gives_the_mode_back() -> None:
    model = torch.nn.Dropout().train()
    with evaluating(model):
        assert not model.training
    assert model.training


class Room(nn.Module):
    """Runs out of memory above so many views; what it gives of a view is its own."""

    def __init__(self, views: int, error: Exception) -> None:
        super().__init__()
        self.views, self.error, self.seen = views, error, list[int]()

    def forward(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        self.seen.append(len(batch))
        if len(batch) > self.views:
            raise self.error
        return batch * 2, batch.sum(dim=1)


FULL = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    MemoryError(),
)


@pytest.mark.parametrize("error", FULL)
@pytest.mark.parametrize("room", [1, 3, 10])
def test_a_batch_that_is_too_large_is_halved_and_says_so_once(
    room: int, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    module, batch = Room(room, error), np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    engine = TorchEngine(module, "cpu")
    for _ in range(2):
        doubled, total = engine.run(batch)
        np.testing.assert_array_equal(doubled, batch * 2)
        np.testing.assert_allclose(total, batch.sum(axis=1), rtol=1e-5, atol=1e-6)
    size = {1: 1, 3: 2, 10: 10}[room]
    tried = {1: [10, 5, 2], 3: [10, 5], 10: []}[room]
    assert module.seen == tried + [size] * (20 // size)
    views = {1: "1 view", 3: "2 views"}.get(room)
    assert caplog.messages == ([f"cpu is out of memory; going on with batches of {views}"] if views else [])


def test_one_view_that_does_not_fit_is_a_sentence() -> None:
    with pytest.raises(DeviceMemoryError, match=r"^cpu has too little memory left for a batch of 1$"):
        TorchEngine(Room(0, MemoryError()), "cpu").run(np.zeros((4, 3), np.float32))


def test_another_error_is_itself() -> None:
    module = Room(0, RuntimeError("size mismatch"))
    with pytest.raises(RuntimeError, match="size mismatch"):
        TorchEngine(module, "cpu").run(np.zeros((4, 3), np.float32))
    assert module.seen == [4]


def test_a_limit_holds_from_one_engine_to_the_next() -> None:
    limit = BatchLimit(8)
    assert TorchEngine(nn.Identity(), "cuda:0", limit=limit).batch_size == 8
    TorchEngine(Room(3, MemoryError()), "cpu", limit=limit).run(np.zeros((20, 3), np.float32))
    module = Room(3, MemoryError())
    engine = TorchEngine(module, "cpu", limit=limit)
    assert engine.batch_size == limit.views == 2
    engine.run(np.zeros((5, 3), np.float32))
    assert module.seen == [2, 2, 1]


def test_scores_are_the_same_where_memory_is_short(
    tiny_checkpoint: Path, photo: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the pipeline of `evaluate`: 12 tiles, of which two fit at once."""
    rows = [Row(f"{i}.png", photo(f"{i}.png", 70 + 30 * i, 90), i % 2, "test", "s") for i in range(3)]
    with load_detector(tiny_checkpoint, "cpu") as detector:
        expected = score_rows([detector], rows, batch_size=8)[0].logit
        compute, seen = TorchEngine._compute, []

        def short(engine: TorchEngine, batch: NDArray[Any]) -> list[NDArray[Any]]:
            seen.append(len(batch))
            if len(batch) > 2:
                raise torch.OutOfMemoryError
            return compute(engine, batch)

        monkeypatch.setattr(TorchEngine, "_compute", short)
        np.testing.assert_allclose(score_rows([detector], rows, batch_size=8)[0].logit, expected, atol=1e-5)
    assert seen[:3] == [8, 4, 2]
    assert max(seen[3:]) == 2
