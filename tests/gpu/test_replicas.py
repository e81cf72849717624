"""Several GPUs behind one engine, which outlives all of them but the last."""

import logging
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from spai_runtime.engines.base import DeviceLostError
from spai_runtime.engines.replicas import Replicas
from spai_runtime.errors import EngineError


class Doubling:
    """An engine of a GPU that can be lost."""

    def __init__(self, index: int, batch_size: int) -> None:
        self.device, self.batch_size = f"cuda:{index}", batch_size
        self.label = f"Doubling 1.0, {self.device}"
        self.lost, self.closed, self.calls = False, False, 0
        self.released: list[Any] = []

    @property
    def replicas(self) -> "Sequence[Doubling]":
        return (self,)

    def run(self, batch: Any) -> Any:
        return self.run_all([batch])[0]

    def run_all(self, batches: Any) -> Any:
        self.calls += 1
        if self.lost:
            raise DeviceLostError(self.device, "it is gone")
        return [[2 * batch] for batch in batches]

    def acquire(self, capacity: int) -> Any:
        return SimpleNamespace(device=self.device, capacity=capacity)

    def release(self, slot: Any) -> None:
        self.released.append(slot)

    def discard(self, device: str) -> None: ...

    def close(self) -> None:
        assert not self.closed
        self.closed = True
        if self.lost:
            raise EngineError("and cannot be closed")


@pytest.fixture
def engines() -> list[Doubling]:
    return [Doubling(2, 8), Doubling(0, 4), Doubling(1, 16)]


def test_what_they_are_together(engines: list[Doubling]) -> None:
    together = Replicas(engines)
    assert together.as_device_engine is together
    assert (together.device, together.label, together.batch_size) == ("cuda:2,0,1", "Doubling 1.0, cuda:2,0,1", 4)
    assert together.replicas == tuple(engines)


def test_arrays_go_on_where_a_gpu_is_left(engines: list[Doubling], caplog: pytest.LogCaptureFixture) -> None:
    together = Replicas(engines)
    batch = np.arange(3)
    np.testing.assert_array_equal(together.run(batch)[0], 2 * batch)
    engines[0].lost = engines[1].lost = True
    with caplog.at_level(logging.WARNING, "spai_runtime"):
        np.testing.assert_array_equal(together.run_all([batch, batch])[1][0], 2 * batch)
    assert caplog.messages == [
        "cuda:2 stopped working: it is gone; going on with cuda:0",
        "cuda:0 stopped working: it is gone; going on with cuda:1",
    ]
    assert together.replicas == (engines[2],)
    assert [engine.calls for engine in engines] == [2, 1, 1]
    engines[2].lost = True
    with pytest.raises(DeviceLostError, match="cuda:1 stopped working"):
        together.run(batch)
    assert together.replicas == (engines[2],)
    assert [engine.closed for engine in engines] == [True, True, False]


def test_other_errors_pass(engines: list[Doubling], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise EngineError("too long")

    monkeypatch.setattr(engines[0], "run_all", refuse)
    together = Replicas(engines)
    with pytest.raises(EngineError, match="too long"):
        together.run(np.zeros(1))
    assert len(together.replicas) == 3


def test_a_gpu_is_counted_out(engines: list[Doubling]) -> None:
    together = Replicas(engines)
    slots = [engine.acquire(2) for engine in engines]
    for _ in range(2):  # who notices it second says so again
        together.discard("cuda:0")
        assert together.replicas == (engines[0], engines[2])
    for slot in slots:
        together.release(slot)
    assert [len(engine.released) for engine in engines] == [1, 0, 1]
    together.discard("cuda:2")
    together.discard("cuda:1")
    assert together.replicas == (engines[2],), "the last stays, to say what is wrong"
    together.close()
    assert all(engine.closed for engine in engines)
