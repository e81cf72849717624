"""Stores: where the bytes of a table's images lie: in files, in one LMDB file, or in plain tar shards.

The workers of a data loader all read the same store: it pickles, and it goes on working after a fork.
"""

import os
import tarfile
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from spai_runtime.errors import ImageError, UserError
from spai_runtime.files.sources import printable
from spai_runtime.images import Source
from spai_runtime.install import install
from spai_train.data.regular import read_file
from spai_train.data.table import Row

if TYPE_CHECKING:
    import lmdb

_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zstd
_UNWRITTEN_PAGES = 256  # pages that LMDB counts at the end of a whole file may have been freed before they were written


class StoreError(UserError):
    """A store that cannot be opened or written, and why, in one sentence."""


class Store(Protocol):
    """Images by the rows of a table."""

    def read(self, row: Row) -> bytes:
        """The bytes of the image's file.

        :raises ImageError: it is not there, or cannot be read
        """

    def source(self, row: Row) -> Source:
        """What `Picture.open` opens: a path where there is one, so that the bytes need not be in memory.

        :raises ImageError: see `read`
        """

    def missing(self, rows: Sequence[Row]) -> list[str]:
        """Names of the rows whose images are not there."""


def open_store(path: Path | None) -> Store:
    """:param path: a `.lmdb` file, a plain `.tar`, or a folder of `.tar` shards; None is the files that rows name
    :raises StoreError: it is none of these, or it is damaged
    """
    if path is None:
        return Files()
    if not path.exists():
        raise StoreError(f"there is no store {printable(path)}")
    if path.suffix == ".lmdb":
        return Lmdb(path)
    return Tars(_shards(path))


class Files:
    """Each image is the file at `row.path`."""

    def read(self, row: Row) -> bytes:
        return read_file(row.path)

    def source(self, row: Row) -> Path:
        return row.path

    def missing(self, rows: Sequence[Row]) -> list[str]:
        return [row.name for row in rows if not os.path.isfile(row.path)]  # noqa: PTH113  Path's may raise


FILES = Files()


