"""Half precision inside a forward, so that no exporter decides where numbers are rounded."""

from typing import Any

import torch
from torch import Tensor, nn


class Half(nn.Module):
    """A module that takes fp32 and computes in half.

    :param module: its tensors are converted
    :param gives: the type of what it gives; half too where another layer in half follows
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype, gives: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.module, self.dtype, self.gives = module.to(dtype), dtype, gives

    def forward(self, x: Tensor, **options: Any) -> Tensor:
        """:param options: the module's own"""
        return self.module(x.to(self.dtype), **options).to(self.gives)  # type: ignore[no-any-return]
