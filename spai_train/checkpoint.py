"""Checkpoints: what upstream writes, what we write, and nothing that runs code.

Three kinds of file load: upstream's `.pth` (optimizer, pickled yacs config and all), a bare state dict in upstream's
or our names, and our `.safetensors`, whose header carries the configuration. Inside, names are always ours.
"""

import hashlib
import json
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from spai_train.models.spai import SPAI, SPAIConfig
from spai_train.models.vit import Backbone
from spai_train.upstream import (
    CheckpointError,
    from_upstream,
    infer_config,
    match,
    split,
    to_upstream,
    upstream_settings,
)


@dataclass(frozen=True)
class Card:
    """What a detector says of itself; an export copies it into detector.json.

    :param notice: one line that a user must read before trusting a score, or ""
    :param threshold: on the score, in [0, 1]; `threshold_source` says how it was found
    """

    name: str = "spai"
    notice: str = ""
    threshold: float = 0.5
    threshold_source: str = "published value, not calibrated (18% false positives were seen on real photographs)"


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint: enough to rebuild the model, and where it came from."""

    config: SPAIConfig
    state: dict[str, Tensor] = field(repr=False)
    card: Card
    path: Path
    sha256: str

    def model(self) -> SPAI:
        """The model with these weights, in eval mode."""
        model = SPAI(self.config)
        model.load_state_dict(self.state)
        return model.eval()


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Reads any of the three kinds of file.

    :raises CheckpointError: not a checkpoint, not a SPAI, tensors missing or left over, or a pickle that asks for code
    """
    path = Path(path)
    sha256 = _sha256(path)
    if path.suffix == ".safetensors":
        state, header = _read_safetensors(path)
        settings: Mapping[str, Any] = {}
    else:
        state, settings, header = *_read_pickle(path), {}
    if not any(name.startswith("mfvit.") for name in state):
        state = {upstream: tensor for name, tensor in state.items() for upstream, tensor in split(name, tensor)}
    config = SPAIConfig(**_tuples(header["config"])) if header else infer_config(state, settings)
    card = Card(**header["card"]) if header else Card(name=path.stem)
    return Checkpoint(config, from_upstream(state, config), card, path, sha256)


def save_checkpoint(path: str | Path, model: SPAI, card: Card) -> None:
    """Writes `.safetensors` in our names, the configuration and the card in its header."""
    header = json.dumps({"config": asdict(model.config), "card": asdict(card)})
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    Path(path).write_bytes(save(state, {"spai": header}))  # save_file would make it readable by its owner alone


def save_upstream(path: str | Path, model: SPAI) -> None:
    """Writes a `.pth` that upstream's `--model` and `--pretrained` read; its config is a plain dict."""
    state = to_upstream(model.state_dict(), model.config)
    torch.save({"model": state, "epoch": 0, "config": upstream_settings(model.config)}, path)


def load_pretrained(backbone: Backbone, path: str | Path) -> None:
    """Loads a ViT pre-trained by masked frequency modelling (keys under `encoder.`) into a backbone.

    :raises CheckpointError: tensors missing, left over, or of another shape
    """
    state, _ = _read_pickle(Path(path))
    state = {
        f"mfvit.vit.{name.removeprefix('encoder.')}": t for name, t in state.items() if name.startswith("encoder.")
    }
    if not state:
        raise CheckpointError(f"{path} holds no tensor under `encoder.`: it is not a masked-frequency pre-training")
    expected = {f"encoder.backbone.{name}": tensor for name, tensor in backbone.state_dict().items()}
    loaded = match(state, expected)
    backbone.load_state_dict({name.removeprefix("encoder.backbone."): tensor for name, tensor in loaded.items()})


def _read_pickle(path: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """State dict and configuration of a file that torch.save wrote; yacs.config.CfgNode is read as a dict."""
    with torch.serialization.safe_globals([(OrderedDict, "yacs.config.CfgNode")]):
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        except pickle.UnpicklingError as error:
            culprit = re.search(r"GLOBAL (\S+)", str(error))
            asks = f"asks for {culprit[1]}, which could run code" if culprit else "is not one of tensors and settings"
            raise CheckpointError(f"{path} was refused: its pickle {asks}") from error
        except (RuntimeError, EOFError, OSError, ValueError) as error:
            raise CheckpointError(f"{path} is not a checkpoint that torch can read: {_first_line(error)}") from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__} where a state dict was expected")
    state = content.get("model", content)
    tensors = {name.removeprefix("module."): t for name, t in state.items() if isinstance(t, Tensor)}
    if not tensors:
        raise CheckpointError(f"{path} holds no tensors")
    return tensors, content.get("config") or {}


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads(metadata.get("spai", "{}"))  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path} is not a safetensors file: {_first_line(error)}") from error


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
