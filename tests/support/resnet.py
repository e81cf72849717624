"""A detector that is not ours, as whoever adds one writes it: timm's ResNet-18 behind a resize and a centre crop.

This is the file of a detector in `spai_train/detectors/`; CONTRIBUTING.md points here.
"""

from dataclasses import dataclass

import timm
import torch
from torch import Tensor, nn

from spai_runtime.views import CentreCrop, Resize
from spai_train.detectors.linear import LinearModel, Pixels
from spai_train.detectors.spec import DetectorSpec, Training
from spai_train.models.half import Half


@dataclass(frozen=True)
class ResNetConfig:
    """:param resize: of the shorter side, in pixels, before a square of `side` is cropped from the middle"""

    resize: int = 80
    side: int = 64
    features: int = 512


class ResNetEncoder(nn.Module):
    """Pixels → features, with casting, scaling and normalisation inside, so that the graph takes raw pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = timm.create_model("resnet18", num_classes=0)
        self.pixels = Pixels(self.backbone.pretrained_cfg["mean"], self.backbone.pretrained_cfg["std"])

    def forward(self, views: Tensor) -> Tensor:
        """:param views: (N, S, S, 3) uint8
        :returns: (N, D) float32
        """
        return self.backbone(self.pixels(views))  # type: ignore[no-any-return]


class MeanHead(nn.Module):
    """A linear layer on the mean over the views; it has no attention."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.fc = nn.Linear(features, 1)

    def forward(self, features: Tensor) -> Tensor:
        """:param features: (B, V, D)
        :returns: logit (B, 1)
        """
        return self.fc(features.mean(dim=1))  # type: ignore[no-any-return]


class ResNet(LinearModel):
    """See `DetectorModel`."""

    detector = "resnet18"

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.config, self.encoder, self.head = config, ResNetEncoder(), MeanHead(config.features)


def halve(encoder: ResNetEncoder, dtype: torch.dtype) -> None:
    """All of the backbone in half; scaling and normalisation stay fp32."""
    encoder.backbone = Half(encoder.backbone, dtype)


SPEC = DetectorSpec(
    name="resnet18",
    title="ResNet-18",
    config=ResNetConfig,
    build=ResNet,
    views=lambda config: CentreCrop(config.side, Resize(config.resize, filter="bilinear")),
    recognises=lambda state: "encoder.backbone.layer4.1.conv2.weight" in state,
    halve=halve,
    code_licence="Apache-2.0",
    weights_licence="none are published",
    notice="random weights: its scores mean nothing",
    read=lambda content: (ResNetConfig(), content.state),
    training=Training(backbone="encoder.backbone"),
)
