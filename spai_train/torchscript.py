"""The weights in a TorchScript archive, read without its code: OpenAI publishes CLIP as such a file.

torch refuses to read one with `weights_only`. Its pickle holds the tree of modules, and asks for things by name: this
module makes tensors and containers, and refuses anything else.
"""

import pickle
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

_DTYPES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "ShortStorage": torch.int16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "BoolStorage": torch.bool,
}

_OPCODES = (
    *(pickle.PROTO, pickle.STOP, pickle.MARK, pickle.GLOBAL, pickle.BINPERSID, pickle.NONE),
    *(pickle.BINPUT, pickle.LONG_BINPUT, pickle.BINGET, pickle.LONG_BINGET),
    *(pickle.NEWTRUE, pickle.NEWFALSE, pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1, pickle.BINFLOAT),
    *(pickle.BINUNICODE, pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3),
    *(pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS, pickle.EMPTY_DICT, pickle.SETITEM, pickle.SETITEMS),
)


def is_torchscript(path: Path) -> bool:
    """Whether torch.jit.save wrote a file."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Reads parameters and buffers, by their dotted names.

    :raises pickle.UnpicklingError: its pickle asks for something that is neither a tensor nor a module
    :raises Exception: whatever zipfile and pickle stumble over in a file that is malformed
    """
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        return dict(_tensors(_Unpickler(archive, name.removesuffix("data.pkl")).load()))


class _Module(dict[str, Any]):
    """One module of the tree: the values of its attributes."""


class _Unpickler(pickle._Unpickler):
    """Python's own unpickler, which keeps memos in a dict: the one in C makes room for any index that a pickle names.

    :param folder: the archive's folder, with a slash at its end
    """

    stack: list[Any]
    append: Callable[[Any], None]

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(archive.open(_stored(archive, f"{folder}data.pkl")))
        self._archive, self._folder = archive, folder
        self._storages: dict[tuple[torch.dtype, str], Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Gives a stand-in of ours for what the pickle asks for; nothing is imported."""
        if module.partition(".")[0] == "__torch__":
            return _Module
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if module == "torch.jit._pickle" and name in ("build_intlist", "build_doublelist", "build_boollist"):
            return list
        raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")

    def persistent_load(self, pid: Any) -> Tensor:
        """:returns: the numbers of a storage, (N,), which several tensors may share"""
        _, dtype, key, *_ = pid
        if (dtype, key) not in self._storages:
            content = self._archive.read(_stored(self._archive, f"{self._folder}data/{key}"))
            numbers = torch.frombuffer(bytearray(content), dtype=dtype) if content else torch.empty(0, dtype=dtype)
            self._storages[dtype, key] = numbers
        return self._storages[dtype, key]

    def _reduce(self) -> None:
        arguments, made = self.stack.pop(), self.stack.pop()
        if made not in (_rebuild, dict, list):
            raise pickle.UnpicklingError("a pickle of tensors and modules calls nothing else")
        self.append(made(*arguments))

    def _new(self) -> None:
        arguments, kind = self.stack.pop(), self.stack.pop()
        if kind is not _Module or arguments:
            raise pickle.UnpicklingError("a pickle of tensors and modules makes nothing else")
        self.append(_Module())

    def _build(self) -> None:
        state, module = self.stack.pop(), self.stack[-1]
        if type(module) is not _Module or type(state) is not dict:
            raise pickle.UnpicklingError("a pickle of tensors and modules sets nothing else")
        module.update(state)

    dispatch: ClassVar[dict[int, Callable[..., None]]] = {  # no more opcodes than torch.jit.save writes
        **{code[0]: pickle._Unpickler.dispatch[code[0]] for code in _OPCODES},
        pickle.REDUCE[0]: _reduce,
        pickle.NEWOBJ[0]: _new,
        pickle.BUILD[0]: _build,
    }


def _stored(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """:raises ValueError: it is compressed, which torch never does: it could have any size"""
    part = archive.getinfo(name)
    if part.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    return part


def _rebuild(numbers: Tensor, offset: int, shape: Sequence[int], stride: Sequence[int], *_: Any) -> Tensor:
    """:raises RuntimeError: the storage has too few numbers"""
    return numbers.as_strided(shape, stride, offset)


def _tensors(root: Any) -> Iterator[tuple[str, Tensor]]:
    """The tensors of all modules below the root; a module that a hostile file makes its own child is visited once."""
    todo, seen = [("", root)], set[int]()
    while todo:
        prefix, module = todo.pop()
        if not isinstance(module, _Module) or id(module) in seen:
            continue
        seen.add(id(module))
        for name, value in module.items():
            if isinstance(value, Tensor):
                yield f"{prefix}{name}", value
            todo.append((f"{prefix}{name}.", value))
