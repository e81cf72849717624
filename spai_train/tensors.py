"""State dicts: they are read from files without running any code, and held against what a model expects."""

import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn import Parameter

from spai_runtime.errors import RefusedError, UserError
from spai_runtime.files.digest import sha256_of
from spai_runtime.text import excerpt
from spai_train.pickles import asks_for_code
from spai_train.torchscript import is_torchscript, read_torchscript

Kind = TypeVar("Kind")
State = Mapping[str, Tensor]
NAMED = 5  # tensors that an error names; one that lacks a backbone lacks hundreds

_REAL = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # what weights are computed with
_WRAPPERS = "model", "state_dict", "net"  # keys of a state dict, in the order of GRIP-UNINA's `load_weights`
_SHARED = 4  # times its file that the tensors may hold together: some share their numbers


class CheckpointError(UserError):
    """A checkpoint that cannot be used, and why, in one sentence."""


class CheckpointRefusedError(CheckpointError, RefusedError):
    """A checkpoint whose pickle asks for code."""


@dataclass(frozen=True)
class Content:
    """The content of a file; parts that it does not have are empty.

    :param state: its tensors, on the CPU; the prefix of a model that was trained in parallel is gone
    :param settings: the configuration that others keep beside their tensors, as nested mappings
    :param header: the header of our own .safetensors
    """

    path: Path
    state: dict[str, Tensor] = field(repr=False)
    settings: Mapping[str, Any] = field(default_factory=dict)
    header: Any = None


def read(path: Path) -> Content:
    """Reads a `.safetensors`, or else a file that torch.save wrote.

    :raises CheckpointError: it is neither, it holds no tensors, or its pickle asks for code
    """
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)


