"""Opening files that may be anything: some are refused before Pillow reads them; all errors become ImageErrors."""

import errno
import io
import mmap
import os
import stat
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

from PIL import Image, UnidentifiedImageError

from spai_runtime.errors import ImageError
from spai_runtime.images.formats import FORMATS
from spai_runtime.text import sentence

LARGEST_WHOLE = 128 << 20  # bytes, that a decoding thread may read before it asks the budget; honest files are smaller
PATIENCE = 10.0  # seconds, in which a machine that is busy starts a process, which takes most of few open files
PAUSE = 0.02

Opened = TypeVar("Opened")

Source = str | os.PathLike[str] | bytes  # a path, or the bytes of a file


def opened(source: Source, formats: Collection[str]) -> Image.Image:
    """Open an image. :returns: an image whose header is read, and whose pixels are not decoded"""
    Image.init()
    known = [name for name in formats if name in Image.OPEN]
    return patiently(lambda: Image.open(_readable(source), formats=known))


def compressed_nbytes(source: Source) -> int:
    """The size of the file in bytes."""
    return len(source) if isinstance(source, bytes) else Path(source).stat().st_size


@contextmanager
def mapped(source: Source, image: Image.Image) -> Iterator[bytes | mmap.mmap]:
    """The content of a file, which costs no memory until it is read.

    :param image: the image that was opened from the source and holds its file
    """
    if isinstance(source, bytes):
        yield source
        return
    descriptor = cast("BinaryIO", image.fp).fileno()  # type: ignore[attr-defined]
    with patiently(lambda: mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)) as content:
        yield content


def patiently(open_file: Callable[[], Opened]) -> Opened:
    """Open a file; while too many are open, try again for PATIENCE, since other threads will close theirs."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return open_file()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or time.monotonic() > deadline:
                raise
        time.sleep(PAUSE)


@contextmanager
def as_image_error(formats: Collection[str] = FORMATS) -> Iterator[None]:
    """Turn every error into an ImageError, since decoders raise whatever their format makes them fail with.

    :param formats: the formats that were tried
    """
    try:
        yield
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"not an image in a format that can be read ({', '.join(formats)})") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{_sentence(error)}; resize it, or raise PIL.Image.MAX_IMAGE_PIXELS") from error
    except MemoryError as error:
        raise ImageError("not enough memory to decode it") from error
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror or _sentence(error)}") from error
    except Exception as error:
        raise ImageError(f"cannot be decoded: {_sentence(error)}") from error


def _readable(source: Source) -> BinaryIO | Path:
    """Give Pillow what it can read; refuse what would block (a pipe) or is no file."""
    if isinstance(source, bytes):
        return io.BytesIO(source)
    size = size_of_regular(Path(source))
    if size > LARGEST_WHOLE and _is_read_whole(Path(source)):
        raise ImageError(f"a WebP or AVIF of {size >> 20} MiB, and at most {LARGEST_WHOLE >> 20} are read")
    return Path(source)


def size_of_regular(path: Path) -> int:
    """The size in bytes of a regular file with content; reading such a file does not wait for anything.

    :raises ImageError: it is not a regular file, or is empty
    :raises OSError, ValueError: it does not exist, or no file could have this name
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("not a regular file")
    if status.st_size == 0:
        raise ImageError("the file is empty")
    return status.st_size


def _is_read_whole(path: Path) -> bool:
    """Whether the first bytes are a WebP's or an AVIF's; Pillow reads the whole file to get their header."""
    with path.open("rb") as file:
        start = file.read(12)
    return start[8:] == b"WEBP" or start[4:8] == b"ftyp"


def _sentence(error: BaseException) -> str:
    return sentence(str(error)) or type(error).__name__
