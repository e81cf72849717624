"""Many images: decoded ahead in threads, packed into batches across images, scored in order, in bounded memory."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path

from PIL import Image

from spai_runtime.detector import Detector
from spai_runtime.engines import DeviceEngine, DeviceLostError
from spai_runtime.engines.cuda.jpeg import JpegDecoder
from spai_runtime.errors import ImageError, UserError
from spai_runtime.files.sources import Item, printable
from spai_runtime.images import Picture
from spai_runtime.results import Result, Score
from spai_runtime.scoring.batcher import Batcher, Job
from spai_runtime.scoring.budget import Budget

PIXEL_BYTES = 128 << 20  # decoded pixels that wait for the encoder; one larger image waits alone
GPU_PIXEL_BYTES = 512 << 20  # the same for each GPU, whose batches hold on to their images until they are through
WORKERS = 8  # decoding threads at most
GPU_WORKERS = 32
SCORED_AT_ONCE = 64  # images that the head is given at once
POOL_BLOCKS = 64  # of 16 MiB, that Pillow keeps for the next image: more than the largest that it decodes


def score_all(
    detector: Detector, paths: Iterable[str | os.PathLike[str]], *, batch_size: int | None = None
) -> Iterator[Result]:
    """Scores many images; what fails is a Result with an error.

    :returns: results in the order of the paths, as they get ready
    :raises EngineError: see `score_items`
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
    decoder: JpegDecoder | None = None,
) -> Iterator[Result]:
    """The pipeline behind `spai-run`.

    :param batch_size: views that the encoder is given at once; None is what its engine is fastest with
    :param workers: decoding threads; None is one a core, WORKERS at most, or GPU_WORKERS where a GPU waits for them
    :param opened: an item → its picture, not decoded yet; called in a decoding thread, may raise ImageError
    :param decoder: of JPEGs, on the encoder's GPU; None is Pillow
    :raises DeviceLostError: the last GPU stopped working; the images that were on it are results that say so, and those
        after them are still to do
    :raises EngineError: the encoder cannot run
    """
    pending = deque[_Read]()
    with (
        detector.batcher(batch_size, decoder) as batcher,
        _read_ahead(detector, batcher, items, workers or _workers(detector), opened) as images,
    ):
        batcher.ready()  # before the first image is asked for, and with it the first thread starts
        try:
            for image in images:
                pending.append(image)
                image.hand_to(batcher)
                yield from _finished(detector, pending)
            batcher.flush()
            yield from _finished(detector, pending)
        except DeviceLostError as lost:
            yield from _last(detector, pending, str(lost))
            raise


@dataclass
class _Read:
    """An image that has been read, with its share of the budget, or why it could not be.

    :param nbytes: that share, given back when the pixels are no longer held
    """

    item: Item
    budget: Budget
    job: Job | None = None
    width: int | None = None
    height: int | None = None
    nbytes: int = 0
    error: str = ""

    @property
    def done(self) -> bool:
        """Whether what becomes of it is known, but for the head."""
        return self.job is None or self.job.done

    def hand_to(self, batcher: Batcher) -> None:
        """Gives its views to the batcher, if it has any."""
        if self.job is None:
            self.keep(0)
            return
        self.job.dropped = lambda: self.keep(0)
        batcher.add(self.job)

    def keep(self, nbytes: int) -> None:
        """Gives the rest of its share back."""
        self.budget.give(self.nbytes - nbytes)
        self.nbytes = nbytes

    def result(self, score: Score | UserError | None = None, error: str = "") -> Result:
        """:param error: where the image itself has none"""
        if isinstance(score, UserError):
            score, error = None, str(score)
        return Result(self.item, (score,) if score else (), self.width, self.height, self.error or error)


def _finished(detector: Detector, pending: deque[_Read]) -> Iterator[Result]:
    """Takes from the front what has all its features: results keep the order of the items.

    What is finished behind an image that is not has no pixels any more, and waits with its features alone.
    """
    while front := list(islice(takewhile(lambda image: image.done, pending), SCORED_AT_ONCE)):
        scores = iter(detector.score_features_all([image.job for image in front if image.job is not None]))
        for image in front:
            pending.popleft()
            yield image.result(next(scores) if image.job is not None else None)


def _last(detector: Detector, pending: deque[_Read], lost: str) -> Iterator[Result]:
    """What is finished, and then what went with the last GPU."""
    with suppress(DeviceLostError):  # the head's, too
        yield from _finished(detector, pending)
    for image in pending:
        yield image.result(error=image.job.error if image.job is not None and image.job.error else lost)


def _workers(detector: Detector) -> int:
    most = GPU_WORKERS if isinstance(detector.encoder, DeviceEngine) else WORKERS
    return min(most, os.cpu_count() or 1)


def _pixel_bytes(detector: Detector) -> int:
    encoder = detector.encoder
    return GPU_PIXEL_BYTES * len(encoder.replicas) if isinstance(encoder, DeviceEngine) else PIXEL_BYTES


@contextmanager
def _read_ahead(
    detector: Detector, batcher: Batcher, items: Iterable[Item], workers: int, opened: Callable[[Item], Picture]
) -> Iterator[Iterator[_Read]]:
    """Images in the order of the items, decoded in threads ahead of whoever iterates."""
    # Else the malloc arena of every thread holds on to what its largest image took.
    Image.core.set_blocks_max(POOL_BLOCKS)  # type: ignore[attr-defined]
    budget = Budget(_pixel_bytes(detector))
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")

    def images() -> Iterator[_Read]:
        ahead = deque[tuple[int, Future[_Read]]]()
        for ticket, item in enumerate(items):
            future = pool.submit(_read, detector, batcher, item, opened, budget, ticket)
            budget.watch(future)
            ahead.append((ticket, future))
            if len(ahead) > 2 * workers:
                yield _arrived(*ahead.popleft(), budget, batcher)
        while ahead:
            yield _arrived(*ahead.popleft(), budget, batcher)

    try:
        yield images()
    finally:
        budget.close()
        pool.shutdown(cancel_futures=True)


def _arrived(ticket: int, future: Future[_Read], budget: Budget, batcher: Batcher) -> _Read:
    """Waits until an image is read. A decoder that finds no room gets that of the batches that run.

    Only where there are none, and it is this very image that finds none, is a batch run that is not full: what has
    been added so far is all that holds room then.
    """
    while budget.starves(future):
        if not batcher.advance():
            if budget.granted(ticket):
                break
            batcher.flush()
    return future.result()


def _read(
    detector: Detector,
    batcher: Batcher,
    item: Item,
    opened: Callable[[Item], Picture],
    budget: Budget,
    ticket: int,
) -> _Read:
    """Runs in a decoding thread. The header tells what the pixels will cost, and the budget when there is room."""
    image = _Read(item, budget)
    try:
        picture = opened(item)
        image.width, image.height = picture.width, picture.height
        job = detector.job(picture)
        image.nbytes = batcher.cost(job)
    except ImageError as error:
        image.error = str(error)
    budget.take(ticket, image.nbytes)
    if image.error:
        return image
    try:
        batcher.prepare(job)
        image.keep(batcher.cost(job))
        image.job = job
    except ImageError as error:
        image.error = str(error)
    return image
