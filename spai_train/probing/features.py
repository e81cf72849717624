"""Features of images, computed once and kept in one memory-mapped .npy, from which an interrupted run goes on.

A row of the file is an image that some run has asked for. Its key names the encoder, the image and the views, and is
written after the features: a row without a key is free.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from spai_runtime.closing import Closing
from spai_runtime.files.atomic import atomic_write
from spai_runtime.files.locked import open_locked
from spai_runtime.files.stamps import Stamp
from spai_train.data.table import Row
from spai_train.detectors import find
from spai_train.detectors.spec import DetectorModel

Floats = NDArray[np.float32]
Key = bytes

KEY = 16  # bytes
_FREE = bytes(KEY)


def encoder_key(model: DetectorModel) -> str:
    """A digest of what features depend on beside the image: the detector, its dimensions and views, and the weights.

    :returns: 16 hexadecimal digits
    """
    about = {"detector": model.detector, "config": asdict(model.config)}
    digest = hashlib.sha256(msgspec.json.encode((about, find(model.detector).views(model.config))))
    for name, tensor in sorted(model.encoder.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).numpy())
    return digest.hexdigest()[:KEY]


def image_keys(encoder: str, rows: Iterable[Row], store: Path | None) -> list[Key]:
    """A key for each image, which changes when its file does, by size and time of modification.

    :param encoder: see `encoder_key`
    :param store: the store that holds the images and changes with any of them; None means files
    """
    stamps = [] if store is None else [Stamp.of(part) for part in (store, *sorted(store.glob("*.tar")))]

    def key(row: Row) -> Key:
        if store is None:
            place, of = os.fsencode(row.path.absolute()), [Stamp.of(row.path)]
        else:
            place, of = os.fsencode(store.absolute()) + b"\0" + os.fsencode(row.name), stamps
        said = msgspec.json.encode((encoder, [(stamp.size, stamp.modified) for stamp in of]))
        return hashlib.blake2b(said + place, digest_size=KEY).digest()

    return [key(row) for row in rows]


class Features(Closing):
    """The file of features, open for one process at a time. Use it in a `with`, or `close` it.

    :param path: the .npy, whose rows have a `key`, KEY bytes, and `features`, D numbers; what is no such file is
        replaced
    :param width: D
    :param keys: the keys of images whose features are wanted; room is made for those that are not there
    :raises OutputError: another process has it open
    :raises OSError: it cannot be written
    """

    def __init__(self, path: Path, width: int, keys: Sequence[Key]) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock_path = path.with_name(path.name + ".lock")
        self._lock = open_locked(self._lock_path)
        try:
            self._rows = _with_room(path, _dtype(width), keys)
        except BaseException:
            self._unlock()
            raise
        self._places = {key: place for place, key in enumerate(_keys(self._rows)) if key != _FREE}
        self._free = iter([place for place, key in enumerate(_keys(self._rows)) if key == _FREE])

    def __contains__(self, key: Key) -> bool:
        return key in self._places

    def put(self, key: Key, features: Floats) -> None:
        """:param key: one of the keys that the file was opened with
        :param features: (D,)
        """
        if key not in self._places:
            place = next(self._free)
            self._rows["features"][place] = features
            self._rows["key"][place] = np.frombuffer(key, np.uint8)  # behind the features: a kill leaves it out
            self._places[key] = place

    def take(self, keys: Sequence[Key]) -> Floats:
        """:param keys: keys that are there
        :returns: (B, D), a copy
        """
        places = np.array([self._places[key] for key in keys], np.intp)
        taken: Floats = self._rows["features"][places]
        return taken

    def close(self) -> None:
        """Writes what the system has not written yet, and lets other processes open it."""
        self._rows.flush()
        del self._rows  # Windows replaces no file that is mapped
        self._unlock()

    def _unlock(self) -> None:
        with suppress(OSError):
            self._lock_path.unlink()
        self._lock.close()


def _dtype(width: int) -> np.dtype[Any]:
    return np.dtype([("key", np.uint8, (KEY,)), ("features", np.float32, (width,))])


def _keys(rows: NDArray[Any]) -> list[Key]:
    content = np.ascontiguousarray(rows["key"]).tobytes()
    return [content[start : start + KEY] for start in range(0, len(content), KEY)]


def _with_room(path: Path, dtype: np.dtype[Any], keys: Sequence[Key]) -> "np.memmap[Any, Any]":
    """Opens the file with the rows that are there, and a free row for each key that is not."""
    there = _opened(path, dtype)
    known = _keys(there) if there is not None else []
    wanted = len({*keys} - {*known}) - known.count(_FREE)
    if there is None or wanted > 0:
        with atomic_write(path) as part:
            grown = np.lib.format.open_memmap(part, "w+", dtype, (len(known) + max(wanted, 1),))
            if there is not None:
                grown[: len(known)] = there
            grown.flush()
            del grown, there
        there = _opened(path, dtype)
    assert there is not None
    return there


def _opened(path: Path, dtype: np.dtype[Any]) -> "np.memmap[Any, Any] | None":
    """Opens the file; gives None where there is no such file."""
    try:
        rows = np.lib.format.open_memmap(path, "r+")
    except (FileNotFoundError, ValueError):  # cut off, or something else
        return None
    return rows if rows.dtype == dtype and rows.ndim == 1 else None
