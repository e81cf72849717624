"""Decoding apart: a child process with limits decodes images of formats whose decoders are dangerous.

The child decodes; the parent fetches the pixels band by band, so that neither holds them twice. A file that crashes its
decoder, or never ends, stops only the child; the file then has an error of one sentence.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spai_runtime.child import Child, ChildError, ChildMemoryError, ChildStartError, ChildTimeError, Limits
from spai_runtime.cores import cores
from spai_runtime.errors import ImageError
from spai_runtime.images import modes
from spai_runtime.images.opening import PAUSE, Source, compressed_nbytes

CPU_SECONDS = 10  # of processor time that every image may take, and so much more for each megabyte of its file:
CPU_SECONDS_PER_MB = 5  # decoders of JPEG 2000 and AVIF need less than one second for one
SECONDS = 600  # by the clock, on a machine that is busy, and where processor time cannot be limited
MEMORY_SLACK = 1 << 30  # bytes of address space: stacks of a decoder's threads, and what does not depend on the pixels
CHILDREN = 4  # processes at most, whatever the number of decoding threads: each takes about 40 MB

_BAND_BYTES = 1 << 20
_ATTEMPTS = 100  # to start a child, PAUSE apart, while other threads close their files


def decoded(source: Source, image: Image.Image, nbytes: int) -> Image.Image:
    """The pixels of an image as L or RGB.

    :param source: what the image was opened from
    :param image: the image, of which only the header has been read
    :param nbytes: the memory that its decoder may take
    :raises ImageError: it cannot be decoded, or not within the limits
    """
    mode, seconds = modes.plain(image.mode), CPU_SECONDS + CPU_SECONDS_PER_MB * compressed_nbytes(source) / 1e6
    content = source if isinstance(source, bytes) else os.fsencode(Path(source).absolute())  # it stays where it began
    what = [np.frombuffer(content, np.uint8)]
    body = {
        "is_path": not isinstance(source, bytes),
        "format": image.format,
        "size": image.size,
        "mode": image.mode,
        "most_pixels": Image.MAX_IMAGE_PIXELS,
        "cpu_seconds": seconds,
        "memory": nbytes + MEMORY_SLACK,
    }
    try:
        with _children.borrowed() as child:
            child.ask(body, what, most=0)
            return _fetched(child, mode, *image.size)
    except ChildTimeError as error:
        raise ImageError(f"decoding takes more than {seconds:.0f} s of processor time, and is given up") from error
    except ChildMemoryError as error:
        raise ImageError("decoding takes more memory than its size explains, and is given up") from error
    except ChildError as error:
        raise ImageError(f"cannot be decoded: {error}") from error


def _fetched(child: Child, mode: str, width: int, height: int) -> Image.Image:
    image = Image.new(mode, (width, height))
    rows = max(1, _BAND_BYTES // (width * len(image.getbands())))
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        _, (band,) = child.ask([top, bottom], most=(bottom - top) * width * len(image.getbands()))
        image.paste(Image.fromarray(_checked(band, image, bottom - top)), (0, top))
    child.ask(most=0)
    return image


def _checked(band: NDArray[np.uint8], image: Image.Image, rows: int) -> NDArray[np.uint8]:
    """Check a band of pixels. :raises ChildError: it is not what was asked for"""
    shape = (rows, image.width) if image.mode == "L" else (rows, image.width, 3)
    if band.shape != shape or band.dtype != np.uint8:
        raise ChildError(f"its process gives pixels {band.shape} {band.dtype} for {shape} uint8")
    return band


class _Children:
    """The children that decode; they are started when they are needed, and kept for the next image.

    If the system cannot start another one (for example because few open files are left), the existing ones must do.

    :param most: how many there may be at a time
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.forget()

    def forget(self) -> None:
        """Begin with no children. After a fork they belong to the parent process, which still talks to them."""
        self.idle: list[Child] = []
        self._busy, self._changed = 0, threading.Condition()

    @contextmanager
    def borrowed(self) -> Iterator[Child]:
        """Lend a child for one image. :raises ChildStartError: there is none, and none can be started"""
        child = self._taken()
        try:
            yield child
        except ImageError:  # which the child says of the image, and goes on
            self._give_back(child)
            raise
        except BaseException:
            child.close()  # it may hold an image
            self._give_back(None)
            raise
        self._give_back(child)

    def _taken(self) -> Child:
        failed = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._busy < self._most)
                self._busy += 1
                child = self.idle.pop() if self.idle else Child(_SERVICE, None, _LIMITS)
            try:
                child.start()
            except ChildStartError:
                self._give_back(None)
                failed += 1  # not the time: others may have had the turn for long
                if not self._fewer() and failed >= _ATTEMPTS:
                    raise
                time.sleep(PAUSE)
            except BaseException:
                self._give_back(None)
                raise
            else:
                return child

    def _fewer(self) -> bool:
        """Whether there are other children to wait for."""
        with self._changed:
            self._most = max(1, self._busy)
            return self._busy > 0 or bool(self.idle)

    def _give_back(self, child: Child | None) -> None:
        with self._changed:
            self._busy -= 1
            self.idle += [child] if child else []
            self._changed.notify()


_SERVICE = "spai_runtime.images.decoder:decoder"
_LIMITS = Limits(memory=1 << 40, cpu_seconds=1 << 20, seconds=SECONDS)  # the service sets those of each image
_children = _Children(min(CHILDREN, cores()))
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_children.forget)
