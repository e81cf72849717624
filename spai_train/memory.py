"""What to do when memory runs out in torch: how many views a module is given at once."""

import logging
from dataclasses import dataclass

import torch

log = logging.getLogger("spai_runtime")  # whose warnings every command says on stderr


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; torch's CPU allocator raises a plain RuntimeError."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


@dataclass
class BatchLimit:
    """How many views are given at once; it is lowered where memory runs out, and all who share it see that.

    :ivar views: how many; None takes whatever suits the device
    """

    views: int | None = None
    _lowered: bool = False

    def of(self, batch: int) -> int:
        """How many of these views to try at once."""
        return min(batch, self.views or batch)

    def lower(self, tried: int) -> None:
        """Lowers the limit to half of what was tried, at least 1."""
        self.views, self._lowered = max(tried // 2, 1), True

    def say(self, device: str) -> None:
        """Says in one line how far it was lowered since the last time; call it when a batch has fitted."""
        if self._lowered:
            views = "1 view" if self.views == 1 else f"{self.views} views"
            log.warning("%s is out of memory; going on with batches of %s", device, views)
            self._lowered = False
