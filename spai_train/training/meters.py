"""Sums over an epoch: losses, gradient norms, images that could not be read."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from spai_train.data.dataset import Failure
from spai_train.training.run import Metrics


class Meters:
    """Running sums over the steps of an epoch. They stay on the device: nothing waits for them until they are read.

    :ivar unreadable: name → error, for the images of this process
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.steps = 0
        self.unreadable: dict[str, str] = {}
        self._sums: dict[str, Tensor] = {}
        self._accelerator = accelerator

    def add(self, **values: Tensor) -> None:
        """Adds to the sums of these names."""
        for name, value in values.items():
            zero = torch.zeros((), dtype=torch.float64, device=value.device)
            self._sums[name] = self._sums.get(name, zero) + value.detach().double()

    def failed(self, failures: Iterable[Failure]) -> None:
        """Takes note of images that could not be read."""
        self.unreadable |= dict(failures)

    def means(self) -> Metrics:
        """The means over the steps so far and all processes."""
        return {name: value / self.steps for name, value in self._reduced().items()}

    def all_unreadable(self) -> dict[str, str]:
        """The unreadable images of all processes: name → error."""
        return {name: error for part in gather(self._accelerator, self.unreadable) for name, error in part.items()}

    def state(self) -> dict[str, Any]:
        """The state that `restore` takes."""
        return {"steps": self.steps, "sums": self._reduced(), "unreadable": self.all_unreadable()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state` gave."""
        self.steps, self.unreadable = state["steps"], dict(state["unreadable"])
        self._sums = {name: torch.tensor(value, dtype=torch.float64) for name, value in state["sums"].items()}

    def _reduced(self) -> dict[str, float]:
        """The sums, each averaged over the processes."""
        if not self._sums:
            return {}
        sums = torch.stack([value.to(self._accelerator.device) for value in self._sums.values()])
        if self._accelerator.num_processes > 1:
            sums = self._accelerator.reduce(sums, "mean")
        return dict(zip(self._sums, sums.tolist(), strict=True))


def gather(accelerator: Accelerator, value: Any) -> list[Any]:
    """What every process holds, in the order of the processes."""
    if accelerator.num_processes == 1:
        return [value]
    parts: list[Any] = [None] * accelerator.num_processes
    torch.distributed.all_gather_object(parts, value)
    return parts
