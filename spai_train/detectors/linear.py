"""What detectors that read a backbone's features with one linear layer have in common."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spai_train.detectors.spec import DetectorModel


class Pixels(nn.Module):
    """Raw pixels → normalised ones, inside the graph.

    :param mean, std: those of each channel, for values in [0, 1]
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values).reshape(3, 1, 1), persistent=False)

    def forward(self, views: Tensor) -> Tensor:
        """:param views: (N, H, W, 3) uint8
        :returns: (N, 3, H, W) float32
        """
        return (views.float().div(255).permute(0, 3, 1, 2) - self.mean) / self.std


class LinearHead(nn.Module):
    """A linear layer on the mean over the views; it has no attention.

    :param features: D
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 1)

    def forward(self, features: Tensor) -> Tensor:
        """:param features: (B, V, D)
        :returns: logit (B, 1)
        """
        return self.linear(features.mean(dim=1))  # type: ignore[no-any-return]


class LinearModel(DetectorModel):
    """An encoder, and a `LinearHead`."""

    head: LinearHead
