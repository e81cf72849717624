"""A progress bar with rate and remaining time on a terminal; elsewhere nothing is shown."""

import sys
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from spai_runtime.closing import Closing
from spai_runtime.results import Result


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f} images/s" if task.speed else "", style="progress.data.speed")


class ShownProgress(Closing):
    """The progress bar of a run. Use it in a `with`.

    :param total: number of images in the whole run
    :param done: how many of them an earlier run has finished
    :param visible: whether to draw the bar, if stderr is a terminal
    :param what: what is done to each image, as a word
    """

    def __init__(self, total: int, done: int = 0, *, visible: bool = True, what: str = "scoring") -> None:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        visible = visible and sys.stderr.isatty()  # rich takes FORCE_COLOR for a terminal
        self._progress = Progress(*columns, console=Console(stderr=True), disable=not visible, transient=True)
        self._task = self._progress.add_task(what, total=total, completed=done)
        self._progress.start()

    def advance(self, images: int = 1) -> None:
        """Count this many images more."""
        self._progress.advance(self._task, images)

    def close(self) -> None:
        """Remove the bar from the terminal."""
        self._progress.stop()


def shown(results: Iterator[Result], total: int, *, visible: bool = True, what: str = "scoring") -> Iterator[Result]:
    """Pass results on, and draw how many have come; see `ShownProgress`."""
    with ShownProgress(total, visible=visible, what=what) as progress:
        for result in results:
            yield result
            progress.advance()
