"""Graphs are loaded when they are what detector.json says, and refused in one sentence when not."""

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from spai_runtime.engines import BACKENDS, Backend
from spai_runtime.engines.base import Contract, Engine, Tensor, buckets
from spai_runtime.engines.devices import gpus
from spai_runtime.errors import EngineError
from spai_runtime.manifest import Artifact, Graph
from spai_train.detectors.spai.model import SPAI
from tests.support.images import pixels

ADD = Contract(Tensor("x", "float32", ("n", 4)), (Tensor("y", "float32", ("n", 4)),))


ON_CPU, ON_CUDA = (row for row in BACKENDS[::-1] if row.name == "onnxruntime" and not row.own)
NO_ARTIFACT = Artifact("onnx", "fp32", Graph("a.onnx", "0" * 64), Graph("a.onnx", "0" * 64))


def load_engine(path: Path, contract: Contract, device: str, row: Backend | None = None) -> Engine:
    """Of a graph, by the table of engines."""
    return (row or (ON_CPU if device == "cpu" else ON_CUDA)).open(path, contract, device, NO_ARTIFACT)


def add_graph(path: Path, *, initializer: TensorProto | None = None, rows: int | str = "n") -> Path:
    """y = x + w."""
    weights = initializer or helper.make_tensor("w", TensorProto.FLOAT, [4], [0.0, 1.0, 2.0, 3.0])
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, 4]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def test_runs_what_the_graph_says(tmp_path: Path) -> None:
    engine = load_engine(add_graph(tmp_path / "a.onnx"), ADD, "cpu")
    for count in (1, 2, 5):
        batch = np.random.default_rng(count).normal(size=(count, 4)).astype(np.float32)
        (found,) = engine.run(batch)
        np.testing.assert_array_equal(found, batch + np.arange(4, dtype=np.float32))
    assert engine.device == "cpu"
    assert engine.label == f"ONNX Runtime {onnxruntime.__version__}, cpu"


def test_runs_of_many_are_those_of_each(tmp_path: Path) -> None:
    engine = load_engine(add_graph(tmp_path / "a.onnx"), ADD, "cpu")
    batches = [np.full((count, 4), count, np.float32) for count in (3, 1, 2)]
    for found, batch in zip(engine.run_all(batches), batches, strict=True):
        np.testing.assert_array_equal(found[0], engine.run(batch)[0])


def test_shapes_of_outputs_follow_the_names_of_axes() -> None:
    assert Contract.encoder((32, 32), 20).output_shapes((7, 32, 32, 3)) == [(7, 20)]
    assert Contract.encoder((None, None), 20).output_shapes((1, 50, 40, 3)) == [(1, 20)]
    assert Contract.head(20).output_shapes((2, 9, 20)) == [(2, 1), (2, 9)]
    assert Contract.head(20, attention=False).output_shapes((2, 9, 20)) == [(2, 1)]


@pytest.mark.parametrize(
    ("capacity", "expected"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (32, [1, 2, 4, 8, 16, 32]), (5, [1, 2, 4, 5])]
)
def test_buckets(capacity: int, expected: list[int]) -> None:
    assert buckets(capacity) == expected


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_the_encoder_is_torchs(tiny_detector: Path, tiny_model: SPAI, count: int) -> None:
    contract = Contract.encoder((32, 32), tiny_model.config.features)
    engine = load_engine(tiny_detector / "encoder.onnx", contract, "cpu")
    views = np.stack([pixels(32, 32, seed) for seed in range(count)])
    with torch.inference_mode():
        expected = tiny_model.encoder(torch.from_numpy(views)).numpy()
    np.testing.assert_allclose(engine.run(views)[0], expected, atol=1e-4)


@pytest.mark.parametrize("views", [1, 4, 13])
def test_the_head_is_torchs(tiny_detector: Path, tiny_model: SPAI, views: int) -> None:
    width = tiny_model.config.features
    engine = load_engine(tiny_detector / "head.onnx", Contract.head(width), "cpu")
    features = np.random.default_rng(0).normal(size=(1, views, width)).astype(np.float32)
    with torch.inference_mode():
        logit, attention = (value.numpy() for value in tiny_model.head(torch.from_numpy(features)))
    found = engine.run(features)
    np.testing.assert_allclose(found[0], logit, atol=1e-4)
    np.testing.assert_allclose(found[1], attention, atol=1e-5)
    assert found[1].shape == (1, views)


@pytest.mark.parametrize(
    ("contract", "message"),
    [
        (Contract(Tensor("z", "float32", ("n", 4)), ADD.outputs), r"should have z float32 \(n, 4\), and has none"),
        (Contract(Tensor("x", "uint8", ("n", 4)), ADD.outputs), r"should have x uint8 \(n, 4\), and has x tensor"),
        (Contract(Tensor("x", "float32", ("n", 5)), ADD.outputs), r"should have x float32 \(n, 5\)"),
        (Contract(Tensor("x", "float32", ("n", "m")), ADD.outputs), r"should have x float32 \(n, m\)"),
        (Contract(ADD.input, (Tensor("y", "float32", ("n", 4, 1)),)), r"should have y float32 \(n, 4, 1\)"),
        (Contract(ADD.input, (*ADD.outputs, Tensor("v", "float32", ("n",)))), r"should have v .*it has x, y"),
    ],
)
def test_a_graph_that_does_not_match(tmp_path: Path, contract: Contract, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        load_engine(add_graph(tmp_path / "a.onnx"), contract, "cpu")


def test_a_batch_size_that_was_fixed_by_mistake(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"does not match detector\.json"):
        load_engine(add_graph(tmp_path / "a.onnx", rows=2), ADD, "cpu")


def test_an_input_that_nobody_gives(tmp_path: Path) -> None:
    model = onnx.load(add_graph(tmp_path / "a.onnx"))
    model.graph.ClearField("initializer")
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4]))
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(EngineError, match=r"does not match detector\.json: it also wants w$"):
        load_engine(tmp_path / "a.onnx", ADD, "cpu")


