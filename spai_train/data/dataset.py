"""Training images: a ticket → augmented views, in workers that survive files they cannot read."""

import pickle
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from spai_runtime.errors import ImageError, UserError
from spai_runtime.images import Picture
from spai_train.data.augment import Augment
from spai_train.data.order import Order, Ticket
from spai_train.data.stores import Store
from spai_train.data.table import Row, TableError
from spai_train.data.turns import Turns
from spai_train.seeds import Use, seed_of

ATTEMPTS = 20  # images in a row that may be unreadable before the data set is


class Failure(NamedTuple):
    """An image that could not be read, and why."""

    name: str
    error: str


class Sample(NamedTuple):
    """One image of a batch.

    :param views: (V, S, S, 3) uint8
    :param label: 0 real, 1 AI-generated
    :param failures: images that could not be read and that this one stands in for
    :param beside: what a second augmentation made of the image, (V, T, T, 3) uint8
    """

    views: NDArray[np.uint8]
    label: int
    failures: tuple[Failure, ...] = ()
    beside: NDArray[np.uint8] | None = None


class Batch(NamedTuple):
    """A micro-batch: views (B, V, S, S, 3) uint8, labels (B,) float32; beside (B, V, T, T, 3) uint8, if asked for."""

    views: Tensor
    labels: Tensor
    failures: tuple[Failure, ...]
    beside: Tensor | None = None


class PackedRows(Sequence[Row]):
    """Rows in two arrays: worker processes share their pages, which millions of Python objects would not."""

    def __init__(self, rows: Sequence[Row]) -> None:
        packed = [pickle.dumps(row) for row in rows]
        self._ends = np.cumsum([len(row) for row in packed])
        self._content = np.frombuffer(b"".join(packed), np.uint8)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Row:  # type: ignore[override]  # slices are not needed
        start = self._ends[index - 1] if index else 0
        row: Row = pickle.loads(self._content[start : self._ends[index]].tobytes())  # what __init__ has packed
        return row


class TrainingImages(Dataset[Sample]):
    """Augmented views of images; what they look like follows from seed, epoch and image alone.

    An image that cannot be read is replaced by another of its class, so that batches keep their size.

    :param views: V, augmentations of an image
    :param beside: draws the other views of the same images that `Sample.beside` holds
    :ivar of_class: label → indices of its rows
    """

    def __init__(
        self,
        rows: Sequence[Row],
        store: Store,
        augment: Augment,
        views: int,
        seed: int,
        beside: Augment | None = None,
    ) -> None:
        labels = np.array([row.label for row in rows])
        self.rows = PackedRows(rows)
        self.store, self.augment, self.views, self.seed, self.beside = store, augment, views, seed, beside
        self._turns = Turns()
        self.of_class = {label: np.flatnonzero(labels == label) for label in np.unique(labels).tolist()}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, ticket: Ticket) -> Sample:
        failures: list[Failure] = []
        for index in self._candidates(ticket):
            row = self.rows[index]
            try:
                views, beside = self._drawn(row, ticket)
                return Sample(views, row.label, tuple(failures), beside)
            except ImageError as error:
                failures.append(Failure(row.name, str(error)))
        raise TableError(f"{ATTEMPTS} images in a row cannot be read, the last one {failures[-1].name}: check the data")

    def _drawn(self, row: Row, ticket: Ticket) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        """The views (V, S, S, 3), and (V, T, T, 3) if asked for. :raises ImageError: it cannot be read"""
        seeds = [seed_of(self.seed, Use.AUGMENT, ticket.epoch, ticket.image, view) for view in range(self.views)]
        picture = Picture.open(self.store.source(row))
        augments = [augment for augment in (self.augment, self.beside) if augment]
        with self._turns.take(max(augment.nbytes(picture) for augment in augments)):
            views, *others = [augment.views(picture, seeds) for augment in augments]
        return views, others[0] if others else None

    def _candidates(self, ticket: Ticket) -> Iterator[int]:
        """The index of the image, then those of others of its class."""
        yield ticket.image
        rng = np.random.default_rng(seed_of(self.seed, Use.SUBSTITUTE, *ticket))
        others = self.of_class[self.rows[ticket.image].label]
        for _ in range(ATTEMPTS - 1):
            yield int(rng.choice(others))


def collate(samples: Sequence[Sample]) -> Batch:
    """Samples → one batch."""
    views = torch.from_numpy(np.stack([sample.views for sample in samples]))
    labels = torch.tensor([sample.label for sample in samples], dtype=torch.float32)
    others = [sample.beside for sample in samples if sample.beside is not None]
    beside = torch.from_numpy(np.stack(others)) if others else None
    return Batch(views, labels, tuple(failure for sample in samples for failure in sample.failures), beside)


def load_batches(images: Dataset[Sample], order: Order, workers: int, prefetch: int, *, pin: bool) -> Iterator[Batch]:
    """Micro-batches in their order, read ahead across epochs.

    :param workers: processes; 0 reads in this one
    :param prefetch: batches that each worker keeps ready
    :param pin: whether batches go to a GPU
    :raises UserError: a worker has failed; the words are the worker's
    """
    batches = DataLoader(
        _Batches(images),
        batch_size=None,
        sampler=order,
        num_workers=workers,
        prefetch_factor=prefetch if workers else None,
        collate_fn=_unchanged,
        pin_memory=pin,
    )
    for batch in batches:
        if isinstance(batch, UserError):
            raise batch
        yield batch


class _Batches(Dataset[Batch | UserError]):
    """Micro-batches by their tickets. An error is a value here: one that is raised leaves a worker as a traceback."""

    def __init__(self, images: Dataset[Sample]) -> None:
        self._images = images

    def __getitem__(self, tickets: list[Ticket]) -> Batch | UserError:
        try:
            return collate([self._images[ticket] for ticket in tickets])
        except UserError as error:
            return error


def _unchanged(batch: Any) -> Any:
    return batch
