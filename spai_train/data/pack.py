"""Packing: the images of a table → one LMDB file or a folder of tar shards, which `open_store` reads."""

import io
import os
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from spai_runtime.errors import ImageError
from spai_runtime.files.sources import printable
from spai_train.data.stores import Store, StoreError, import_lmdb, lmdb_key
from spai_train.data.table import Row

SHARD_BYTES = 1 << 30
_MAP_BYTES = 1 << 30  # of the LMDB to begin with; it is doubled as it fills

Put = Callable[[str, bytes], None]


def pack(rows: Iterable[Row], store_in: Store, output: Path, shard_bytes: int = SHARD_BYTES) -> dict[str, str]:
    """Copies images into a new store; the same rows give the same tars, byte for byte.

    The store appears under its name when it is whole. A row that comes again is packed once.

    :param output: `….lmdb`, or a folder to make, for `shard-000000.tar` and so on
    :param shard_bytes: a shard ends before the image that would make it larger
    :returns: name → why, for the images that could not be read and are not in the store
    :raises StoreError: the output is there already, a name stands for two images, or no image could be read
    :raises OSError: the output cannot be written
    """
    if output.suffix in (".tar", ".mdb"):
        raise StoreError(f"cannot write {printable(output)}: name a .lmdb file, or a folder for .tar shards")
    if os.path.lexists(output):
        raise StoreError(f"{printable(output)} is there already: remove it, or name another")
    left_out: dict[str, str] = {}
    packed = 0
    with _appearing(output) as partial, _writer(output, partial, shard_bytes) as put:
        for row in _once(rows):
            try:
                put(row.name, store_in.read(row))
                packed += 1
            except ImageError as error:
                left_out[row.name] = str(error)
        if not packed:
            name, why = next(iter(left_out.items()), ("the table", "it has no row"))
            raise StoreError(f"there is no image to pack; {printable(name)}: {why}")
    return left_out


def _once(rows: Iterable[Row]) -> Iterator[Row]:
    paths: dict[str, Path] = {}
    for row in rows:
        if row.name not in paths:
            paths[row.name] = row.path
            yield row
        elif paths[row.name] != row.path:
            raise StoreError(
                f"{printable(row.name)} stands for {printable(paths[row.name])} and for {printable(row.path)}; "
                "a store needs one image a name: put the tables in one folder"
            )


@contextmanager
def _appearing(output: Path) -> Iterator[Path]:
    """A path to write at, which becomes `output` if all goes well and leaves nothing behind if not."""
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(output.name + ".partial")
    _remove(partial)
    try:
        yield partial
        partial.rename(output)
    finally:
        _remove(partial)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _writer(output: Path, partial: Path, shard_bytes: int) -> Iterator[Put]:
    if output.suffix == ".lmdb":
        with _lmdb(output, partial) as put:
            yield put
    else:
        shards = _Shards(partial, shard_bytes)
        try:
            yield shards.put
        finally:
            shards.close()


@contextmanager
def _lmdb(output: Path, partial: Path) -> Iterator[Put]:
    lmdb = import_lmdb()

    def put(name: str, content: bytes) -> None:
        key = lmdb_key(name)
        if len(key) > environment.max_key_size():
            raise ImageError(f"its name is longer than the {environment.max_key_size()} bytes that LMDB takes")
        try:
            with environment.begin(write=True) as transaction:
                transaction.put(key, content)
        except lmdb.MapFullError:
            environment.set_mapsize(2 * environment.info()["map_size"] + len(content))
            put(name, content)

    try:
        with lmdb.open(str(partial), subdir=False, map_size=_MAP_BYTES, lock=False, sync=False) as environment:
            yield put
            environment.sync(True)
    except lmdb.Error as error:
        raise StoreError(f"cannot write {printable(output)}: {str(error).rpartition(': ')[2]}") from error


class _Shards:
    """Tars in a new folder, whose members carry a name and nothing else that could differ between two runs."""

    def __init__(self, folder: Path, limit: int) -> None:
        folder.mkdir()
        self._folder, self._limit, self._count = folder, limit, 0
        self._tar: tarfile.TarFile | None = None

    def put(self, name: str, content: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar = self._with_room(len(content) + tarfile.BLOCKSIZE)
        tar.addfile(member, io.BytesIO(content))
        # Else each header stays in memory until the shard is closed.
        tar.members.clear()  # type: ignore[attr-defined]

    def close(self) -> None:
        if self._tar is not None:
            self._tar.close()

    def _with_room(self, size: int) -> tarfile.TarFile:
        if self._tar is not None and self._tar.offset + size <= self._limit:
            return self._tar
        self.close()
        self._tar = tarfile.TarFile(self._folder / f"shard-{self._count:06d}.tar", "w", format=tarfile.PAX_FORMAT)
        self._count += 1
        return self._tar
