"""Memory that runs out in torch, and how many views a module is given at once."""

import logging
from dataclasses import dataclass

import torch

log = logging.getLogger("spai_runtime")  # whose warnings every command says on stderr


def out_of_memory(error: BaseException) -> bool:
    """Whether that is what an error says; torch's CPU allocator raises a plain RuntimeError."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


@dataclass
class BatchLimit:
    """How many views at once; it is lowered where memory runs out, and whoever shares it begins where it ended.

    :ivar views: None is whatever suits the device
    """

    views: int | None = None
    _lowered: bool = False

    def of(self, batch: int) -> int:
        """How many of so many views to try at once."""
        return min(batch, self.views or batch)

    def lower(self, tried: int) -> None:
        """Half of what was tried, at least 1."""
        self.views, self._lowered = max(tried // 2, 1), True

    def say(self, device: str) -> None:
        """One line for all that it was lowered by since the last one; call it when a batch has fitted."""
        if self._lowered:
            views = "1 view" if self.views == 1 else f"{self.views} views"
            log.warning("%s is out of memory; going on with batches of %s", device, views)
            self._lowered = False
