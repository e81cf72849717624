"""External data is found wherever a model can hide it, and nowhere else."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import (
    AttributeProto,
    FunctionProto,
    GraphProto,
    ModelProto,
    SparseTensorProto,
    TensorProto,
    TrainingInfoProto,
    helper,
    numpy_helper,
)

from spai_runtime.engines.external import has_external_data

OUTSIDE = "../outside.bin"


def external() -> TensorProto:
    """Four floats that lie in another file."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=OUTSIDE)
    return tensor


def graph(**parts: object) -> GraphProto:
    return GraphProto(name="g", **parts)  # type: ignore[arg-type]


def attribute(**value: object) -> AttributeProto:
    return AttributeProto(name="value", **value)  # type: ignore[arg-type]


def with_attribute(value: AttributeProto) -> ModelProto:
    return ModelProto(graph=graph(node=[onnx.NodeProto(op_type="Constant", attribute=[value])]))


def nested(depth: int) -> ModelProto:
    """Subgraphs in subgraphs, the tensor in the innermost."""
    inner = graph(initializer=[external()])
    for _ in range(depth):
        inner = graph(node=[onnx.NodeProto(op_type="If", attribute=[attribute(g=inner)])])
    return ModelProto(graph=inner)


HIDDEN: dict[str, Callable[[], ModelProto]] = {
    "initializer": lambda: ModelProto(graph=graph(initializer=[external()])),
    "second initializer": lambda: ModelProto(
        graph=graph(initializer=[numpy_helper.from_array(np.ones(4, np.float32)), external()])
    ),
    "sparse values": lambda: ModelProto(graph=graph(sparse_initializer=[SparseTensorProto(values=external())])),
    "sparse indices": lambda: ModelProto(graph=graph(sparse_initializer=[SparseTensorProto(indices=external())])),
    "attribute tensor": lambda: with_attribute(attribute(t=external())),
    "attribute tensors": lambda: with_attribute(attribute(tensors=[external()])),
    "attribute sparse": lambda: with_attribute(attribute(sparse_tensor=SparseTensorProto(values=external()))),
    "attribute sparses": lambda: with_attribute(attribute(sparse_tensors=[SparseTensorProto(indices=external())])),
    "attribute graphs": lambda: with_attribute(attribute(graphs=[graph(initializer=[external()])])),
    "subgraph": lambda: nested(1),
    "deep subgraph": lambda: nested(20),
    "function node": lambda: ModelProto(
        functions=[FunctionProto(node=[onnx.NodeProto(attribute=[attribute(t=external())])])]
    ),
    "function default": lambda: ModelProto(functions=[FunctionProto(attribute_proto=[attribute(t=external())])]),
    "training": lambda: ModelProto(training_info=[TrainingInfoProto(algorithm=graph(initializer=[external()]))]),
    "initialization": lambda: ModelProto(
        training_info=[TrainingInfoProto(initialization=graph(initializer=[external()]))]
    ),
}


def saved(folder: Path, content: bytes) -> Path:
    path = folder / "m.onnx"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("place", HIDDEN)
def test_hidden_external_data_is_found(tmp_path: Path, place: str) -> None:
    assert has_external_data(saved(tmp_path, HIDDEN[place]().SerializeToString()))


def test_either_trace_is_enough(tmp_path: Path) -> None:
    """A location without entries, and entries without a location."""
    located = TensorProto(data_location=TensorProto.EXTERNAL)
    listed = external()
    listed.ClearField("data_location")
    for tensor in (located, listed):
        assert has_external_data(saved(tmp_path, ModelProto(graph=graph(initializer=[tensor])).SerializeToString()))


def test_a_model_that_keeps_its_tensors(tmp_path: Path, tiny_detector: Path) -> None:
    inside = numpy_helper.from_array(np.ones(4, np.float32))
    inside.data_location = TensorProto.DEFAULT
    model = with_attribute(attribute(t=inside))
    model.graph.initializer.append(inside)
    assert not has_external_data(saved(tmp_path, model.SerializeToString()))
    assert not has_external_data(tiny_detector / "encoder.onnx")
    assert not has_external_data(tiny_detector / "head.onnx")


def test_bytes_that_look_like_a_tensor_are_not_one(tmp_path: Path) -> None:
    """Fields that hold text or raw data are not walked into."""
    trap = ModelProto(graph=graph(initializer=[external()])).SerializeToString()
    model = ModelProto(graph=graph(initializer=[TensorProto(raw_data=trap)]))
    model.metadata_props.add(key="trap", value=trap.decode("latin-1"))
    assert not has_external_data(saved(tmp_path, model.SerializeToString()))


def test_tags_that_only_protobuf_understands_are_refused(tmp_path: Path) -> None:
    """protobuf drops what a tag has above 32 bits: field 13, external_data, can be written as 2^29 + 13."""
    entry = onnx.StringStringEntryProto(key="location", value=OUTSIDE).SerializeToString()
    tensor = TensorProto(name="w").SerializeToString() + varint(13 << 3 | 2 | 1 << 32) + delimited(entry)
    inner = graph().SerializeToString() + varint(5 << 3 | 2) + delimited(tensor)
    with pytest.raises(ValueError, match="overlong tag"):
        has_external_data(saved(tmp_path, varint(7 << 3 | 2) + delimited(inner)))


@pytest.mark.parametrize(
    "content",
    [b"", b"\x3a", b"\x3a\xff\xff", b"\x3a\x05abc", b"\xff" * 20, b"\x3b\x00", b"\x39abc", b"not a model"],
)
def test_what_is_no_protobuf(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        has_external_data(saved(tmp_path, content))


def test_helper_writes_what_this_test_believes(tmp_path: Path) -> None:
    """onnx's own writer of external data, as a check of the tensors made by hand."""
    weights = numpy_helper.from_array(np.ones(64, np.float32), "w")
    model = helper.make_model(helper.make_graph([], "g", [], [], [weights]))
    path = tmp_path / "m.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="m.bin", size_threshold=0)
    assert (tmp_path / "m.bin").stat().st_size == 256
    assert has_external_data(path)


def varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def delimited(content: bytes) -> bytes:
    return varint(len(content)) + content
