"""State dicts: read from files, of which nothing is executed, and held against what a model expects."""

import json
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from spai_runtime.errors import RefusedError, UserError
from spai_train.pickles import asks_for_code

State = Mapping[str, Tensor]
NAMED = 5  # tensors that an error names; one that lacks a backbone lacks hundreds


class CheckpointError(UserError):
    """A checkpoint that cannot be used, and why, in one sentence."""


class CheckpointRefusedError(CheckpointError, RefusedError):
    """A checkpoint whose pickle asks for code."""


@dataclass(frozen=True)
class Content:
    """What a file holds; what it does not have is empty.

    :param state: its tensors, on the CPU; the prefix of a model that was trained in parallel is gone
    :param settings: the configuration that others keep beside their tensors, as nested mappings
    :param header: of our own .safetensors
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


def exact(state: State, expected: State) -> dict[str, Tensor]:
    """`state` as it is, once it has the names and shapes of `expected`.

    :raises CheckpointError: names the tensors that are missing, left over, or of another shape
    """
    found = {name: state[name] for name in expected if name in state}
    refuse(expected.keys() - found.keys(), state.keys() - found.keys(), misshapen(found, expected))
    return found


def misshapen(found: State, expected: State) -> list[str]:
    """Names of the tensors that have another shape than is expected."""
    return [name for name, tensor in found.items() if tensor.shape != expected[name].shape]


def refuse(missing: Collection[str], over: Collection[str], other_shapes: Collection[str]) -> None:
    """:raises CheckpointError: there is a name among them; it says the first ones, and how many more there are"""
    for problem, names in (("is missing", missing), ("has no use for", over), ("has other shapes in", other_shapes)):
        if names:
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            named = ", ".join(sorted(names)[:NAMED]) + more
            raise CheckpointError(f"the checkpoint does not fit the model: it {problem} {named}")


def first_line(error: BaseException) -> str:
    """What an error says first, for a sentence that goes on with it."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _read_pickle(path: Path) -> Content:
    """A file that torch.save wrote; yacs.config.CfgNode, which upstream SPAI pickles, is read as a dict."""
    with torch.serialization.safe_globals([(OrderedDict, "yacs.config.CfgNode")]):
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        except pickle.UnpicklingError as error:
            culprit = re.search(r"GLOBAL (\S+)", str(error))
            if culprit or asks_for_code(path):
                what = culprit[1] if culprit else "something by its name"
                raise CheckpointRefusedError(
                    f"{path} was refused: its pickle asks for {what}, which could run code"
                ) from error
            raise CheckpointError(f"{path} was refused: its pickle is not one of tensors and settings") from error
        except (RuntimeError, EOFError, OSError, ValueError) as error:
            raise CheckpointError(f"{path} is not a checkpoint that torch can read: {first_line(error)}") from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__} where a state dict was expected")
    state = content.get("model", content)
    tensors = {name.removeprefix("module."): t for name, t in state.items() if isinstance(t, Tensor)}
    if not tensors:
        raise CheckpointError(f"{path} holds no tensors")
    return Content(path, tensors, content.get("config") or {})


def _read_safetensors(path: Path) -> Content:
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("spai", "null"))
            return Content(path, {name: file.get_tensor(name) for name in file.keys()}, header=header)  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path} is not a safetensors file: {first_line(error)}") from error
