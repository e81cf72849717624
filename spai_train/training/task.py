"""What a loop trains, and how it ends."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn
from torch.utils.data import Dataset

from spai_train.data.dataset import Batch, Sample
from spai_train.training.run import Metrics

OnEpoch = Callable[[int, Mapping[str, float]], None]


class Task(Protocol):
    """What is trained, on which images."""

    @property
    def model(self) -> nn.Module:
        """The model, on the device of the run; its own `state_dict` is what is saved."""

    @property
    def images(self) -> Dataset[Sample]:
        """The data set that gives a Sample for each Ticket."""

    def loss(self, model: nn.Module, batch: Batch, seed: int) -> Tensor:
        """:param model: `self.model`, perhaps wrapped for several processes; call it
        :param seed: the seed of what other generators than torch's global one draw; that one is seeded with it too
        """

    def validate(self) -> Metrics:
        """The metrics of the epoch that ended: `val_…`, and `test_…`, by which nothing is chosen."""

    def save(self, name: str) -> None:
        """Writes a checkpoint for others to use into the run's folder: `last`, `best`, `epoch_007`."""


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    :param history: the metrics of every epoch
    :param best: the metrics of the best epoch, or of the last one where nothing is watched
    :param stopped: whether early stopping ended it
    :param tells: whether this process is the one that reports it, where there are several
    """

    history: list[Metrics]
    best: Metrics
    stopped: bool
    tells: bool = True
