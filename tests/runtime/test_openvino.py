"""OpenVINO runs the exported graphs as ONNX Runtime does, and refuses in one sentence what it should not run."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from spai_runtime.cores import cores
from spai_runtime.detector import Detector
from spai_runtime.engines import BACKENDS
from spai_runtime.engines.base import Contract, Engine
from spai_runtime.errors import EngineError, GraphRefusedError
from spai_runtime.manifest import Artifact, Graph
from tests.golden import IMAGES
from tests.support.commands import Run
from tests.support.images import Write, pixels
from tests.support.models import TINY
from tests.support.small_graphs import ENCODER, HEAD, SIDE, WIDTH, encode, write_encoder, write_head

openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install 'spai-toolkit[openvino]'")

DEMO = Path(__file__).parents[2] / "weights" / "demo"
NO_ARTIFACT = Artifact("onnx", "fp32", Graph("a.onnx", "0" * 64), Graph("a.onnx", "0" * 64))


def load(path: Path, contract: Contract) -> Engine:
    """By the table of engines."""
    (row,) = (row for row in BACKENDS if row.name == "openvino" and "fp32" in row.precisions and row.computes is None)
    return row.open(path, contract, "cpu", NO_ARTIFACT)


def views(count: int, side: int = SIDE) -> NDArray[np.uint8]:
    return np.stack([pixels(side, side, seed) for seed in range(count)])


def test_it_computes_what_the_graph_says(tmp_path: Path) -> None:
    engine = load(write_encoder(tmp_path / "encoder.onnx"), ENCODER)
    assert engine.label == f"OpenVINO {openvino.__version__.split('-')[0]}, cpu"
    for count in (1, 2, 5):
        np.testing.assert_allclose(engine.run(views(count))[0], encode(views(count)), rtol=1e-6)
    head = load(write_head(tmp_path / "head.onnx"), HEAD)
    features = np.random.default_rng(0).normal(size=(2, 7, WIDTH)).astype(np.float32)
    logit, attention = head.run(features)
    np.testing.assert_allclose(logit[:, 0], features.mean((1, 2)), atol=1e-6)
    np.testing.assert_allclose(attention, features.mean(2), atol=1e-6)


def test_views_of_any_size_where_the_detector_has_them(tmp_path: Path) -> None:
    whole = Contract.encoder((None, None), WIDTH)
    engine = load(write_encoder(tmp_path / "encoder.onnx", sides=("height", "width")), whole)
    for height, width in ((1, 1), (70, 31)):
        image = pixels(height, width)[None]
        np.testing.assert_allclose(engine.run(image)[0], encode(image), rtol=1e-6)


def test_a_views_features_do_not_depend_on_its_batch(tiny_detector: Path) -> None:
    """To the bit: an interrupted run has other batches than one that was not."""
    contract = Contract.encoder((TINY.tile_size, TINY.tile_size), TINY.features)
    engine, batch = load(tiny_detector / "encoder.onnx", contract), views(7, TINY.tile_size)
    (whole,) = engine.run(batch)
    for size in (1, 2, 3, 4):
        parts = [engine.run(batch[start : start + size])[0] for start in range(0, 7, size)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("image", IMAGES, ids=lambda path: path.stem)
def test_the_golden_detector_scores_as_in_onnx_runtime(golden: tuple[Detector, Detector], image: Path) -> None:
    found, expected = (detector.score(image) for detector in golden)
    assert found.logit == pytest.approx(expected.logit, abs=1e-5)
    np.testing.assert_allclose(found.attention, expected.attention, atol=1e-6)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def golden(golden_detector: Path) -> Any:
    """In OpenVINO, and in ONNX Runtime."""
    by_openvino = Detector.load(golden_detector, backend="openvino")
    with by_openvino, Detector.load(golden_detector, backend="onnxruntime", device="cpu") as by_onnxruntime:
        yield by_openvino, by_onnxruntime


def test_the_demos_scores(run: Run, photo: Write) -> None:
    """Within 1e-5 of those of ONNX Runtime; on the examples they are within 2e-6, as `spai-run --check` says."""
    image = photo("a.png", 400, 500)
    scores = []
    for backend in ("openvino", "onnxruntime"):
        ran = run(image, "--engine", DEMO, "--backend", backend, "--device", "cpu")
        assert (ran.code, ran.stderr) == (0, "")
        scores.append(float(ran.stdout.splitlines()[1].split(",")[1]))
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def test_any_thread_may_run_it(tmp_path: Path) -> None:
    engine, found = load(write_encoder(tmp_path / "encoder.onnx"), ENCODER), dict[int, Any]()
    batches = [views(count) for count in (1, 2, 3, 4)]

    def runs(index: int) -> None:
        found[index] = [engine.run(batches[index])[0] for _ in range(20)]

    threads = [threading.Thread(target=runs, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, batch in enumerate(batches):
        for features in found[index]:
            np.testing.assert_allclose(features, encode(batch), rtol=1e-6)


def test_auto_takes_it_where_it_is_installed(tiny_detector: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Detector.load(tiny_detector, device="cpu") as detector:
        assert detector.encoder.label.startswith("OpenVINO")
    monkeypatch.setattr("spai_runtime.engines.openvino.is_installed", lambda _: False)
    with Detector.load(tiny_detector) as detector:
        assert detector.encoder.label.startswith("ONNX Runtime")


def test_many_cores_run_several_batches(tiny_detector: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that has 16 of them, as far as it is told; digits are those of one batch after the other."""
    batches = [np.stack([pixels(32, 32, 3 * seed + view) for view in range(3)]) for seed in range(6)]
    with Detector.load(tiny_detector, device="cpu", precision="fp32", backend="openvino") as few:
        expected = [few.encoder.run(batch)[0] for batch in batches]
    monkeypatch.setattr("spai_runtime.engines.streams.cores", lambda: 16)
    with Detector.load(tiny_detector, device="cpu", precision="fp32", backend="openvino") as many:
        assert (many.encoder.streams, many.head.streams) == (4, 1)
        compiled = many.encoder._compiled  # type: ignore[attr-defined]
        assert min(2, cores()) <= compiled.get_property("NUM_STREAMS") <= 4, (
            "OpenVINO makes no more than there are cores"
        )
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda batch: many.encoder.run(batch)[0], batches))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


