"""Layouts: how data sets lie on disk → their images, each with its class, source and split, in a fixed order."""

import csv
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

from spai_runtime.errors import UserError
from spai_runtime.files.sources import Sources, printable
from spai_train.data.table import GENERATED, REAL

SPLITS = ("train", "val", "test")
_GENIMAGE = {(split, kind) for split in ("train", "val") for kind in ("ai", "nature")}
_CNNDETECTION = {"0_real": REAL, "1_fake": GENERATED}
_PROMPTS_COLUMN = "image name (matching Raise-1k)"


class LayoutError(UserError):
    """Folders that are not laid out as was said, and what was expected, in one sentence."""


@dataclass(frozen=True, slots=True)
class Found:
    """One image, not yet opened.

    :param label: 0 real, 1 AI-generated; None where the file lies in no folder that tells
    :param source: a camera, a data set or a generator
    :param split: "" where the layout has none
    """

    path: Path
    label: int | None
    source: str
    split: str = ""


class Layout(Protocol):
    """The images of a data set.

    :raises LayoutError: a folder or a list is not there; it is raised on iteration
    """

    @property
    def expected(self) -> str:
        """The files and folders that should be there, in words for an error."""

    def __iter__(self) -> Iterator[Found]: ...


@dataclass(frozen=True)
class Folders:
    """Folders of real and of generated images; a folder's name is the source of all that is below it."""

    real: Sequence[Path]
    generated: Sequence[Path]

    @property
    def expected(self) -> str:
        return f"images below {', '.join(printable(folder) for folder in (*self.real, *self.generated))}"

    def __iter__(self) -> Iterator[Found]:
        self._check_apart()
        for label, folders in ((REAL, self.real), (GENERATED, self.generated)):
            for folder in folders:
                yield from (Found(path, label, _name(folder)) for path in images_below(folder))

    def _check_apart(self) -> None:
        """Refuses a folder within another, which would be listed twice, or as both classes."""
        folders = [(folder, folder.resolve()) for folder in (*self.real, *self.generated)]
        for number, (inner, place) in enumerate(folders):
            for other, (outer, around) in enumerate(folders):
                if other != number and place.is_relative_to(around):
                    raise LayoutError(f"{printable(inner)} lies in {printable(outer)}: name folders that are apart")


@dataclass(frozen=True)
class GenImage:
    """GenImage (Zhu et al., NeurIPS 2023): for each generator its images, and real ones of ImageNet.

    The source is the folder below the root, or the root itself where `train` and `val` lie right in it.
    """

    root: Path

    @property
    def expected(self) -> str:
        return f"{printable(self.root)}/<generator>/{{train,val}}/{{ai,nature}}"

    def __iter__(self) -> Iterator[Found]:
        return (self._place(path) for path in images_below(self.root))

    def _place(self, path: Path) -> Found:
        root, *below = _folders(self.root, path)
        split, kind = next((pair for pair in pairwise(below) if pair in _GENIMAGE), ("", ""))
        if kind == "nature":
            return Found(path, REAL, "imagenet", split)
        if kind == "ai":
            return Found(path, GENERATED, root if below[0] == split else below[0], split)
        return Found(path, None, "")


@dataclass(frozen=True)
class CNNDetection:
    """CNNDetection (Wang et al., CVPR 2020) and what copies it: folders `0_real` and `1_fake`, however deep.

    The split is the first folder above them, from the root's own on, that is called train, val or test: the first,
    because `train` is one of the categories too. The source is the folder below it, a category or a generator.
    """

    root: Path

    @property
    def expected(self) -> str:
        return f"{printable(self.root)}/[{{train,val,test}}/]<category or generator>/{{0_real,1_fake}}"

    def __iter__(self) -> Iterator[Found]:
        return (self._place(path) for path in images_below(self.root))

    def _place(self, path: Path) -> Found:
        folders = _folders(self.root, path)
        end = max((at for at, name in enumerate(folders) if name in _CNNDETECTION), default=0)
        if not end:
            return Found(path, None, "")
        begin = next((at for at, name in enumerate(folders[:end]) if name in SPLITS), None)
        source = (*folders[(begin or 0) + 1 : end], folders[0])[0]
        return Found(path, _CNNDETECTION[folders[end]], source, "" if begin is None else folders[begin])


