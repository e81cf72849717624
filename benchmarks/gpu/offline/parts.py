"""Archives in parts that are copied one after the other, and the same archives again out of them.

A part is a folder (a, b, c, …) of files. `pack.json`, in the first, says what belongs together.
"""

import hashlib
import json
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from string import ascii_lowercase
from typing import Self

CONTENTS = "pack.json"
MOST = 40_000_000  # bytes of a part, of which the first keeps some for pack.json
KEPT = 10_000
ENDING = ".tar.xz"


class PackError(Exception):
    """One sentence for whoever typed the command."""


@dataclass(frozen=True)
class Archive:
    """:param slices: names of files, in order
    :param sha256: of all of them together
    """

    name: str
    slices: Sequence[str]
    sha256: str


@dataclass(frozen=True)
class Contents:
    """What was packed, and for what.

    :param python: e.g. `3.12`
    :param architecture: the one whose machine code is whole, compute capability × 10; None where all are
    """

    python: str
    architecture: int | None
    archives: Sequence[Archive]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """:raises PackError: it is not there"""
        path = folder / CONTENTS
        if not path.exists():
            raise PackError(f"there is no {CONTENTS} yet: gather the part that holds it, a")
        raw = json.loads(path.read_text(encoding="utf-8"))
        return cls(raw["python"], raw["architecture"], tuple(Archive(**archive) for archive in raw["archives"]))

    def write(self, folder: Path) -> None:
        (folder / CONTENTS).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


def divide(archives: Sequence[Path], folder: Path, most: int = MOST) -> list[Archive]:
    """Fills one part after the other, in that order.

    :param archives: files that end in ENDING
    :param folder: in which a folder of each part is made
    """
    letters, part, room, found = iter(ascii_lowercase), folder, 0, []
    for path in archives:
        content, slices = memoryview(path.read_bytes()), list[str]()
        digest = hashlib.sha256(content).hexdigest()
        while content:
            if not room:
                part, room = folder / next(letters), most - KEPT
                part.mkdir(parents=True)
            slices.append(f"{path.name}.{len(slices):02}")
            (part / slices[-1]).write_bytes(content[:room])
            content, room = content[room:], max(0, room - len(content))
        found.append(Archive(path.name.removesuffix(ENDING), slices, digest))
    return found


def gather(part: Path, work: Path) -> None:
    """Copies a part beside those that were copied before; the first part of another pack replaces those of the last.

    :raises PackError: there is nothing
    """
    files = [path for path in sorted(part.rglob("*")) if path.is_file()] if part.is_dir() else []
    if not files:
        raise PackError(f"{part} holds no part of a pack")
    fresh = next((path for path in files if path.name == CONTENTS), None)
    if fresh and (work / CONTENTS).exists() and fresh.read_bytes() != (work / CONTENTS).read_bytes():
        shutil.rmtree(work)
    work.mkdir(parents=True, exist_ok=True)
    for path in files:
        shutil.copy(path, work)


def unpack(work: Path) -> list[str]:
    """Unpacks every archive whose slices are all there, into a folder of its name; once.

    :returns: slices that are missing yet
    :raises PackError: slices are not those that were packed
    """
    missing = []
    for archive in Contents.read(work).archives:
        absent = [name for name in archive.slices if not (work / name).exists()]
        missing += absent
        if not absent and not (work / archive.name).exists():
            _unpack(archive, work)
    return missing


def sites(work: Path) -> Iterator[Path]:
    """Folders of packages that were unpacked there."""
    if (work / CONTENTS).exists():
        yield from (work / archive.name for archive in Contents.read(work).archives if (work / archive.name).exists())


def _unpack(archive: Archive, work: Path) -> None:
    joined, draft = work / f"{archive.name}{ENDING}", work / f"{archive.name}.part"
    with joined.open("wb") as file:
        for name in archive.slices:
            file.write((work / name).read_bytes())
    with joined.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != archive.sha256:
            raise PackError(f"the slices of {archive.name} are not those that were packed: gather them again")
    shutil.rmtree(draft, ignore_errors=True)
    with tarfile.open(joined) as file:
        file.extractall(draft, filter="data")
    draft.rename(work / archive.name)
    joined.unlink()
