"""Checkpoints that are several files in a folder, which authors write who trained a detector's parts apart."""

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from spai_runtime.files.atomic import atomic_directory
from spai_train.detectors import every
from spai_train.detectors.spec import DetectorSpec
from spai_train.tensors import CheckpointError, Content, digest_of, read

Files = Mapping[str, tuple[str, ...]]  # see `DetectorSpec.files`


def read_folder(folder: Path, detector: DetectorSpec | None) -> tuple[str, Content]:
    """Reads together the files of a detector in a folder; other files are not opened.

    :param detector: the detector whose files they must be; None takes the first in the table that has its files there
    :returns: the sha256 of the lines `PART SHA256` of its files, and their tensors, whose names begin with their part's
    :raises CheckpointError: there are no such files, or one of them is no checkpoint
    """
    if detector and not detector.files:
        raise CheckpointError(f"{folder} is a folder, and a {detector.title} is a file: name a file")
    wanted = [spec for spec in ((detector,) if detector else every()) if spec.files]
    found = next((paths for spec in wanted if len(paths := _present(folder, spec.files)) == len(spec.files)), None)
    if found is None:
        raise CheckpointError(f"{folder} is a folder{_lacking(folder, wanted)}: name a checkpoint")
    lines = "".join(f"{part} {digest_of(path)}\n" for part, path in found.items())
    parts = {part: read(path).state for part, path in found.items()}
    state = {f"{part}.{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}
    return hashlib.sha256(lines.encode()).hexdigest(), Content(folder, state)


def write_folder(folder: Path, files: Files, content: Mapping[str, Any]) -> None:
    """Writes each part into the first of its files, under its name when it is complete, as torch.save does.

    :param content: what each part's file holds, by part
    :raises OSError: the folder cannot be written
    """
    with atomic_directory(folder, last="") as complete:
        for part, tensors in content.items():
            torch.save(tensors, complete / files[part][0])


def refuse_part(path: Path, detector: DetectorSpec | None) -> None:
    """:param path: a file that is given alone and has no header of ours
    :param detector: see `read_folder`
    :raises CheckpointError: it has the name of one of a detector's several files
    """
    for spec in (detector,) if detector else every():
        for names in zip(*spec.files.values(), strict=True):
            folder = _folder_of(path, names)
            if folder and (len(_present(folder, spec.files)) == len(names) or "/" not in names[0]):
                raise CheckpointError(
                    f"{path} is only one of the files of a {spec.title}: name the folder that holds {', '.join(names)}"
                )


def _folder_of(path: Path, names: Collection[str]) -> Path | None:
    """The folder that is meant by a file with one of these names."""
    parents = path.absolute().parents
    folders = [parents[name.count("/")] for name in names if path.absolute().match(name)]
    return folders[0] if folders else None


def _present(folder: Path, files: Files) -> dict[str, Path]:
    """The parts whose files are in the folder."""
    paths = {
        part: next((folder / name for name in names if (folder / name).is_file()), None)
        for part, names in files.items()
    }
    return {part: path for part, path in paths.items() if path}


def _lacking(folder: Path, wanted: list[DetectorSpec]) -> str:
    """The first file that a folder lacks to be a checkpoint of one of these detectors, as the end of a sentence."""
    for spec in wanted:
        missing = [names[0] for part, names in spec.files.items() if part not in _present(folder, spec.files)]
        return f" without {missing[0]} of {spec.title}"
    return ""
