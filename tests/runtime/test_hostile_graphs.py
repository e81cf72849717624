"""Whatever an .onnx file holds: an EngineError of one line, or outputs as detector.json implies them."""

from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto

from spai_runtime.engines.external import has_external_data
from spai_runtime.engines.onnxruntime import OnnxEngine
from spai_runtime.errors import EngineError
from tests.support.hostile_graphs import FAILS_WHILE_RUNNING, STRANGE, empty_fields
from tests.support.small_graphs import ENCODER, SIDE

BATCH = np.zeros((2, SIDE, SIDE, 3), np.uint8)


def written(path: Path, content: ModelProto | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    return path


@pytest.mark.parametrize("name", FAILS_WHILE_RUNNING)
def test_what_fails_while_it_runs(tmp_path: Path, name: str) -> None:
    model, message = FAILS_WHILE_RUNNING[name]
    with pytest.raises(EngineError, match=message) as caught:
        OnnxEngine(written(tmp_path / "a.onnx", model), ENCODER).run(BATCH)
    assert is_a_line(str(caught.value))


@pytest.mark.parametrize("name", STRANGE)
def test_what_is_strange(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / "a.onnx", STRANGE[name]())
    try:
        (features,) = OnnxEngine(path, ENCODER).run(BATCH)
    except EngineError as error:
        assert is_a_line(str(error))
    else:
        assert (features.shape, features.dtype) == ((2, 3), np.float32)


def test_millions_of_empty_fields_are_not_counted_to_the_end(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="it has more than 2000000 fields"):
        has_external_data(written(tmp_path / "a.onnx", empty_fields(2_500_000)))


def is_a_line(text: str) -> bool:
    return text.isprintable() and len(text) < 1000