# ---- what is refused


@pytest.mark.parametrize(
    ("contract", "message"),
    [
        (
            Contract.encoder((SIDE, SIDE), 5),
            r"it should have features float32 \(views, 5\), and has features f32 \[\?,3\]",
        ),
        (Contract.encoder((9, 9), WIDTH), r"it should have views uint8 \(views, 9, 9, 3\), and has views u8"),
        (HEAD, r"it should have features float32 \(images, views, 3\), and has features f32"),
    ],
)
def test_a_graph_that_does_not_match(tmp_path: Path, contract: Contract, message: str) -> None:
    with pytest.raises(EngineError, match=rf"encoder\.onnx does not match detector\.json: {message}"):
        load(write_encoder(tmp_path / "encoder.onnx"), contract)


def test_what_is_no_graph(tmp_path: Path) -> None:
    path = tmp_path / "encoder.onnx"
    path.write_bytes(b"no graph at all")
    with pytest.raises(EngineError, match=r"encoder\.onnx is not an ONNX graph"):
        load(path, ENCODER)
    with pytest.raises(EngineError, match="cannot read"):
        load(tmp_path / "missing.onnx", ENCODER)


def test_a_graph_of_another_kind_is_not_read(tmp_path: Path) -> None:
    """OpenVINO reads TensorFlow's, Paddle's and others too, and its own, which names a second file."""
    path = tmp_path / "encoder.onnx"
    path.write_text('<?xml version="1.0"?><net name="g" version="11"><layers/></net>')
    with pytest.raises(EngineError, match=r"encoder\.onnx"):
        load(path, ENCODER)


def test_external_data_is_refused(tmp_path: Path) -> None:
    import onnx  # noqa: PLC0415

    model = onnx.load(write_encoder(tmp_path / "encoder.onnx"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(100, np.float32), "unused"))
    onnx.save(model, tmp_path / "outside.onnx", save_as_external_data=True, size_threshold=0, location="tensors")
    with pytest.raises(GraphRefusedError, match="keeps tensors in other files, which is refused"):
        load(tmp_path / "outside.onnx", ENCODER)


def test_a_graph_that_fails_while_it_runs(tmp_path: Path) -> None:
    engine = load(write_encoder(tmp_path / "encoder.onnx"), ENCODER)
    with pytest.raises(EngineError, match=r"encoder\.onnx fails in OpenVINO: \S"):
        engine.run(np.zeros((1, SIDE + 1, SIDE, 3), np.uint8))


def test_without_openvino(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(EngineError, match=r"^OpenVINO is not installed: pip install '\.\[openvino\]'$"):
        load(write_encoder(tmp_path / "encoder.onnx"), ENCODER)


_ALTERNATE_STACK = """
import ctypes, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from spai_runtime.cores import cores
from spai_runtime.detector import Detector

class Stack(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]

detectors = [Detector.load(sys.argv[1], backend="openvino") for _ in range(2)]
for detector in detectors:
    detector.close()
del detector, detectors
stack = Stack()
assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0
maps = [line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines()]
print(not stack.base or any(int(low, 16) <= stack.base < int(high, 16) for low, high in maps))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="OpenVINO sets an alternate stack on Linux alone")
def test_signals_find_a_stack_after_engines_are_closed(tiny_detector: Path) -> None:
    """Else the next signal, such as that of a data loader's worker that ends, overwrites memory of somebody else's."""
    ran = subprocess.run(
        [sys.executable, "-c", _ALTERNATE_STACK, tiny_detector], capture_output=True, text=True, check=False
    )
    assert (ran.stdout.strip(), ran.stderr) == ("True", "")