class Lmdb:
    """One LMDB file as upstream SPAI writes it: key = the row's name in UTF-8, value = the bytes of the image's file.

    :raises StoreError: it is no LMDB file or a damaged one, or lmdb is not installed
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._environment = _environment(path)

    def __reduce__(self) -> tuple[type["Lmdb"], tuple[Path]]:
        return Lmdb, (self._path,)

    def read(self, row: Row) -> bytes:
        key = lmdb_key(row.name)
        with self._environment.begin() as transaction:
            content: bytes | None = transaction.get(key) if self._fits(key) else None
        if content is None:
            raise ImageError(f"not in {printable(self._path)}")
        return content

    def source(self, row: Row) -> bytes:
        return self.read(row)

    def missing(self, rows: Sequence[Row]) -> list[str]:
        with self._environment.begin() as transaction:
            cursor = transaction.cursor()  # finds a key without copying its value
            keys = ((row.name, lmdb_key(row.name)) for row in rows)
            return [name for name, key in keys if not (self._fits(key) and cursor.set_key(key))]

    def _fits(self, key: bytes) -> bool:
        return len(key) in range(1, self._environment.max_key_size() + 1)


class Place(NamedTuple):
    """The place of an image: its bytes in one of the shards."""

    shard: int
    offset: int
    size: int


class Tars:
    """Plain tar shards, as WebDataset has them: an image's name is the name of its member, `./` in front left out.

    The headers are walked once, here. A shard is opened anew for each read, so processes share nothing, and a store may
    have more shards than a process may have open files.

    :param shards: the shards, in the order in which they are searched
    :raises StoreError: these are no plain tars, one is damaged, or a name is there twice
    """

    def __init__(self, shards: Sequence[Path]) -> None:
        self._shards = tuple(shards)
        self.places: dict[str, Place] = {}
        for number, shard in enumerate(self._shards):
            for name, offset, size in _members(shard):
                if name in self.places:
                    first = self._shards[self.places[name].shard]
                    where = f"in {printable(first)} and in {printable(shard)}" if first != shard else "twice in it"
                    raise StoreError(f"{printable(shard)} is not usable: {printable(name)} is {where}")
                self.places[name] = Place(number, offset, size)

    def read(self, row: Row) -> bytes:
        place = self.places.get(_tar_key(row.name))
        if place is None:
            raise ImageError(f"in none of the shards {printable(self._shards[0])} …")
        shard = self._shards[place.shard]
        try:
            with shard.open("rb") as file:
                file.seek(place.offset)
                content = file.read(place.size)
        except OSError as error:
            raise ImageError(f"cannot be read from {printable(shard)}: {error.strerror}") from error
        if len(content) != place.size:
            raise ImageError(f"cannot be read from {printable(shard)}: it is shorter than when it was opened")
        return content

    def source(self, row: Row) -> bytes:
        return self.read(row)

    def missing(self, rows: Sequence[Row]) -> list[str]:
        return [row.name for row in rows if _tar_key(row.name) not in self.places]


def lmdb_key(name: str) -> bytes:
    """The key of an image in an LMDB file: its name in UTF-8; bytes that are not UTF-8 stay as they are."""
    return name.encode("utf-8", "surrogateescape")


def import_lmdb() -> Any:
    """:raises StoreError: lmdb is not installed"""
    try:
        import lmdb  # noqa: PLC0415  needed for these stores alone
    except ModuleNotFoundError as error:
        raise StoreError(f"a .lmdb needs lmdb, which is not installed: {install('train')}") from error
    return lmdb


# lmdb refuses to open a file twice in one process, as the stores of a train and a val split would. Opened read-only
# and without locks, an environment is nothing but a map of the file, which a forked process may go on reading.
_environments: "weakref.WeakValueDictionary[str, lmdb.Environment]" = weakref.WeakValueDictionary()


def _environment(path: Path) -> Any:
    lmdb, name = import_lmdb(), os.path.realpath(path)
    opened = _environments.get(name)
    if opened is not None:
        return opened
    try:
        opened = lmdb.open(name, subdir=False, readonly=True, lock=False, readahead=False)
    except lmdb.Error as error:
        reason = str(error).rpartition(": ")[2]
        raise StoreError(f"{printable(path)} is not an LMDB file (of lmdb's subdir=False): {reason}") from error
    pages = opened.info()["last_pgno"] + 1 - _UNWRITTEN_PAGES
    if path.stat().st_size < pages * opened.stat()["psize"]:  # reading past its end would kill the process
        raise StoreError(f"{printable(path)} is cut off: copy it again")
    _environments[name] = opened
    return opened


def _shards(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    shards = sorted(path.glob("*.tar"))
    if not shards:
        raise StoreError(f"{printable(path)} holds no .tar shard; a compressed one must be unpacked to a plain .tar")
    return shards


def _members(shard: Path) -> Iterator[tuple[str, int, int]]:
    """The name, offset and size of each regular file in a tar."""
    try:
        with shard.open("rb") as file:
            if file.read(6).startswith(_COMPRESSED):
                raise StoreError(f"{printable(shard)} is compressed and so has no random access: unpack it to a .tar")
        with tarfile.TarFile(shard) as tar:
            while (member := tar.next()) is not None:
                if member.issparse():
                    raise StoreError(f"{printable(shard)} holds the sparse file {printable(member.name)}: pack it anew")
                if member.isreg():
                    yield _tar_key(member.name), member.offset_data, member.size
                # Else each header stays in memory until the last one is read.
                tar.members.clear()  # type: ignore[attr-defined]
    except tarfile.TarError as error:
        raise StoreError(f"{printable(shard)} is not a whole .tar, nor a .lmdb or a folder of .tar: {error}") from error
    except OSError as error:
        raise StoreError(f"cannot read {printable(shard)}: {error.strerror}") from error


def _tar_key(name: str) -> str:
    return name.removeprefix("./")
