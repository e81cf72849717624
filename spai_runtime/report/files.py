"""The files of a report."""

from collections.abc import Sequence
from pathlib import Path

PAGE_IMAGES = 10_000  # that one page shows; a larger run has several
SUFFIXES = (".html", ".htm")


def page_files(path: Path, images: int) -> Sequence[Path]:
    """The paths of the pages for so many images: `report.html`, then `report-2.html` and so on.

    :param path: the path of the first page
    """
    further = range(2, -(-images // PAGE_IMAGES) + 1)
    return [path, *(path.with_name(f"{path.stem}-{number}{path.suffix}") for number in further)]
