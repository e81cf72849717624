"""A check whether an ONNX file points at other files, from its bytes, before any library opens what it names.

A graph of an exported directory keeps all its tensors inside. One that refers to external data could make the runtime
read any file of the machine, so it is refused. The runtime has no `onnx` package and needs none: this code walks the
protobuf wire format (protobuf.dev, "Encoding") along the fields of onnx.proto that can hold a tensor.
"""

import mmap
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from spai_runtime.errors import EngineError, GraphRefusedError

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


_DEEPEST = 100  # messages in messages; protobuf itself reads no more (C++ `SetRecursionLimit`)
_MOST_FIELDS = 2_000_000  # seconds of this walk; a detector of 24 blocks has some 30,000


def refuse_external_data(path: Path) -> None:
    """Refuse a file with external data.

    :raises EngineError: a tensor of the model lies outside the file; or it cannot be read, or is no ONNX graph
    """
    try:
        external = has_external_data(path)
    except OSError as error:
        raise EngineError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise EngineError(f"{path} is not an ONNX graph: {error}") from error
    if external:
        raise GraphRefusedError(
            f"{path} keeps tensors in other files, which is refused: export it again as a single file"
        )


def has_external_data(path: Path) -> bool:
    """Whether any tensor of the model lies outside the file.

    :raises ValueError: the file is not a protobuf message, or has more fields or levels than any detector has
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _any_external(content, 0, len(content), "Model", count(1))


def _any_external(
    content: mmap.mmap, position: int, end: int, message: str, fields: Iterator[int], depth: int = 1
) -> bool:
    children = _FIELDS[message]
    if depth > _DEEPEST:
        raise ValueError(f"messages are nested more than {_DEEPEST} deep")
    while position < end:
        if next(fields) > _MOST_FIELDS:
            raise ValueError(f"it has more than {_MOST_FIELDS} fields")
        tag, position = _varint(content, position, end)
        if tag >> 32:  # protobuf would drop the upper bits and see a field that this walk does not
            raise ValueError(f"an overlong tag at byte {position}")
        field, wire = tag >> 3, tag & 7
        start, position, value = _skip(content, position, end, wire)
        if message == "Tensor" and (field == _EXTERNAL_DATA or (field == _DATA_LOCATION and value == 1)):
            return True
        inside = children.get(field) if wire == _BYTES else None
        if inside and _any_external(content, start, position, inside, fields, depth + 1):
            return True
    return False


def _skip(content: mmap.mmap, position: int, end: int, wire: int) -> tuple[int, int, int]:
    """The value of one field: where it starts, where it ends, and the value itself if it is a varint."""
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
