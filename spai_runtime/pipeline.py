"""Many images: decoded ahead in threads, packed into batches across images, scored in order, in bounded memory."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from spai_runtime.batches import Job
from spai_runtime.detector import Detector, Score
from spai_runtime.errors import ImageError
from spai_runtime.images import Picture
from spai_runtime.sources import Item, printable

PIXEL_BYTES = 128 << 20  # decoded pixels that wait for the encoder; one larger image waits alone
POOL_BLOCKS = 64  # of 16 MiB, that Pillow keeps for the next image: more than the largest that it decodes


@dataclass(frozen=True)
class Result:
    """One image's outcome: a score, or an error of one sentence.

    :param width, height: in pixels; None where not even the header could be read
    """

    item: Item
    score: Score | None = None
    width: int | None = None
    height: int | None = None
    error: str = ""


def score_all(
    detector: Detector, paths: Iterable[str | os.PathLike[str]], *, batch_size: int | None = None
) -> Iterator[Result]:
    """Scores many images; what fails is a Result with an error.

    :returns: results in the order of the paths, as they get ready
    """
    items = (Item(Path(path), printable(path)) for path in paths)
    return score_items(detector, items, batch_size=batch_size)


def open_file(item: Item) -> Picture:
    """The picture of an item that is a file, its header read."""
    return Picture.open(item.path)


def score_items(
    detector: Detector,
    items: Iterable[Item],
    *,
    batch_size: int | None = None,
    workers: int | None = None,
    opened: Callable[[Item], Picture] = open_file,
) -> Iterator[Result]:
    """The pipeline behind `spai-run`.

    :param batch_size: views that the encoder is given at once; None is what its engine is fastest with
    :param workers: decoding threads; None is one a core, 8 at most
    :param opened: an item → its picture, not decoded yet; called in a decoding thread, may raise ImageError
    """
    packer, pending = detector.packer(batch_size), deque[_Read]()
    with _read_ahead(detector, items, workers or min(8, os.cpu_count() or 1), opened) as images:
        for image in images:
            pending.append(image)
            if image.job is not None:
                packer.add(image.job)
            image.release()
            yield from _finished(detector, pending)
        packer.flush()
        yield from _finished(detector, pending)


@dataclass
class _Read:
    """An image that has been read, with its share of the budget, or why it could not be."""

    item: Item
    budget: "_Budget"
    job: Job | None = None
    width: int | None = None
    height: int | None = None
    nbytes: int = 0
    error: str = ""

    def release(self) -> None:
        self.budget.give(self.nbytes)


def _finished(detector: Detector, pending: deque[_Read]) -> Iterator[Result]:
    """Takes from the front what has all its features: results keep the order of the items."""
    while pending and (pending[0].job is None or pending[0].job.done):
        image = pending.popleft()
        score = None
        try:
            score = detector.judge(image.job) if image.job is not None else None
        except ImageError as error:
            image.error = str(error)
        yield Result(image.item, score, image.width, image.height, image.error)


@contextmanager
def _read_ahead(
    detector: Detector, items: Iterable[Item], workers: int, opened: Callable[[Item], Picture]
) -> Iterator[Iterator[_Read]]:
    """Images in the order of the items, decoded in threads ahead of whoever iterates."""
    # Else the malloc arena of every thread holds on to what its largest image took.
    Image.core.set_blocks_max(POOL_BLOCKS)  # type: ignore[attr-defined]
    budget = _Budget(PIXEL_BYTES)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")

    def images() -> Iterator[_Read]:
        ahead = deque[Future[_Read]]()
        for ticket, item in enumerate(items):
            ahead.append(pool.submit(_read, detector, item, opened, budget, ticket))
            if len(ahead) > 2 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()

    try:
        yield images()
    finally:
        budget.close()
        pool.shutdown(cancel_futures=True)


def _read(detector: Detector, item: Item, opened: Callable[[Item], Picture], budget: "_Budget", ticket: int) -> _Read:
    """Runs in a decoding thread. The header tells what the pixels will cost, and the budget when there is room."""
    image = _Read(item, budget)
    try:
        picture = opened(item)
        image.width, image.height = picture.width, picture.height
        job = detector.job(picture)
        image.nbytes = picture.nbytes
    except ImageError as error:
        image.error = str(error)
    budget.take(ticket, image.nbytes)
    if image.error:
        return image
    try:
        picture.load()
        image.job = job
    except ImageError as error:
        image.error = str(error)
    return image


class _Budget:
    """Bytes of pixels in flight, granted in the order of the tickets.

    In that order, because results leave in order too: if later images could take all there is, the one that everything
    waits for would never get its share. An image larger than the limit is granted when nothing else is in flight.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._used, self._next, self._closed = limit, 0, 0, False
        self._changed = threading.Condition()

    def take(self, ticket: int, nbytes: int) -> None:
        """Waits for the ticket's turn and for room; every ticket must come, with 0 if it needs none."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or (ticket == self._next and self._fits(nbytes)))
            self._used += nbytes
            self._next += 1
            self._changed.notify_all()

    def give(self, nbytes: int) -> None:
        with self._changed:
            self._used -= nbytes
            self._changed.notify_all()

    def close(self) -> None:
        """Lets every waiting thread go, for a run that ends early."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _fits(self, nbytes: int) -> bool:
        return not nbytes or not self._used or self._used + nbytes <= self._limit
