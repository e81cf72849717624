"""Towers: the backbones that some published checkpoints leave out, since their authors did not train them."""

from dataclasses import dataclass, replace
from pathlib import Path

from spai_train.detectors.class_token import BACKBONE
from spai_train.detectors.spec import DetectorSpec
from spai_train.models.clip import visual_tower
from spai_train.published import PublishedFile
from spai_train.tensors import CheckpointError, Content, digest_of, read


@dataclass(frozen=True)
class Tower:
    """The file that a checkpoint's backbone was read from."""

    path: Path
    sha256: str


def with_tower(content: Content, spec: DetectorSpec, path: Path | None) -> tuple[Content, Tower | None]:
    """A checkpoint with its backbone, which is read from another file where the checkpoint has none.

    :param path: the tower's file; None looks for the published file beside the checkpoint
    :returns: what both files hold, and the tower's file, if it was needed
    :raises CheckpointError: there is no tower, it is another file than was published, or it is not needed
    """
    if spec.tower is None or any(name.startswith(BACKBONE) for name in content.state):
        if path is not None:
            raise CheckpointError(f"{content.path} holds all of a {spec.title}: leave --tower out")
        return content, None
    published = spec.tower(content.state)
    beside = (content.path if content.path.is_dir() else content.path.parent) / published.name
    if path is None and not beside.is_file():
        raise CheckpointError(
            f"{content.path} is the part of {spec.title} that was trained, without its tower: "
            f"get {published.described}, and put it beside the checkpoint or name it with --tower"
        )
    path = path or beside
    sha256 = _sha256(path, published)
    tower = {f"{BACKBONE}{name}": tensor for name, tensor in visual_tower(read(path).state).items()}
    return replace(content, state={**content.state, **tower}), Tower(path, sha256)


def _sha256(path: Path, published: PublishedFile) -> str:
    """:raises CheckpointError: it cannot be read, or has the name of the published file but not its content"""
    found = digest_of(path)
    if path.name == published.name and published.sha256 not in (None, found):
        raise CheckpointError(
            f"{path} is not the file that was published (its sha256 is {found}): get {published.described} again"
        )
    return found
