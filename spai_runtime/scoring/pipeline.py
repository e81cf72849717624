"""The pipeline for many images: decoded ahead in threads, batched across images, scored in order, in bounded memory."""

import os
from collections import deque
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from itertools import chain, islice, takewhile
from pathlib import Path

from spai_runtime.cores import cores
from spai_runtime.detector import Detector
from spai_runtime.engines.base import Array, DeviceLostError
from spai_runtime.errors import EngineError, ImageError, UserError
from spai_runtime.files.sources import Item, printable
from spai_runtime.images import FORMATS, Picture
from spai_runtime.results import Result, Score
from spai_runtime.scoring.batchers import batcher_of
from spai_runtime.scoring.budget import PIXEL_BYTES, Budget
from spai_runtime.scoring.encoding import Encoding
from spai_runtime.scoring.image import Decode
from spai_runtime.scoring.reading import OpenItem, Reader, ReadImage, read_ahead
from spai_runtime.views import Layout

GPU_PIXEL_BYTES = 512 << 20  # the same for each GPU, whose batches hold on to their images until they are through
THREADS_OF_PIXELS = 8  # decoding threads that PIXEL_BYTES are for; more have as much each
WORKERS = 32  # decoding threads at most
SCORED_AT_ONCE = 64  # images that a head is given


def score_all(
    detector: Detector | Sequence[Detector],
    paths: Iterable[str | os.PathLike[str]],
    *,
    batch_size: int | None = None,
    formats: Collection[str] = FORMATS,
) -> Generator[Result]:
    """Score many images; an image that fails gives a Result with an error.

    :param detector: one detector or several, all of which look at every image
    :param formats: the formats that are decoded; UNTRUSTED_FORMATS are those for files from strangers
    :returns: results in the order of the paths, as they are ready
    :raises EngineError: see `score_items`
    """
    items = (Item(Path(path), printable(path)) for path in paths)
    return score_items(detector, items, batch_size=batch_size, open_item=partial(open_file, formats=formats))


def open_file(item: Item, formats: Collection[str] = FORMATS) -> Picture:
    """Open an item that is a file. :returns: its picture, with the header read"""
    return Picture.open(item.path, formats)


def score_items(
    detector: Detector | Sequence[Detector],
    items: Iterable[Item],
    *,
    batch_size: int | None = None,
    workers: int | None = None,
    open_item: OpenItem = open_file,
    decode_on_gpu: Decode | None = None,
) -> Generator[Result]:
    """The pipeline behind `spai-run`: an image is decoded once, however many detectors look at it.

    :param detector: one detector or several
    :param batch_size: the number of views that an encoder gets at once; None is what its engine is fastest with
    :param workers: the number of decoding threads; None is one for each core, WORKERS at most
    :param open_item: an item → its picture, not decoded yet; it is called in a decoding thread, and may raise
        ImageError
    :param decode_on_gpu: decodes JPEGs on the encoders' GPU; None is Pillow
    :raises DeviceLostError: the last GPU stopped working; the images that were on it have results that say so, and
        those after them are still to do
    :raises EngineError: an encoder cannot run
    """
    detectors = [detector] if isinstance(detector, Detector) else detector
    pending = deque[ReadImage]()
    with ExitStack() as stack:
        batchers = [
            stack.enter_context(batcher_of(detector.encoder, detector.manifest.views.shape, batch_size))
            for detector in detectors
        ]
        workers = workers or _workers()
        reader = Reader(detectors, batchers, Budget(_pixel_bytes(detectors, workers)), open_item, decode_on_gpu)
        images = stack.enter_context(read_ahead(reader, items, workers))
        for batcher in batchers:
            batcher.ready()  # before the first image is asked for, and with it the first thread starts
        try:
            for image in chain(images, [None]):
                if image is None:
                    for batcher in batchers:
                        batcher.flush()
                else:
                    pending.append(image)
                    for batcher, encoding in zip(batchers, image.encodings, strict=False):
                        if isinstance(encoding, Encoding):
                            batcher.add(encoding)
                for done in _done(pending):
                    scores = [detector.score_features(*_features(done, of)) for of, detector in enumerate(detectors)]
                    yield from _results(detectors, done, scores)
        except DeviceLostError as lost:
            yield from _last(detectors, pending, str(lost))
            raise
        except EngineError:  # of a batch; those before it may have been done since the last image
            yield from _rest(detectors, pending)
            raise


