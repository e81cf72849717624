"""The encoder part of benchmarks/cpu under contenders that are made up, on a clock that they move."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import measure
import models
import numpy as np
import pytest
import torch
from cpu import encoder
from cpu.apart import Encode, Load, apart
from cpu.contender import CONTENDERS
from cpu.encoder import Ours, Upstream, measure_encoders
from cpu.results import Results
from cpu.settings import Settings
from numpy.typing import NDArray
from reference import Reference

from spai_runtime.errors import UserError
from spai_train.detectors.spai.model import SPAI
from tests.support.desk import Clock

FACTS = {"model": "vitb", "processor": {"name": "Some Processor"}}
Seconds = Callable[[int], float]  # of a batch of that many tiles


class Table:
    """A reference, rows, and contenders whose batches take what they are told to."""

    def __init__(self, model: SPAI, clock: Clock) -> None:
        side = model.config.tile_size
        tiles = np.random.default_rng(0).integers(0, 256, (max(encoder.BATCHES), side, side, 3), dtype=np.uint8)
        self.clock, self.reference, self.results = clock, Reference(model, tiles), Results(None, dict(FACTS))
        self.closed: list[str] = []
        with torch.inference_mode():
            self.features = model.encoder(torch.from_numpy(tiles)).numpy()

    def run(self, **contenders: Load) -> dict[str, Any]:
        """:returns: the part `encoder` of each row"""
        rows: list[tuple[dict[str, Any], Load]] = [
            ({"backend": name, "precision": "fp32"}, load) for name, load in contenders.items()
        ]
        measure_encoders(self.results, self.reference, Settings(seconds=2.0, rounds=3), rows)
        return {row["backend"]: row["encoder"] for row, _ in rows}

    def contender(self, seconds: Seconds, off_by: float = 0.0, fails_after: int = 10**9) -> Load:
        """:param fails_after: that many batches"""
        left = iter(range(fails_after))

        def encode(batches: list[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
            for tiles in batches:
                if next(left, None) is None:
                    raise RuntimeError("no memory\nat all")
                self.clock.now += seconds(len(tiles))
            return [self.features[: len(tiles)] * np.float32(1 + off_by) for tiles in batches]

        def load(opened: ExitStack) -> Encode:
            opened.callback(lambda: self.closed.append("closed"))
            return encode

        return load


@pytest.fixture
def table(tiny_model: SPAI, monkeypatch: pytest.MonkeyPatch) -> Table:
    clock = Clock()
    monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter=clock, process_time=clock))
    monkeypatch.setattr(encoder, "time", SimpleNamespace(perf_counter=clock))
    return Table(tiny_model, clock)


def test_each_at_its_best_batch_size(table: Table) -> None:
    """One is fastest alone; of the other, a batch costs a quarter of a second more than its tiles."""
    found = table.run(upstream=table.contender(lambda n: n * n / 2), ours=table.contender(lambda n: 0.25 + n / 16))
    assert {name: figures["batch"] for name, figures in found.items()} == {"upstream": 1, "ours": 8}
    assert found["upstream"]["tiles_per_s"] == pytest.approx(2)
    assert found["ours"]["tiles_per_s"] == pytest.approx(8 / 0.75)
    assert [found[name]["ratio"] for name in found] == [pytest.approx(1), pytest.approx(16 / 3)]
    assert found["ours"]["tiles_per_s_by_batch"]["2"] == pytest.approx(2 / 0.375)
    assert found["ours"]["largest_difference"] == 0
    assert table.closed == ["closed"] * 2


def test_a_turn_fills_its_time(table: Table) -> None:
    found = table.run(upstream=table.contender(lambda n: 5.0 * n), ours=table.contender(lambda n: 0.3 * n))
    assert [found[name]["launches"] for name in found] == [1, 7]


def test_features_of_something_else_are_not_timed(table: Table) -> None:
    found = table.run(upstream=table.contender(lambda n: n), ours=table.contender(lambda n: n, off_by=0.01))
    assert found["ours"].keys() == {"error"}
    assert found["ours"]["error"].startswith("DisagreementError: features are 0.01 from fp32's")
    assert found["upstream"]["ratio"] == pytest.approx(1)


@pytest.mark.parametrize("after", [0, 3, 9])
def test_who_fails_is_a_row_and_the_others_go_on(table: Table, after: int) -> None:
    """At the comparison, while batch sizes are tried, in a turn."""
    broken, ours = table.contender(lambda n: n, fails_after=after), table.contender(lambda n: n / 2)
    found = table.run(upstream=table.contender(lambda n: n), broken=broken, ours=ours)
    assert found["broken"]["error"] == "RuntimeError: no memory"
    assert "tiles_per_s" not in found["broken"]
    assert found["ours"]["ratio"] == pytest.approx(2)


def test_no_ratio_to_what_failed(table: Table) -> None:
    found = table.run(upstream=table.contender(lambda n: n, fails_after=9), ours=table.contender(lambda n: n / 2))
    assert "error" in found["upstream"]
    assert "ratio" not in found["ours"]
    assert found["ours"]["tiles_per_s"] == pytest.approx(2)


def test_contenders_are_apart_and_compute_the_same() -> None:
    """Another process's features are those of this one; what it refuses is raised here."""
    directory, model = models.exported("tiny"), models.random_model("tiny")
    side = model.config.tile_size
    tiles = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    with ExitStack() as opened, torch.inference_mode():
        for load in (Upstream("tiny"), Ours(CONTENDERS[0], directory)):
            (features,) = apart(load)(opened)([tiles])
            np.testing.assert_allclose(features, model.encoder(torch.from_numpy(tiles)).numpy(), atol=1e-4)
        with pytest.raises(UserError, match="there is no nowhere"):
            apart(Ours(CONTENDERS[0], Path("nowhere")))(opened)
