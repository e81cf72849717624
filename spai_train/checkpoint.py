"""Checkpoints: what the authors of a detector write, what we write, and nothing that runs code.

Our `.safetensors` say in their header which detector they are of, and carry its dimensions. Any other file belongs
to the detector that recognises its tensors. In memory, tensors always have our names.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import msgspec
import torch
from msgspec import Meta
from safetensors.torch import save
from torch import Tensor

from spai_runtime.manifest import Name, Positive
from spai_runtime.text import excerpt
from spai_train.detectors import DEFAULT, DETECTORS, every, find
from spai_train.detectors.spec import DetectorModel, DetectorSpec
from spai_train.folders import read_folder, refuse_part, write_folder
from spai_train.tensors import CheckpointError, Content, State, digest_of, exact, read
from spai_train.towers import Tower, with_tower

__all__ = ["Card", "Checkpoint", "CheckpointError", "load_checkpoint", "save_checkpoint", "save_upstream"]


NAMELESS = {"weights", "model", "checkpoint", "ckpt"}  # files whose name says nothing; a detector is then its method


@dataclass(frozen=True)
class Card:
    """What a detector says of itself; an export copies it into detector.json.

    :param notice: one line that a user must read before trusting a score, or ""
    :param threshold: the score's threshold, in [0, 1]; `threshold_source` says how it was found
    :param positive: its word for images that it does not call real
    """

    name: Name = "spai"
    notice: str = ""
    threshold: Annotated[float, Meta(ge=0, le=1)] = 0.5
    threshold_source: str = "published value, not calibrated"
    positive: Positive = "ai"


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint: enough to rebuild the model, and where it came from.

    :param detector: the detector that it belongs to
    :param config: the dimensions, of the kind `detector.config`
    :param tower: the file that its backbone came from, if that is another one
    """

    detector: DetectorSpec
    config: Any
    state: dict[str, Tensor] = field(repr=False)
    card: Card
    path: Path
    sha256: str
    tower: Tower | None = None

    def model(self) -> DetectorModel:
        """The model with these weights, in eval mode."""
        model = self.detector.build(self.config)
        model.load_state_dict(self.state)
        return model.eval()


def load_checkpoint(path: str | Path, detector: str | None = None, tower: Path | None = None) -> Checkpoint:
    """Reads a checkpoint of any detector in the table.

    :param path: a file, or a folder with the files of a detector that has several
    :param detector: the detector it must belong to; None takes it from the header, else from the names of the tensors
    :param tower: the file of a backbone that the checkpoint leaves out; None looks for the published one beside it
    :raises CheckpointError: it is no checkpoint or one of another detector, tensors are missing or left over, or its
        pickle asks for code
    :raises UserError: there is no detector of that name
    """
    path, asked = Path(path), None if detector is None else find(detector)
    sha256, content = read_folder(path, asked) if path.is_dir() else (digest_of(path), read(path))
    header = _header(content) if content.header else None
    if not header and path.is_file():
        refuse_part(path, asked)
    spec = _named(header, asked, path) if header else _recognised(content, asked)
    content, from_tower = with_tower(content, spec, tower)
    state: State = content.state
    if header:
        config, card = _part(header.config, "config", spec.config, path), _part(header.card, "card", Card, path)
    else:
        config, state = _read(spec, content)
        name = spec.name if path.stem in NAMELESS else path.stem
        card = Card(name, threshold_source=spec.threshold_source)
    return Checkpoint(spec, config, exact(state, _expected(spec, config)), card, path, sha256, from_tower)


def save_checkpoint(path: str | Path, model: DetectorModel, card: Card) -> None:
    """Writes `.safetensors` in our names, the detector, the dimensions and the card in its header."""
    header = json.dumps({"detector": model.detector, "config": asdict(model.config), "card": asdict(card)})
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    Path(path).write_bytes(save(state, {"spai": header}))  # save_file would make it readable by its owner alone


def save_upstream(path: str | Path, model: DetectorModel) -> None:
    """Writes a checkpoint that the code of the detector's authors reads.

    :param path: a `.pth`, or a folder for the files of a detector that has several
    :raises CheckpointError: their layout has no place for the model, we write no layout of theirs, or the layout has
        several files and the path is that of one, or the other way round
    """
    path, spec = Path(path), find(model.detector)
    if spec.to_upstream is None:
        raise CheckpointError(f"there is no layout of upstream's to write {spec.title} in; write .safetensors")
    content = spec.to_upstream(model)
    several = content.keys() == spec.files.keys()
    if several and path.suffix == ".pth":
        raise CheckpointError(f"cannot write {path}: upstream has several files of this {spec.title}, so name a folder")
    if several:
        write_folder(path, spec.files, content)
    elif path.suffix == ".pth":
        torch.save(content, path)
    else:
        raise CheckpointError(
            f"cannot write {path}: upstream has one file of this {spec.title}, so name it .pth, or .safetensors (ours)"
        )


@dataclass(frozen=True)
class _Header:
    """What stands in our files beside the tensors."""

    config: Any = None
    card: Any = None
    detector: str = DEFAULT


def _header(content: Content) -> _Header:
    try:
        return msgspec.convert(content.header, _Header)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"{content.path} has a header that cannot be read: {error}") from error


def _named(header: _Header, asked: DetectorSpec | None, path: Path) -> DetectorSpec:
    """The detector that the header names."""
    if header.detector not in DETECTORS:
        raise CheckpointError(
            f"{path} was written by a newer version: it is a checkpoint of {excerpt(header.detector)}"
        )
    return _same(find(header.detector), asked, path)


def _recognised(content: Content, asked: DetectorSpec | None) -> DetectorSpec:
    """The detector that recognises the tensors; else the one asked for, which then says what is missing."""
    found = [spec for spec in every() if spec.recognises(content.state)]
    if not found or asked in found:
        return asked or find(DEFAULT)
    if len(found) > 1 and asked is None:
        names = " or ".join(spec.name for spec in found)
        raise CheckpointError(f"{content.path} can be a checkpoint of {names}: say which with --detector")
    return _same(found[0], asked, content.path)


def _same(found: DetectorSpec, asked: DetectorSpec | None, path: Path) -> DetectorSpec:
    if asked is not None and asked is not found:
        raise CheckpointError(
            f"{path} is a checkpoint of {found.name}, not of {asked.name}: give --detector {found.name}"
        )
    return found


def _read(spec: DetectorSpec, content: Content) -> tuple[Any, State]:
    if spec.read is None:
        raise CheckpointError(f"{content.path} has no header, which says the dimensions of a {spec.title}")
    try:
        return spec.read(content)
    except CheckpointError as error:
        if spec.recognises(content.state):
            raise
        unknown = f"{content.path} looks like no known detector ({', '.join(DETECTORS)})"
        raise CheckpointError(f"{unknown}; for {spec.name}, {error}") from error


def _expected(spec: DetectorSpec, config: Any) -> State:
    with torch.device("meta"):
        return spec.build(config).state_dict()


def _part(values: Any, name: str, kind: type[Any], path: Path) -> Any:
    """The configuration or the card in the header of our files."""
    if isinstance(values, Mapping) and (unknown := values.keys() - {known.name for known in fields(kind)}):
        raise CheckpointError(f"{path} was written by a newer version: its {name} has {_listed(unknown)}")
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"{path} has a {name} that cannot be read: {error}") from error


def _listed(names: Collection[Any]) -> str:
    return excerpt(", ".join(sorted(map(str, names))))