def dimensions(values: Mapping[str, Any], kind: type[Kind]) -> Kind:
    """A model's dimensions from what tensors and settings say, held against the limits of their dataclass.

    :raises CheckpointError: there is no model of these dimensions
    """
    try:
        return msgspec.convert(values, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise CheckpointError(f"the checkpoint's configuration makes no model: {excerpt(str(error))}") from error


def shape_of(state: State, name: str, axes: int) -> torch.Size:
    """The shape of a tensor that dimensions are read from.

    :raises CheckpointError: it is missing, has another number of axes, or no numbers
    """
    if name not in state:
        raise CheckpointError(f"the checkpoint does not fit the model: it is missing {name}")
    shape = state[name].shape
    if len(shape) != axes or 0 in shape:
        raise CheckpointError(f"the checkpoint does not fit the model: {name} has the shape {tuple(shape)}")
    return shape


def exact(state: State, expected: State) -> dict[str, Tensor]:
    """Checks that `state` has the names and shapes of `expected`, and numbers of its kind, and gives it back.

    :raises CheckpointError: names the tensors that are missing, left over, of another shape, or no finite numbers
    """
    found = {name: state[name] for name in expected if name in state}
    refuse(expected.keys() - found.keys(), state.keys() - found.keys(), misshapen(found, expected))
    check_numbers(found, expected)
    return found


def check_numbers(found: State, expected: State) -> None:
    """:param found: tensors with the names of `expected`
    :raises CheckpointError: a tensor that should hold real numbers does not, or some are not finite, so that no score
        would follow from them
    """
    for name, tensor in found.items():
        if expected[name].dtype in _REAL and tensor.dtype not in _REAL:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise CheckpointError(f"the checkpoint does not fit the model: {excerpt(name)} is {kind}, no real numbers")
        if tensor.dtype in _REAL and not tensor.isfinite().all():
            raise CheckpointError(f"the checkpoint cannot be used: {excerpt(name)} holds numbers that are not finite")


def misshapen(found: State, expected: State) -> list[str]:
    """The names of the tensors that have another shape than is expected."""
    return [name for name, tensor in found.items() if tensor.shape != expected[name].shape]


def refuse(missing: Collection[str], over: Collection[str], other_shapes: Collection[str]) -> None:
    """:raises CheckpointError: any names are given; it says the first ones, and how many more there are"""
    for problem, names in (("is missing", missing), ("has no use for", over), ("has other shapes in", other_shapes)):
        if names:
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            named = excerpt(", ".join(sorted(names)[:NAMED])) + more
            raise CheckpointError(f"the checkpoint does not fit the model: it {problem} {named}")


def first_line(error: BaseException) -> str:
    """The first line of what an error says, for a sentence that goes on with it."""
    return excerpt((str(error).splitlines() or [type(error).__name__])[0])


def digest_of(path: Path) -> str:
    """The sha256 of a file. :raises CheckpointError: it cannot be read"""
    try:
        return sha256_of(path)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error


def load_pickle(path: Path) -> Mapping[Any, Any]:
    """Reads tensors and settings that torch.save wrote, or tensors that torch.jit.save wrote. yacs.config.CfgNode,
    which upstream SPAI pickles, is read as a dict.

    :raises CheckpointError: it is neither, or its pickle asks for code
    """
    try:
        content = _unpickled(path)
    except pickle.UnpicklingError as error:
        culprit = re.search(r"GLOBAL (\S+)", str(error))
        if culprit or asks_for_code(path):
            what = excerpt(culprit[1]) if culprit else "something by its name"
            raise CheckpointRefusedError(
                f"{path} was refused: its pickle asks for {what}, which could run code"
            ) from error
        raise CheckpointError(f"{path} was refused: its pickle is not one of tensors and settings") from error
    except Exception as error:  # whatever its unpickler stumbles over in a file that is malformed
        raise CheckpointError(f"{path} is not a checkpoint that torch can read: {first_line(error)}") from error
    return _mapping(content, path, "a state dict was expected")


def _unpickled(path: Path) -> Any:
    """:raises Exception: see `load_pickle`"""
    if is_torchscript(path):
        return read_torchscript(path)
    with warnings.catch_warnings(), torch.serialization.safe_globals([(OrderedDict, "yacs.config.CfgNode")]):
        warnings.simplefilter("ignore")  # torch's remarks on tensors that are refused here
        return torch.load(path, map_location="cpu", weights_only=True, mmap=_is_archive(path))


def _read_pickle(path: Path) -> Content:
    content = load_pickle(path)
    wrapper = next((key for key in _WRAPPERS if key in content), None)
    state = content if wrapper is None else _mapping(content[wrapper], path, f"its `{wrapper}` should be a state dict")
    settings = _mapping({} if content.get("config") is None else content["config"], path, "its `config` should be one")
    return Content(path, _tensors(_flat(state), path), settings)


def _flat(state: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Joins the state dicts of a model's parts into one, whose names begin with the part's; others stay as they are."""
    if any(isinstance(value, Tensor) for value in state.values()):
        return state
    parts = [(part, tensors) for part, tensors in state.items() if _is_name(part) and isinstance(tensors, Mapping)]
    return {f"{part}.{name}": tensor for part, tensors in parts for name, tensor in tensors.items() if _is_name(name)}


def _is_archive(path: Path) -> bool:
    """Whether torch.save wrote a file as a zip archive, and not in its older format.

    :raises ValueError: parts of the archive are compressed, which torch.save never does: they could have any size
    """
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
            raise ValueError("its parts are compressed")
    return True


def _mapping(value: Any, path: Path, expected: str) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise CheckpointError(f"{path} holds a {type(value).__name__} where {expected}")
    return value


def _tensors(state: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    """The named tensors of a state dict, in a form that a model can take."""
    tensors = {name.removeprefix("module."): t for name, t in state.items() if isinstance(t, Tensor) and _is_name(name)}
    if not tensors:
        raise CheckpointError(f"{path} holds no tensors")
    for name, tensor in tensors.items():
        if type(tensor) not in (Tensor, Parameter) or not _is_plain(tensor):
            raise CheckpointError(
                f"{path} holds {excerpt(name)} as a sparse, quantised or empty tensor: save dense ones"
            )
    if sum(tensor.nbytes for tensor in tensors.values()) > _SHARED * path.stat().st_size:
        raise CheckpointError(f"{path} names tensors that together are more than the file holds: save each on its own")
    return tensors


def _is_name(name: Any) -> bool:
    return isinstance(name, str)


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is dense and has its numbers on the CPU."""
    strided = tensor.layout == torch.strided and not tensor.is_nested
    return strided and tensor.device.type == "cpu" and not tensor.is_quantized


def _read_safetensors(path: Path) -> Content:
    try:
        with safe_open(path, framework="pt") as file:
            header = msgspec.json.decode((file.metadata() or {}).get("spai", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # SafetensorError, and what a header makes its parsers stumble over
        raise CheckpointError(f"{path} is not a safetensors file: {first_line(error)}") from error
    return Content(path, _tensors(tensors, path), header=header)