def _rest(detectors: Sequence[Detector], pending: deque[ReadImage]) -> Iterator[Result]:
    """The results of images that have all their features when a run ends early."""
    for done in _done(pending):
        scores = [detector.score_features(*_features(done, of)) for of, detector in enumerate(detectors)]
        yield from _results(detectors, done, scores)


def _done(pending: deque[ReadImage]) -> Iterator[Sequence[ReadImage]]:
    """Give the images at the front that are done, in portions; a portion is removed when the next one is asked for.

    Results keep the order of the items: an image that is done behind one that is not has released its pixels, and only
    its features wait.
    """
    while front := list(islice(takewhile(lambda image: image.done, pending), SCORED_AT_ONCE)):
        yield front
        for _ in front:
            pending.popleft()


def _features(images: Sequence[ReadImage], index: int) -> tuple[Sequence[Array], Sequence[Layout]]:
    """The features and layouts that one detector's encoder made of images, without those that it could not look at."""
    encodings = [image.encodings[index] for image in images if image.encodings]
    whole = [one for one in encodings if isinstance(one, Encoding) and not one.error]
    return [one.features for one in whole], [one.layout for one in whole]


def _results(
    detectors: Sequence[Detector], images: Sequence[ReadImage], scores: Sequence[Sequence[Score | UserError]]
) -> Iterator[Result]:
    """Make the results. :param scores: for each detector, the scores of the images that it looked at"""
    left = [iter(of_detector) for of_detector in scores]
    for image in images:
        yield _result(detectors, image, [_said(*pair) for pair in zip(image.encodings, left, strict=False)])


def _said(encoding: Encoding | ImageError, scores: Iterator[Score | UserError]) -> Score | UserError:
    """A detector's score of an image, or the reason why it has none."""
    if isinstance(encoding, ImageError):
        return encoding
    return ImageError(encoding.error) if encoding.error else next(scores)


def _result(
    detectors: Sequence[Detector], image: ReadImage, said: Sequence[Score | UserError], error: str = ""
) -> Result:
    """Make a result. :param said: by each detector; () if the image was not read, or `error` says what is wrong"""
    names = [f"{detector.manifest.name}: " if len(detectors) > 1 else "" for detector in detectors]
    refused = "; ".join(f"{name}{one}" for name, one in zip(names, said, strict=False) if isinstance(one, UserError))
    scores = tuple(one if isinstance(one, Score) else None for one in said)
    state = image.image
    return Result(image.item, scores, state.width, state.height, state.error or refused or error, image.stamp)


def _last(detectors: Sequence[Detector], pending: deque[ReadImage], lost: str) -> Iterator[Result]:
    """The results of images that are done, and then those of images that were lost with the last GPU."""
    with suppress(DeviceLostError):  # the heads', too
        yield from _rest(detectors, pending)
    for image in pending:
        errors = (one.error for one in image.encodings if isinstance(one, Encoding) and one.error)
        yield _result(detectors, image, (), next(errors, lost))


def _workers() -> int:
    """The number of decoding threads: one for each core, although the engine computes on all cores too.

    A decoder that is far enough ahead sleeps, so decoding takes the processor time that it needs, however many threads
    there are. For SPAI that is a hundredth of the encoder's time, and 1, 2 or 4 threads on two cores make no
    difference; a fast detector with one view for each image needs all of them.
    """
    return min(WORKERS, cores())


def _pixel_bytes(detectors: Sequence[Detector], workers: int) -> int:
    on_host = PIXEL_BYTES * max(workers, THREADS_OF_PIXELS) // THREADS_OF_PIXELS
    return GPU_PIXEL_BYTES * len(_gpus(detectors)) or on_host


def _gpus(detectors: Sequence[Detector]) -> set[str]:
    """The GPUs that get whole images."""
    engines = [detector.encoder.as_device_engine for detector in detectors]
    return {replica.device for engine in engines if engine for replica in engine.replicas}
