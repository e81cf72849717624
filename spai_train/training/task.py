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
        """On the device of the run; its own `state_dict` is what is saved."""

    @property
    def images(self) -> Dataset[Sample]:
        """Samples by Ticket."""

    def loss(self, model: nn.Module, batch: Batch, seed: int) -> Tensor:
        """:param model: `self.model`, perhaps wrapped for several processes; call it
        :param seed: of whatever is drawn beside torch's global generator, which it has seeded too
        """

    def validate(self) -> Metrics:
        """Metrics of the epoch that ended: `val_…`, and `test_…`, by which nothing is chosen."""

    def save(self, name: str) -> None:
        """Writes a checkpoint for others to use into the run's folder: `last`, `best`, `epoch_007`."""


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    :param history: metrics of every epoch
    :param best: those of the best epoch; of the last one, where nothing is watched
    :param stopped: whether early stopping ended it
    :param tells: whether this process is the one of several that says so
    """

    history: list[Metrics]
    best: Metrics
    stopped: bool
    tells: bool = True
