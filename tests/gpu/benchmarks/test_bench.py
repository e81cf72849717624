"""The bookkeeping of benchmarks/gpu, under contenders that are made up."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gpu.contender import Contender
from gpu.results import Results
from reference import DisagreementError

from spai_runtime.engines.base import DeviceMemoryError
from spai_runtime.errors import EngineError
from tests.support.desk import BATCHES, FACTS, Desk


def raising(error: BaseException, batch: int = 4, call: int = 0) -> Callable[[int, int], None]:
    """Raises at that wait of that batch size, and at those that follow."""

    def fails(size: int, number: int) -> None:
        if size == batch and number >= call:
            raise error

    return fails


def test_figures_of_a_contender_are_those_of_its_clock(desk: Desk) -> None:
    desk.bench.run([desk.contender("ours", seconds=0.01)], 4)
    (row,) = desk.results.rows
    assert row["latency_p50_ms"] == pytest.approx(10)
    assert row["latency_p99_ms"] == pytest.approx(10)
    assert row["launches"] in (100, 101)  # one second of them
    assert row["tiles_per_s"] == pytest.approx(400)
    flop = desk.bench.reference.flop_per_tile
    assert row["fraction_of_matmul"] == pytest.approx(400 * flop / 100e12)
    assert row["memory_mb"] == pytest.approx(250)
    assert row["largest_difference"] == 0
    assert row["default_batch"] == 4
    assert (row["backend"], row["precision"], row["batch"]) == ("ours", "fp16", 4)
    assert desk.runners[0].closed
    assert desk.freed >= 1


def test_contenders_take_turns(desk: Desk) -> None:
    order: list[str] = []

    def watched(name: str) -> Contender:
        return desk.contender(name, seconds=0.25, fails=lambda *_: order.append(name))

    desk.bench.run([watched("a"), watched("b")], 4)
    rounds = [name for index, name in enumerate(order) if index == 0 or order[index - 1] != name]
    assert rounds == ["a", "b"] * 4  # each alone, then three rounds


def test_no_share_of_a_rate_that_was_not_measured(desk: Desk) -> None:
    desk.bench.run([desk.contender("ours", precision="fp8"), desk.contender("theirs", precision="int8")], 4)
    rows = desk.results.rows
    assert [row["tiles_per_s"] for row in rows] == [pytest.approx(400)] * 2
    assert not any("fraction_of_matmul" in row for row in rows)


def test_a_missing_back_end_is_one_row_with_its_sentence(desk: Desk) -> None:
    missing = desk.contender("TensorRT", fails=raising(EngineError("TensorRT is not installed: pip install it")))
    for batch in BATCHES:
        desk.bench.run([missing, desk.contender("ours")], batch)
    (row,) = desk.rows("TensorRT")
    assert row == {
        "backend": "TensorRT",
        "precision": "fp16",
        "form": "",
        "batch": 4,
        "missing": "TensorRT is not installed: pip install it",
    }
    assert [row["tiles_per_s"] for row in desk.rows("ours")] == [pytest.approx(400), pytest.approx(100)]


@pytest.mark.parametrize("call", [0, 1, 8, 40, 200])
def test_whatever_fails_is_a_row_and_others_go_on(desk: Desk, call: int) -> None:
    """At the load, at the first launch, while it is warmed up, in the latencies, in the turns."""
    broken = desk.contender("broken", fails=raising(RuntimeError("no kernel\nfits"), call=call))
    desk.bench.run([broken, desk.contender("ours")], 4)
    desk.bench.run([broken, desk.contender("ours")], 1)
    (row,) = desk.rows("broken")
    assert row["error"] == "RuntimeError: no kernel"
    assert "tiles_per_s" not in row
    assert ("latency_p50_ms" in row) == (call == 200)
    assert len(desk.rows("ours")) == 2
    assert all("tiles_per_s" in row for row in desk.rows("ours"))
    assert all(runner.closed for runner in desk.runners)


def test_memory_that_does_not_suffice_is_an_error_of_that_batch_size(desk: Desk) -> None:
    full = desk.contender("full", fails=raising(DeviceMemoryError("cuda:0 has too little memory left"), batch=1))
    desk.bench.run([full], 4)
    desk.bench.run([full], 1)
    first, second = desk.rows("full")
    assert "tiles_per_s" in first
    assert second["error"] == "DeviceMemoryError: cuda:0 has too little memory left"
    assert "missing" not in second


@pytest.mark.parametrize("off_by", [0.002, float("nan"), float("inf")])
def test_features_of_something_else_are_not_timed(desk: Desk, off_by: float) -> None:
    desk.bench.run([desk.contender("wrong", off_by=off_by)], 4)
    (row,) = desk.results.rows
    assert row["error"].startswith("DisagreementError: features are")
    assert not {"tiles_per_s", "latency_p50_ms", "largest_difference", "memory_mb"} & row.keys()


def test_differences_are_those_of_numpy(desk: Desk) -> None:
    desk.bench.run([desk.contender("ours", off_by=0.0005)], 4)
    (row,) = desk.results.rows
    assert row["largest_difference"] == pytest.approx(0.0005 * np.abs(desk.features).max(), rel=1e-3)
    assert row["relative_difference"] == pytest.approx(0.0005, rel=1e-3)


def test_a_batch_larger_than_what_is_compared(desk: Desk) -> None:
    """Features of tiles beyond the compared ones must at least be finite."""
    features = np.concatenate([desk.features, np.full((9, desk.features.shape[1]), np.nan, np.float32)])
    with pytest.raises(DisagreementError, match="not finite"):
        desk.bench.reference.compare(features, "fp8")
    features[4:] = 0
    assert desk.bench.reference.compare(features, "fp32")["largest_difference"] == 0


def test_when_the_time_is_up_nothing_is_begun(desk: Desk) -> None:
    desk.bench.run([desk.contender("slow", seconds=30), desk.contender("late")], 4)
    (late,) = desk.rows("late")
    assert late["missing"] == "not begun within 420 s; SPAI_BENCH_LIMIT gives it more"
    assert "tiles_per_s" in desk.rows("slow")[0]
    assert len(desk.runners) == 1


def test_a_run_that_is_cut_off_leaves_what_it_has(desk: Desk) -> None:
    cut = desk.contender("cut", fails=raising(KeyboardInterrupt(), batch=1))
    desk.bench.run([cut], 4)
    with pytest.raises(KeyboardInterrupt):
        desk.bench.run([desk.contender("before"), cut, desk.contender("after")], 1)
    left = desk.file()
    assert left["complete"] is False
    by_name = {(row["backend"], row["batch"]): row for row in left["rows"]}
    assert by_name["cut", 4]["tiles_per_s"] == pytest.approx(400)
    assert by_name["before", 1]["latency_p50_ms"] == pytest.approx(10)
    assert "tiles_per_s" not in by_name["before", 1]
    assert by_name["after", 1].keys() == {"backend", "precision", "form", "batch"}
    assert [path.name for path in desk.folder.iterdir()] == ["gpu-nvidia-h200.json"]
    assert all(runner.closed for runner in desk.runners)


def test_the_file_is_written_after_every_contender(desk: Desk) -> None:
    seen: list[int] = []

    def look(_: int, call: int) -> None:
        if call == 0:
            seen.append(sum("latency_p50_ms" in row for row in desk.file()["rows"]))

    desk.bench.run([desk.contender("first"), *(desk.contender(name, fails=look) for name in "abc")], 4)
    assert seen == [1, 2, 3]
    desk.results.finish()
    assert desk.file()["complete"] is True


def test_no_fraction_has_more_than_four_digits_and_none_is_nan(desk: Desk) -> None:
    desk.bench.run([desk.contender("ours", seconds=1 / 3)], 4)
    desk.results.write()
    assert desk.file()["rows"][0]["latency_p50_ms"] == 333.3
    desk.results.rows[0]["tiles_per_s"] = float("nan")
    with pytest.raises(ValueError, match="JSON"):
        desk.results.write()


def test_another_model_has_another_file(tmp_path: Path) -> None:
    """A try with a small model does not overwrite what the table is made from."""
    Results(tmp_path, {**FACTS, "model": "tiny"}).finish()
    assert [path.name for path in tmp_path.iterdir()] == ["gpu-nvidia-h200-tiny.json"]
