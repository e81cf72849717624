"""The order of the images: which ones are in which step, a function of the seed alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from spai_runtime.errors import UserError
from spai_train.seeds import Use, seed_of


class PlanError(UserError):
    """Sizes of a training that do not fit together, in one sentence."""


class Ticket(NamedTuple):
    """One image of one epoch.

    :param image: its index among the rows
    """

    epoch: int
    image: int


def check_shares(batch_size: int, accumulate: int, processes: int) -> None:
    """:raises PlanError: micro-batches would not be of one size"""
    if batch_size % (accumulate * processes):
        raise PlanError(
            f"batch_size {batch_size} cannot be shared by {processes} process(es) in {accumulate} micro-batch(es): "
            f"make it a multiple of {accumulate * processes}"
        )


@dataclass(frozen=True)
class Plan:
    """The steps of a training.

    :param images: the number of images in the training split
    :param batch_size: images of one step of the optimizer, over all processes and accumulated micro-batches
    :param epochs: passes over the images; an epoch's last batch is dropped if it is not full, as upstream does
    :param accumulate: micro-batches of a step
    :param processes: how many processes share each micro-batch
    """

    images: int
    batch_size: int
    epochs: int
    accumulate: int = 1
    processes: int = 1

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise PlanError(f"schedule.epochs is {self.epochs}; it is at least 1")
        check_shares(self.batch_size, self.accumulate, self.processes)
        if self.batch_size > self.images:
            raise PlanError(f"batch_size {self.batch_size} is more than the {self.images} training images: lower it")

    @property
    def steps_per_epoch(self) -> int:
        return self.images // self.batch_size

    @property
    def steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    @property
    def micro_batch(self) -> int:
        """Images that one process takes at once."""
        return self.batch_size // (self.accumulate * self.processes)


class Order(Sampler[list[Ticket]]):
    """The micro-batches of one process, from a step to the last.

    :param start: the first step to give
    :param process: the process's number, from 0 and below `plan.processes`
    """

    def __init__(self, plan: Plan, seed: int, start: int = 0, process: int = 0) -> None:
        self.plan, self.seed, self.start, self.process = plan, seed, start, process

    def __len__(self) -> int:
        return (self.plan.steps - self.start) * self.plan.accumulate

    def __iter__(self) -> Iterator[list[Ticket]]:
        plan = self.plan
        for step in range(self.start, plan.steps):
            epoch, place = divmod(step, plan.steps_per_epoch)
            order = permutation(plan.images, self.seed, epoch)
            batch = order[place * plan.batch_size : (place + 1) * plan.batch_size]
            for micro in batch.reshape(plan.accumulate, plan.processes, -1)[:, self.process]:
                yield [Ticket(epoch, image) for image in micro.tolist()]


@lru_cache(maxsize=2)
def permutation(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The images of an epoch in their order: (count,)"""
    return np.random.default_rng(seed_of(seed, Use.ORDER, epoch)).permutation(count)