@dataclass(frozen=True)
class DMID:
    """The latent diffusion set of DMimageDetection (Corvi et al., ICASSP 2023), which SPAI was trained on.

    Real images are named by two lists in each split's folder: of COCO's train2017, and of the LSUN images that
    CNNDetection's training set holds, as `<category>_<file>`.

    :param coco: a folder with train2017/ in it
    :param lsun: CNNDetection's folder, with train/<category>/0_real/ in it
    """

    root: Path
    coco: Path
    lsun: Path

    @property
    def expected(self) -> str:
        return f"{printable(self.root)}/{{train,val}}/ with .png files, real_coco.txt and real_lsun.txt"

    def __iter__(self) -> Iterator[Found]:
        for folder in (self.root, self.coco / "train2017", self.lsun / "train"):
            _check_folder(folder)
        for name, split in (("train", "train"), ("val", "val"), ("valid", "val")):
            if (self.root / name).is_dir():
                yield from self._split(self.root / name, split)

    def _split(self, folder: Path, split: str) -> Iterator[Found]:
        for path in images_below(folder):
            copied = {"real_coco", "real_lsun"}.intersection(_folders(folder, path))
            if path.suffix == ".png" and not copied:
                yield Found(path, GENERATED, "latent-diffusion", split)
        for line in _lines(folder / "real_coco.txt"):
            yield Found(self.coco / "train2017" / line, REAL, "coco", split)
        for line in _lines(folder / "real_lsun.txt"):
            category, _, file = line.partition("_")
            yield Found(self.lsun / "train" / category / "0_real" / file, REAL, "lsun", split)


@dataclass(frozen=True)
class Synthbuster:
    """Synthbuster (Bammey, 2023), a test set: a folder of .png for each generator, and the RAISE-1k images behind them.

    :param raise1k: a folder with tiff/<name>.tif in it, for the names in prompts.csv
    """

    root: Path
    raise1k: Path

    @property
    def expected(self) -> str:
        return f"{printable(self.root)}/<generator>/*.png and {printable(self.root / 'prompts.csv')}"

    def __iter__(self) -> Iterator[Found]:
        folder = self.raise1k / "tiff"
        _check_folder(folder)
        for path in images_below(self.root):
            if path.suffix == ".png":
                root, *below = _folders(self.root, path)
                yield Found(path, GENERATED, below[0] if below else root, "test")
        spelled = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in (".tif", ".tiff")}
        for name in self._names():
            yield Found(spelled.get(name, folder / f"{name}.tif"), REAL, "raise", "test")

    def _names(self) -> list[str]:
        """The names in prompts.csv, each once."""
        prompts = self.root / "prompts.csv"
        table = csv.DictReader(io.StringIO(_text(prompts), newline=""))
        if _PROMPTS_COLUMN not in (table.fieldnames or []):
            raise LayoutError(f"{printable(prompts)} has no column `{_PROMPTS_COLUMN}`: is it that of Synthbuster?")
        return list(dict.fromkeys(line[_PROMPTS_COLUMN] for line in table))


def find(layout: Layout) -> list[Found]:
    """All images of a layout.

    :raises LayoutError: there are no images, or none whose class can be told
    """
    found = list(layout)
    if all(one.label is None for one in found):
        seen = f"{len(found)} images, but none in a folder that tells its class" if found else "no images"
        raise LayoutError(f"{seen}; expected {layout.expected}")
    return found


def images_below(folder: Path) -> Iterator[Path]:
    """The files whose names are those of images, sorted by name; links are followed.

    :raises LayoutError: there is no such folder
    """
    _check_folder(folder)
    return (item.path for item in Sources([os.fspath(folder)]))


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise LayoutError(f"there is no folder {printable(folder)}")


def _folders(root: Path, path: Path) -> tuple[str, ...]:
    """The root's own name, and the folders between it and the file."""
    return (_name(root), *path.relative_to(root).parts[:-1])


def _name(folder: Path) -> str:
    return (folder.resolve() if folder.name in ("", "..") else folder).name


def _lines(path: Path) -> list[str]:
    """The lines of a list that are not blank."""
    return [line.rstrip() for line in _text(path).split("\n") if line.strip()]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise LayoutError(f"cannot read {printable(path)}: {error.strerror}") from error
