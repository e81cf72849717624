"""What OpenVINO compiled is read again where it may be, and made again where not; digits are the same either way."""

import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from spai_runtime.detector import Detector
from spai_runtime.engines import openvino as engine
from spai_runtime.engines.base import Contract
from spai_runtime.errors import EngineError
from spai_runtime.manifest import Manifest
from tests.support.images import pixels
from tests.support.models import TINY

pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install 'spai-toolkit[openvino]'")

BATCH = np.stack([pixels(TINY.tile_size, TINY.tile_size, seed) for seed in range(3)])


class Reads:
    """Graphs that were read, and not taken from the cache."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names, self._read = list[str](), engine._read
        monkeypatch.setattr(engine, "_read", self)

    def __call__(self, path: Path) -> Any:
        self.names.append(path.name)
        return self._read(path)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    return Reads(monkeypatch)


def features(directory: Path, precision: str = "bf16") -> NDArray[np.float32]:
    with Detector.load(directory, device="cpu", backend="openvino", precision=precision) as detector:  # type: ignore[arg-type]
        assert (detector.precision, detector.encoder.batch_size) == (precision, 2 if precision == "fp32" else 4)
        found: NDArray[np.float32] = detector.encoder.run(BATCH)[0]
        return found


def kept(cache: Path) -> list[Path]:
    return sorted((cache / "openvino").glob("*/content"))


def test_an_encoder_is_compiled_once(tiny_detector: Path, bf16: Path, reads: Reads) -> None:
    first = features(tiny_detector)
    assert reads.names == ["encoder.onnx", "head.onnx"]
    assert len(kept(bf16)) == 1
    np.testing.assert_array_equal(features(tiny_detector), first)
    assert reads.names[2:] == ["head.onnx"]


def test_nothing_is_kept_of_fp32(tiny_detector: Path, bf16: Path, reads: Reads) -> None:
    single = features(tiny_detector, "fp32")
    assert kept(bf16) == []
    assert not np.array_equal(features(tiny_detector), single), "and bf16 is not taken for it"
    assert len(kept(bf16)) == 1
    np.testing.assert_array_equal(features(tiny_detector, "fp32"), single)
    assert reads.names == 3 * ["encoder.onnx", "head.onnx"]


def of_another_release(content: bytes) -> bytes:
    model = content[32:].replace(b"ov=20", b"ov=19")
    return sha256(model).digest() + model


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "a byte of a weight": lambda content: content[: len(content) // 2] + b"\xa5" + content[len(content) // 2 + 1 :],
    "cut off": lambda content: content[:-100],
    "empty": lambda _: b"",
    "of another release": of_another_release,
}


@pytest.mark.parametrize("how", DAMAGES)
def test_what_is_damaged_is_compiled_again(tiny_detector: Path, bf16: Path, reads: Reads, how: str) -> None:
    first = features(tiny_detector)
    (file,) = kept(bf16)
    content = file.read_bytes()
    file.write_bytes(DAMAGES[how](content))
    assert file.read_bytes() != content
    for encoders in (2, 2):
        np.testing.assert_array_equal(features(tiny_detector), first)
        assert reads.names.count("encoder.onnx") == encoders


@pytest.mark.parametrize("what", ["_release", "_processor", "rules"])
def test_it_belongs_to_a_release_and_a_processor(
    tiny_detector: Path, bf16: Path, reads: Reads, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    features(tiny_detector)
    if what == "rules":
        monkeypatch.setattr("spai_runtime.engines.openvino.sha256_of", lambda _: "others")
    else:
        monkeypatch.setattr(f"spai_runtime.engines.openvino.{what}", lambda: "another")
    features(tiny_detector)
    assert reads.names.count("encoder.onnx") == len(kept(bf16)) == 2


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="Windows keeps users apart by folders")
def test_what_others_could_have_written_is_not_read(tiny_detector: Path, bf16: Path, reads: Reads) -> None:
    first = features(tiny_detector)
    (file,) = kept(bf16)
    assert file.parent.stat().st_mode & 0o777 == 0o700
    file.parent.chmod(0o770)
    np.testing.assert_array_equal(features(tiny_detector), first)
    assert reads.names.count("encoder.onnx") == 2


def test_what_cannot_be_kept_costs_no_run(tiny_detector: Path, bf16: Path, reads: Reads) -> None:
    bf16.write_text("a file")
    for _ in range(2):
        features(tiny_detector)
    assert reads.names.count("encoder.onnx") == 2


def test_those_that_were_used_last_are_kept(tiny_detector: Path, bf16: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(5):
        monkeypatch.setattr("spai_runtime.engines.openvino._processor", lambda index=index: f"processor {index}")
        features(tiny_detector)
        ages = {file.parent: file.parent.stat().st_mtime_ns for file in kept(bf16)}
        if index == 0:
            (first,) = ages
        if index == 3:  # the first is used again, long after the others
            assert len(ages) == 4
            for folder, age in ages.items():
                os.utime(folder, ns=(age - 10**12, age - 10**12))
            monkeypatch.setattr("spai_runtime.engines.openvino._processor", lambda: "processor 0")
            features(tiny_detector)
    assert len(kept(bf16)) == 4
    assert first in ages


def test_it_is_held_against_the_contract(tiny_detector: Path, bf16: Path) -> None:  # noqa: ARG001
    features(tiny_detector)
    (artifact,) = Manifest.load(tiny_detector).artifacts
    other = Contract.encoder((TINY.tile_size, TINY.tile_size), TINY.features + 1)
    with pytest.raises(EngineError, match=r"does not match detector\.json"):
        engine.load_bf16(tiny_detector / "encoder.onnx", other, "cpu", artifact)


def test_batches_share_the_cores_that_there_are_now(
    tiny_detector: Path,
    bf16: Path,  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Compiled where there was one core, and run where there are two."""
    for count in (1, 2):
        monkeypatch.setattr("spai_runtime.engines.streams.cores", lambda count=count: count)
        with Detector.load(tiny_detector, device="cpu", precision="bf16") as detector:
            compiled = detector.encoder._compiled  # type: ignore[attr-defined]
            assert compiled.get_property("INFERENCE_NUM_THREADS") == count
