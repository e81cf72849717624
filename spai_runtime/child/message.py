"""The messages between a parent and its child: JSON and arrays over a pipe, and nothing that could run as code.

A message is the length of its head (8 bytes, little-endian), the head as JSON, and the bytes of the arrays.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any, BinaryIO, Literal

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from spai_runtime import errors
from spai_runtime.errors import UserError

Array = NDArray[Any]

_LARGEST_HEAD = 1 << 20  # bytes; settings and a sentence are far below
_LONGEST_ERROR = 1000  # characters of an error's message

_Dtype = Literal["bool", "uint8", "uint16", "uint32", "int32", "int64", "float16", "float32", "float64"]
_Side = Annotated[int, Meta(ge=0, lt=1 << 40)]


class _Shape(msgspec.Struct, array_like=True):
    dtype: _Dtype
    sides: Annotated[list[_Side], Meta(max_length=8)]

    @property
    def nbytes(self) -> int:
        return math.prod(self.sides) * np.dtype(self.dtype).itemsize


class _Head(msgspec.Struct):
    body: Any = None
    error: str = ""
    arrays: list[_Shape] = []


class Message(msgspec.Struct):
    """One request or one answer.

    :param body: any value that JSON can hold
    :param error: name of the class of `spai_runtime.errors` whose message is the body; any other name means that the
        child's code failed; "" means no error
    """

    body: Any = None
    arrays: Sequence[Array] = ()
    error: str = ""


def failure(error: Exception) -> Message:
    """The answer of a child that has raised this error."""
    if isinstance(error, UserError):  # by the name of its class, or of its base, that the parent knows too
        name = next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
        return Message(_sentence(str(error)), error=name)
    return Message(_sentence(f"{type(error).__name__}: {error}"), error=type(error).__name__)


def raised(answer: Message) -> UserError | None:
    """The error of `spai_runtime.errors` in an answer; None if the child's code failed, or if there is no error."""
    kind = getattr(errors, answer.error, None)
    if isinstance(kind, type) and issubclass(kind, UserError):
        return kind(" ".join(str(answer.body).split()))
    return None


def write(stream: BinaryIO, message: Message) -> None:
    """Send a message. :raises OSError: nobody reads any more"""
    arrays = [np.asarray(array, array.dtype.newbyteorder("="), order="C") for array in message.arrays]
    shapes = [_Shape(array.dtype.name, list(array.shape)) for array in arrays]  # type: ignore[arg-type]
    head = msgspec.json.encode(_Head(message.body, message.error, shapes))
    assert len(head) <= _LARGEST_HEAD
    contents = [_bytes_of(array) for array in arrays]
    stream.write(len(head).to_bytes(8, "little") + head)
    for content in contents:
        stream.write(content)
    stream.flush()


def read(stream: BinaryIO, most: int | None = None) -> Message:
    """Receive a message.

    :param most: the bytes that its arrays may hold together; they are counted before memory is taken for them
    :raises EOFError: the other side has ended
    :raises ValueError: the data is not a message, or the message is larger than `most`
    """
    length = int.from_bytes(_exactly(stream, 8), "little")
    if length > _LARGEST_HEAD:
        raise ValueError(f"a head of {length} bytes")
    try:
        head = msgspec.json.decode(_exactly(stream, length), type=_Head)
    except RecursionError as error:
        raise ValueError("a head that is nested too deep") from error
    if most is not None and (nbytes := sum(shape.nbytes for shape in head.arrays)) > most:
        raise ValueError(f"arrays of {nbytes} bytes, where {most} were expected at most")
    return Message(head.body, [_array(stream, shape) for shape in head.arrays], head.error)


def _array(stream: BinaryIO, shape: _Shape) -> Array:
    array = np.empty(shape.sides, shape.dtype)
    _fill(stream, _bytes_of(array))
    return array


def _bytes_of(array: Array) -> memoryview:
    return memoryview(array.reshape(-1).view(np.uint8))  # type: ignore[arg-type]


def _exactly(stream: BinaryIO, count: int) -> bytearray:
    content = bytearray(count)
    _fill(stream, memoryview(content))
    return content


def _fill(stream: BinaryIO, place: memoryview) -> None:
    while len(place):
        count = stream.readinto(place)  # type: ignore[attr-defined]
        if not count:
            raise EOFError
        place = place[count:]


def _sentence(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()[:_LONGEST_ERROR]
