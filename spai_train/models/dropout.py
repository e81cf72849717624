"""Dropout that does not hold up a CPU."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Dropout(nn.Dropout):
    """Replaces torch's dropout with one that draws in another way on the CPU.

    torch draws a Bernoulli number an element there, in one thread, while the others wait. Here a
    random byte decides, eight of which come out of one 64-bit draw: the same distribution wherever 256·p is whole, as
    at SPAI's 0.5. For another p, on a GPU and in eval mode it is torch's.
    """

    def forward(self, x: Tensor) -> Tensor:
        """:param x: any shape"""
        if not self.training or x.device.type != "cpu" or not (256 * self.p).is_integer() or self.p in (0, 1):
            return F.dropout(x, self.p, self.training)
        return x * keep_mask(x.shape, self.p).to(x.dtype).mul_(1 / (1 - self.p))


def keep_mask(shape: torch.Size, p: float) -> Tensor:
    """A mask of bools, each True with probability 1 − p, from torch's global generator.

    :param p: a multiple of 1/256
    """
    count = shape.numel()
    words = torch.empty((count + 7) // 8, dtype=torch.int64).random_(torch.iinfo(torch.int64).min, None)
    return (words.view(torch.uint8)[:count] >= round(256 * p)).view(shape)