def test_external_data_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    """The file that the graph points to exists and would fit, outside and inside the directory."""
    (tmp_path / "inside").mkdir()
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    weights.external_data.add(key="location", value="weights.bin")
    np.arange(4, dtype=np.float32).tofile(tmp_path / "inside" / "weights.bin")
    path = add_graph(tmp_path / "inside" / "a.onnx", initializer=weights)
    onnx.checker.check_model(str(path))  # so nothing but the location is wrong with it
    with pytest.raises(EngineError, match="keeps tensors in other files, which is refused"):
        load_engine(path, ADD, "cpu")


@pytest.mark.parametrize("content", [b"", b"text", b"\x3a\x05abc"])
def test_what_is_no_graph(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(EngineError, match="is not an ONNX graph"):
        load_engine(tmp_path / "a.onnx", ADD, "cpu")


def test_a_message_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"\x08\x08")  # an IR version, and that is all
    with pytest.raises(EngineError, match="ONNX Runtime refuses") as caught:
        load_engine(tmp_path / "a.onnx", ADD, "cpu")
    assert "\n" not in str(caught.value)


def test_subgraphs_without_end(tmp_path: Path) -> None:
    """Nested deeper than Python recurses."""
    content = b""
    for _ in range(500):
        content = field(1, field(5, field(6, content)))  # a node, its attribute, that attribute's graph
    (tmp_path / "a.onnx").write_bytes(field(7, content))
    with pytest.raises(EngineError, match="is not an ONNX graph"):
        load_engine(tmp_path / "a.onnx", ADD, "cpu")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"cannot read .*a\.onnx: No such file"):
        load_engine(tmp_path / "a.onnx", ADD, "cpu")


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cuda:", "cuda:0,", "cuda:-1", "cuda0", "cpu:0", "mps", ""])
@pytest.mark.parametrize("row", BACKENDS, ids=lambda row: f"{row.name}-{row.device}-{row.precisions[0]}")
def test_unknown_devices(tmp_path: Path, row: Backend, device: str) -> None:
    with pytest.raises(EngineError, match=r"no such device: .*; use auto, cpu, cuda:0, or cuda:0,1 for two GPUs"):
        load_engine(add_graph(tmp_path / "a.onnx"), ADD, device, row)


@pytest.mark.parametrize(
    ("device", "expected"),
    [("auto", ()), ("cpu", ()), ("cuda", (0,)), ("cuda:0", (0,)), ("cuda:12", (12,)), ("cuda:2,0", (2, 0))],
)
def test_devices(device: str, expected: tuple[int, ...]) -> None:
    assert gpus(device) == expected


def test_a_gpu_is_named_once() -> None:
    with pytest.raises(EngineError, match="cuda:1,0,1 names a GPU twice"):
        gpus("cuda:1,0,1")


def test_a_plan_wants_its_description(tmp_path: Path) -> None:
    (row,) = (row for row in BACKENDS if row.name == "tensorrt")
    with pytest.raises(EngineError, match=r"nothing says what .*a\.plan was built for .*: export it again"):
        load_engine(tmp_path / "a.plan", ADD, "cuda:0", row)


def test_bfloat16_on_the_cpu(tmp_path: Path) -> None:
    """What PyTorch exports of a module that was cast: the CPU has no kernel for its products."""
    cast, back = (helper.make_node("Cast", [a], [b], to=to) for a, b, to in (("x", "h", 16), ("p", "y", 1)))
    nodes = [cast, helper.make_node("MatMul", ["h", "w"], ["p"]), back]
    weights = helper.make_tensor("w", TensorProto.BFLOAT16, [4, 4], np.eye(4).ravel().tolist())
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(
        EngineError, match=r"a\.onnx holds bfloat16, which .* CUDA alone: give --device cuda:0, or export"
    ):
        load_engine(tmp_path / "a.onnx", ADD, "cpu")


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_cuda_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(EngineError, match=r"has no CUDA: pip install '\.\[gpu\]'"):
        load_engine(add_graph(tmp_path / "a.onnx"), ADD, device)


def test_without_onnxruntime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def blocked(name: str, *rest: Any) -> Any:
        if name == "onnxruntime":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", blocked)
    with pytest.raises(EngineError, match=r"not installed: pip install '\.\[cpu\]'"):
        load_engine(add_graph(tmp_path / "a.onnx"), ADD, "cpu")


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field of a protobuf message."""
    length, size = len(content), b""
    while length >= 0x80:
        size, length = size + bytes([length & 0x7F | 0x80]), length >> 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + content
