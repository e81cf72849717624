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
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F

from spai_train.models.mfm import MaskedFrequencyModel
from spai_train.models.spai import SPAI, SPAIConfig
from spai_train.models.vit import Backbone, BackboneName, Family
from spai_train.upstream import (
    CheckpointError,
    exact,
    from_upstream,
    infer_config,
    match,
    pretraining_settings,
    split,
    to_upstream,
    upstream_settings,
)

# Tensors of a pre-training that a detector never reads: its classifier or projection, and DINO's mask. The final norm
# goes too, unless the backbone has one.
_HEADS = re.compile(r"(head|fc_norm|norm)\.|mask_token$")


Part = TypeVar("Part", "Card", SPAIConfig)


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
    state, settings, header = _read(path)
    card = _part(header, "card", Card, path) if header else Card(name=path.stem)
    if any(name.startswith("mfvit.") for name in state):
        config = infer_config(state, settings)
        return Checkpoint(config, from_upstream(state, config), card, path, sha256)
    config = _part(header, "config", SPAIConfig, path) if header else _infer_ours(state)
    with torch.device("meta"):
        expected = SPAI(config).state_dict()
    return Checkpoint(config, exact(state, expected), card, path, sha256)


def save_checkpoint(path: str | Path, model: SPAI, card: Card) -> None:
    """Writes `.safetensors` in our names, the configuration and the card in its header."""
    header = json.dumps({"config": asdict(model.config), "card": asdict(card)})
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    Path(path).write_bytes(save(state, {"spai": header}))  # save_file would make it readable by its owner alone


def save_upstream(path: str | Path, model: SPAI) -> None:
    """Writes a `.pth` that upstream's `--model` and `--pretrained` read; its config is a plain dict."""
    state = to_upstream(model.state_dict(), model.config)
    torch.save({"model": state, "epoch": 0, "config": upstream_settings(model.config)}, path)


def load_pretrained(backbone: Backbone, source: str | Path) -> None:
    """Loads a pre-trained ViT into a backbone of the same family and dimensions.

    :param source: masked frequency modelling: the `.pth` of upstream or of `save_pretrained`, keys under `encoder.`;
        CLIP and DINOv2: a state dict in timm's names, `.pth` or `.safetensors`, or `timm`, which downloads it
    :raises CheckpointError: tensors missing, left over, or of another shape; or nothing could be downloaded
    """
    if str(source) == "timm":
        backbone.load_state_dict(_fit(_download(backbone.family), backbone))
        return
    state, *_ = _read(Path(source))
    if backbone.family.hub:
        backbone.load_state_dict(_fit(state, backbone))
        return
    vit = {f"mfvit.vit.{name.removeprefix('encoder.')}": t for name, t in state.items() if name.startswith("encoder.")}
    if not vit:
        raise CheckpointError(f"{source} holds no tensor under `encoder.`: it is not a masked-frequency pre-training")
    expected = {f"encoder.backbone.{name}": tensor for name, tensor in backbone.state_dict().items()}
    loaded = match(vit, expected)
    backbone.load_state_dict({name.removeprefix("encoder.backbone."): tensor for name, tensor in loaded.items()})


def save_pretrained(path: str | Path, model: MaskedFrequencyModel, epoch: int = 0) -> None:
    """Writes a `.pth` that upstream's `--pretrained` and our `load_pretrained` read; its config is a plain dict."""
    parts = [part for name, tensor in model.state_dict().items() for part in split(name, tensor)]
    torch.save({"model": dict(parts), "epoch": epoch, "config": pretraining_settings(model)}, path)


def _fit(state: Mapping[str, Tensor], backbone: Backbone) -> dict[str, Tensor]:
    """A state dict in timm's names as the backbone takes it: without heads, positions resampled to its tokens."""
    expected = backbone.state_dict()
    state = {name: tensor for name, tensor in state.items() if name in expected or not _HEADS.match(name)}
    if "pos_embed" in state and state["pos_embed"].shape[1] != expected["pos_embed"].shape[1]:
        state["pos_embed"] = resample_positions(state["pos_embed"], backbone.patch_embed.grid_size[0])
    return exact(state, expected)


def resample_positions(positions: Tensor, side: int) -> Tensor:
    """Position embeddings for another number of tokens, as DINOv2 itself does it: bicubic, the scale 0.1 tokens large.

    :param positions: (1, 1 + G·G, C), CLS first
    :param side: tokens along a side
    :returns: (1, 1 + side·side, C)
    """
    grid = round((positions.shape[1] - 1) ** 0.5)
    tokens = positions[:, 1:].float().transpose(1, 2).reshape(1, -1, grid, grid)  # (1, C, G, G)
    tokens = F.interpolate(tokens, scale_factor=(side + 0.1) / grid, mode="bicubic")
    return torch.cat((positions[:, :1].float(), tokens.flatten(2).transpose(1, 2)), dim=1)


def _download(family: Family) -> dict[str, Tensor]:
    if not family.hub:
        raise CheckpointError("timm has no masked-frequency pre-training: name the .pth of one")
    try:
        model = timm.create_model(family.hub, pretrained=True, num_classes=0)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"cannot download {family.hub} from timm's hub: {_first_line(error)}") from error
    return model.state_dict()  # type: ignore[no-any-return]


def _read(path: Path) -> tuple[dict[str, Tensor], Mapping[str, Any], dict[str, Any]]:
    """State dict, upstream's configuration, and the header of our files; what a file does not have is empty."""
    if path.suffix == ".safetensors":
        state, header = _read_safetensors(path)
        return state, {}, header
    return *_read_pickle(path), {}


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


def _part(header: Mapping[str, Any], name: str, kind: type[Part], path: Path) -> Part:
    """The configuration or the card in the header of our files."""
    values = header.get(name)
    if isinstance(values, Mapping) and (unknown := values.keys() - {known.name for known in fields(kind)}):
        raise CheckpointError(f"{path} was written by a newer version: its {name} has {', '.join(sorted(unknown))}")
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"{path} has a {name} that cannot be read: {error}") from error


def _infer_ours(state: Mapping[str, Tensor]) -> SPAIConfig:
    """Dimensions of a bare state dict in our names; what only one family of backbones has gives that away."""
    config = infer_config({theirs: part for name, tensor in state.items() for theirs, part in split(name, tensor)}, {})
    marks: dict[str, BackboneName] = {"norm_pre.weight": "clip", "blocks.0.ls1.gamma": "dinov2"}
    families = [family for mark, family in marks.items() if f"encoder.backbone.{mark}" in state]
    return replace(config, backbone=families[0]) if families else config


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
