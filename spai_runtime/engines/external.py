"""Does an ONNX file point at other files? Found out from its bytes, before any library opens what it names.

A graph of an exported directory keeps all its tensors inside. One that refers to external data could make the runtime
read any file of the machine, so it is refused. The runtime has no `onnx` package to ask, and needs none: this walks
the protobuf wire format (protobuf.dev, "Encoding") along the fields of onnx.proto that can hold a tensor.
"""

import mmap
from pathlib import Path

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types

# Message → field number → message, for every way from a model to a tensor (onnx/onnx.proto, IR version 11).
_FIELDS: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # TensorProto


def has_external_data(path: Path) -> bool:
    """Whether any tensor of the model lies outside the file.

    :raises ValueError: the file is not a protobuf message
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _any_external(content, 0, len(content), "Model")


def _any_external(content: mmap.mmap, position: int, end: int, message: str) -> bool:
    children = _FIELDS[message]
    while position < end:
        tag, position = _varint(content, position, end)
        if tag >> 32:  # protobuf would drop the upper bits and see a field that this walk does not
            raise ValueError(f"an overlong tag at byte {position}")
        field, wire = tag >> 3, tag & 7
        start, position, value = _skip(content, position, end, wire)
        if message == "Tensor" and (field == _EXTERNAL_DATA or (field == _DATA_LOCATION and value == 1)):
            return True
        if wire == _BYTES and field in children and _any_external(content, start, position, children[field]):
            return True
    return False


def _skip(content: mmap.mmap, position: int, end: int, wire: int) -> tuple[int, int, int]:
    """One field's value: where it starts, where it ends, and itself if it is a varint."""
    value = 0
    start = position
    if wire == _VARINT:
        value, position = _varint(content, position, end)
    elif wire == _BYTES:
        length, start = _varint(content, position, end)
        position = start + length
    elif wire in (_FIXED64, _FIXED32):
        position += 8 if wire == _FIXED64 else 4
    else:
        raise ValueError(f"wire type {wire} at byte {position}")
    if position > end:
        raise ValueError(f"a field runs past the end of its message at byte {start}")
    return start, position, value


def _varint(content: mmap.mmap, position: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while position < end and shift < 64:
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError(f"an unfinished number at byte {position}")
