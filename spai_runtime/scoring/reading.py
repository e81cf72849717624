"""Reading ahead: images in the order of the items, decoded in threads while batches run."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from PIL import Image

from spai_runtime.detector import Detector
from spai_runtime.errors import ImageError
from spai_runtime.files.sources import Item
from spai_runtime.files.stamps import NO_FILE, Stamp
from spai_runtime.images import Picture
from spai_runtime.scoring.batcher import Batcher
from spai_runtime.scoring.budget import Budget
from spai_runtime.scoring.encoding import Encoding
from spai_runtime.scoring.image import Decode, ImageState

OpenItem = Callable[[Item], Picture]

POOL_BLOCKS = 64  # of 16 MiB, that Pillow keeps for the next image: more than the largest that it decodes


@dataclass
class ReadImage:
    """An item whose image has been read, or the reason why it could not be.

    :param stamp: the stamp of its file, before it was opened
    :param encodings: one for each detector, or the reason why that detector cannot lay out its views. () after an error
    """

    item: Item
    stamp: Stamp = NO_FILE
    image: ImageState = field(default_factory=ImageState)
    encodings: Sequence[Encoding | ImageError] = ()

    @property
    def done(self) -> bool:
        """Whether the image is done, except for the heads."""
        return all(isinstance(encoding, ImageError) or encoding.done for encoding in self.encodings)


@dataclass(frozen=True)
class Reader:
    """Reads images, one after the other in each thread that calls it.

    :param open_item: an item → its picture, not decoded yet; it may raise ImageError
    :param decode_on_gpu: decodes JPEGs; None is Pillow
    """

    detectors: Sequence[Detector]
    batchers: Sequence[Batcher]
    budget: Budget
    open_item: OpenItem
    decode_on_gpu: Decode | None = None

    def read(self, item: Item, ticket: int) -> ReadImage:
        """Read an image. The header says what the pixels will cost; they are decoded when the budget has room."""
        read = ReadImage(item, Stamp.of(item.path))
        picture, nbytes = self._open(read), 0
        if picture is not None:
            nbytes = read.image.cost(picture)
        read.image.take(self.budget, ticket, nbytes)
        if picture is not None:
            self._decode(read, picture)
        read.image.settle()
        return read

    def _open(self, read: ReadImage) -> Picture | None:
        """Open the item's image. :returns: None if there is nothing to decode"""
        try:
            picture = self.open_item(read.item)
        except ImageError as error:
            read.image.error = str(error)
            return None
        read.image.width, read.image.height = picture.width, picture.height
        pairs = zip(self.detectors, self.batchers, strict=True)
        read.encodings = [self._encoding(read.image, picture, *pair) for pair in pairs]
        return picture if read.image.planes else None

    def _encoding(
        self, image: ImageState, picture: Picture, detector: Detector, batcher: Batcher
    ) -> Encoding | ImageError:
        try:
            layout = detector.layout(picture.height, picture.width)
        except ImageError as error:
            return error
        manifest = detector.manifest
        plane = image.use(manifest.views.resize, layout.height, layout.width, batcher.allocate)
        return Encoding(image, plane, layout, manifest.features)

    def _decode(self, read: ReadImage, picture: Picture) -> None:
        try:
            read.image.decode(picture, self.decode_on_gpu)
        except ImageError as error:
            read.image.error, read.encodings = str(error), ()
            read.image.planes.clear()


@contextmanager
def read_ahead(reader: Reader, items: Iterable[Item], workers: int) -> Iterator[Iterator[ReadImage]]:
    """Give images in the order of the items; threads decode them ahead of whoever iterates."""
    # Else the malloc arena of every thread holds on to what its largest image took.
    Image.core.set_blocks_max(POOL_BLOCKS)  # type: ignore[attr-defined]
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")

    def images() -> Iterator[ReadImage]:
        ahead = deque[tuple[int, Future[ReadImage]]]()
        for ticket, item in enumerate(items):
            future = pool.submit(reader.read, item, ticket)
            reader.budget.watch(future)
            ahead.append((ticket, future))
            if len(ahead) > 2 * workers:
                yield _arrived(*ahead.popleft(), reader)
        while ahead:
            yield _arrived(*ahead.popleft(), reader)

    try:
        yield images()
    finally:
        reader.budget.close()
        pool.shutdown(cancel_futures=True)


def _arrived(ticket: int, future: Future[ReadImage], reader: Reader) -> ReadImage:
    """Wait until an image is read. If a decoder finds no room, batches that run are finished to make room.

    If no batches run, and it is this image that finds no room, batches are run that are not full: only what was added
    to them so far holds room then.
    """
    budget, batchers = reader.budget, reader.batchers
    while budget.starves(future):
        if not any(batcher.advance() for batcher in batchers):
            if budget.granted(ticket):
                break
            for batcher in batchers:
                batcher.flush()
    return future.result()
