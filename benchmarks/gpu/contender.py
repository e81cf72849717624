"""A contender: a way to run the encoder on the GPU, in one precision, at one batch size after the other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from reference import Features, Tiles


class BatchInFlight(Protocol):
    """One of the two batches that are under way at a time; its tiles lie on the GPU already."""

    def launch(self) -> None:
        """Begins a batch and returns at once."""

    def wait(self) -> Features:
        """:returns: the features of the batch that was begun, on the host, (batch, D)"""


class Runner(Protocol):
    """A contender loaded at one batch size.

    :param lanes: two
    :param default_batch: what its engine is run at where nobody says otherwise; None where it has no such thing
    :param graph: whether its launches, once warmed up, each replay a CUDA graph; None where nobody knows
    """

    default_batch: int | None

    @property
    def graph(self) -> bool | None: ...

    @property
    def lanes(self) -> Sequence[BatchInFlight]: ...

    def close(self) -> None:
        """Gives all GPU memory back."""


@dataclass(frozen=True)
class Contender:
    """How to load one.

    :param precision: what its matrix products compute in
    :param form: what else tells it from others of that back end and precision
    :param load: tiles (batch, S, S, 3) uint8 → a Runner at that batch size; UserError where the back end is missing
    :param prepare: for a batch size, before loading: exporting, building a plan. It does not count as the contender's
        memory, and raises as `load` does
    """

    backend: str
    precision: str
    load: Callable[[Tiles], Runner]
    prepare: Callable[[int], object] = lambda _: None
    form: str = ""

    @property
    def name(self) -> str:
        return " ".join(filter(None, (self.backend, self.precision, self.form)))
