"""A progress bar with rate and time left, on a terminal; nothing elsewhere."""

import sys
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from spai_runtime.results import Result


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f} images/s" if task.speed else "", style="progress.data.speed")


def shown(results: Iterator[Result], total: int, done: int, *, visible: bool) -> Iterator[Result]:
    """Passes results on and draws how far they are, on stderr.

    :param total: images of the whole run
    :param done: how many of them an earlier run has left
    """
    columns = (
        TextColumn("scoring"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    visible = visible and sys.stderr.isatty()  # rich takes FORCE_COLOR for a terminal
    with Progress(*columns, console=Console(stderr=True), disable=not visible, transient=True) as progress:
        task = progress.add_task("scoring", total=total, completed=done)
        for result in results:
            yield result
            progress.advance(task)
