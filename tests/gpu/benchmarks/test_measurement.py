"""What a whole measurement takes on, by the parts that the settings want."""

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gpu import measurement

from tests.support.desk import Desk

NAME = measurement.RUN[0]


@pytest.mark.parametrize(
    ("parts", "order"),
    [
        (("rows", "end-to-end"), ["rows 4", "run 4", "run 4", "rows 1"]),
        (("rows",), ["rows 4", "rows 1"]),
        (("end-to-end",), ["run 4", "run 4"]),
    ],
)
def test_parts_of_a_measurement(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: tuple[str, ...], order: list[str]
) -> None:
    """Two sets of photographs are run end to end, at the first batch size and before the others."""
    found: list[str] = []

    def end_to_end(bench: Any, contender: Any, batch: int, _: Any) -> None:
        assert (bench, contender.name) == (desk.bench, NAME)
        found.append(f"run {batch}")

    def load(size: int, call: int) -> None:
        if call == 0:
            found.append(f"rows {size}")

    monkeypatch.setattr(measurement, "end_to_end", end_to_end)
    monkeypatch.setattr(measurement.Photographs, "write", lambda *_: None)
    desk.bench.settings = replace(desk.bench.settings, parts=parts)
    contender = replace(desk.contender("ONNX Runtime", fails=load), form="fused attention")
    measurement.run(desk.bench, [contender], tmp_path)
    assert found == order


def test_a_cupy_that_nobody_imported_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of PyTorch do not fail where CuPy cannot be used."""
    (tmp_path / "cupy.py").write_text("def get_default_memory_pool():\n    raise RuntimeError('no driver')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    measurement.free()
    fake = importlib.import_module("cupy")
    del sys.modules["cupy"]  # so that it is gone again behind this test
    monkeypatch.setitem(sys.modules, "cupy", fake)
    with pytest.raises(RuntimeError, match="no driver"):
        measurement.free()
