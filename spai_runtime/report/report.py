"""A report takes rows as they come, and writes its pages when all rows are there."""

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from spai_runtime.closing import Closing
from spai_runtime.errors import ImageError, OutputError
from spai_runtime.files.atomic import atomic_write
from spai_runtime.files.sources import Item, printable
from spai_runtime.files.stamps import Stamp
from spai_runtime.images import FORMATS
from spai_runtime.report.card import Card, Fused
from spai_runtime.report.entry import Entry, Spool
from spai_runtime.report.files import PAGE_IMAGES, page_files
from spai_runtime.report.heat import Heat
from spai_runtime.report.page import write_page
from spai_runtime.report.roles import Roles
from spai_runtime.report.tally import Histogram, Tally
from spai_runtime.report.thumbnail import Detail, Thumbnail
from spai_runtime.results import Score

_AHEAD = 16  # images whose thumbnails may be waited for


class Report(Closing):
    """The pages of a run. Use it in a `with`; `finish` writes them.

    Thumbnails are made in a thread, from the files themselves, while other images are scored.

    :param path: the path of the first page
    :param columns: the names of all columns of the rows
    :param cards: the cards of the detectors, in the order of the columns
    :param total: the number of images in the run; the size of thumbnails depends on it
    :param fused: how scores became one; None if there is one detector
    :param inputs: the inputs that the user named
    :param formats: the formats that may be decoded to be shown
    :raises OutputError: the report's folder cannot be written
    """

    def __init__(
        self,
        path: Path,
        columns: Sequence[str],
        cards: Sequence[Card],
        *,
        total: int,
        fused: Fused | None = None,
        inputs: Sequence[str] = (),
        formats: Collection[str] = FORMATS,
    ) -> None:
        self._path, self._cards, self._fused, self._inputs, self._formats = path, cards, fused, inputs, formats
        self._roles, self._detail = Roles.of(columns), Detail.of(total)
        titles = [(card.name, card.threshold) for card in cards]
        titles += [("all together", fused.threshold if fused else None)] if self._roles.fused else []
        self._tally = Tally([Histogram(*title) for title in titles], fused=self._roles.fused)
        self._waiting = deque[tuple[Entry, Future[Thumbnail]]]()
        with ExitStack() as opened:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._spool = opened.enter_context(Spool(path.parent, PAGE_IMAGES))
            except OSError as error:
                raise _cannot_write(path, error) from error
            self._thumbnails = opened.enter_context(ThreadPoolExecutor(1, thread_name_prefix="thumbnail"))
            self._opened = opened.pop_all()

    def add(
        self,
        row: Mapping[str, Any],
        image: Path,
        stamp: Stamp | None = None,
        scores: Sequence[Score | None] = (),
    ) -> None:
        """Add one image.

        :param row: its cells, by the names of the columns
        :param image: its file
        :param stamp: the stamp of the file when it was scored; None if that is not known
        :param scores: the score of each detector, for heat maps
        :raises OutputError: the disk is full
        """
        entry = Entry.of(self._tally.images + len(self._waiting) + 1, row, self._roles)
        if entry.width and entry.height and scores:
            entry = replace(entry, heats=[Heat.of(score, entry.width, entry.height) for score in scores])
        future = self._thumbnails.submit(Thumbnail.of, image, self._detail, self._formats, stamp)
        self._waiting.append((entry, future))
        while len(self._waiting) > _AHEAD:
            self._settle()

    def add_kept(self, row: Mapping[str, Any], item: Item) -> None:
        """Add a row that an earlier run has left, whose image has not changed since; see `add`."""
        self.add(row, item.path)

    def finish(self) -> Sequence[Path]:
        """Write the pages; the first page is written last.

        :returns: the paths of all pages
        :raises OutputError: a page cannot be written
        """
        while self._waiting:
            self._settle()
        pages = page_files(self._path, self._tally.images)
        for index, page in reversed([*enumerate(pages)]):
            try:
                with atomic_write(page) as part, part.open("w", encoding="utf-8", newline="\n") as file:
                    write_page(file, "report.html", **self._context(pages, index))
            except OSError as error:
                raise _cannot_write(page, error) from error
        return pages

    def close(self) -> None:
        """Stop; an interrupted run ends here too, without a page."""
        self._thumbnails.shutdown(wait=False, cancel_futures=True)
        self._opened.close()

    def _settle(self) -> None:
        """Give the image that has waited longest its thumbnail, or the reason why it has none."""
        entry, future = self._waiting.popleft()
        try:
            entry = replace(entry, thumbnail=future.result())
        except ImageError as error:
            entry = replace(entry, missing=str(error), heats=())
        self._tally.add(entry)
        try:
            self._spool.write(entry)
        except OSError as error:
            raise _cannot_write(self._path, error) from error

    def _context(self, pages: Sequence[Path], index: int) -> dict[str, Any]:
        first = PAGE_IMAGES * index + 1
        numbers = range(first, min(first + PAGE_IMAGES, self._tally.images + 1))
        return {
            "entries": self._spool.read(index),
            "numbers": numbers,
            "pages": [page.name for page in pages],
            "page": index,
            "cards": self._cards,
            "fused": self._fused,
            "tally": self._tally,
            "inputs": [printable(name) for name in self._inputs],
            "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "version": version("spai-toolkit"),
        }


def _cannot_write(path: Path, error: OSError) -> OutputError:
    return OutputError(f"cannot write {printable(path)}: {error.strerror}")
