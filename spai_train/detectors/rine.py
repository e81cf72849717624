"""RINE (ECCV 2024, mever-team/rine): what the CLS tokens of all blocks of a frozen CLIP say together.

Axes: N views in a batch, K blocks, C width of the tower, P width of a projected token.
"""

import re
from dataclasses import dataclass
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor, nn

from spai_runtime.views import CentreCrop
from spai_train.detectors.class_token import BACKBONE, Depth
from spai_train.detectors.linear import Pixels
from spai_train.detectors.spec import DetectorModel, DetectorSpec, Start, Training
from spai_train.models.dropout import Dropout
from spai_train.models.half import halve_backbone
from spai_train.models.pretrained import load_pretrained
from spai_train.models.vit import CLIP_L, HEAD_WIDTH, ClassTokensBackbone
from spai_train.published import CLIP_OPENAI
from spai_train.tensors import CheckpointError, Content, State, dimensions, shape_of

SIDE, PATCH = 224, 14  # of CLIP ViT-L/14, in pixels

Width = Annotated[int, Meta(ge=1, le=1 << 14)]


@dataclass(frozen=True)
class RINEConfig:
    """The dimensions of a RINE; the defaults are the published 4-class model (upstream `get_our_trained_model`).

    :param width: Tokens of the tower have so many channels.
    :param depth: The tower has so many blocks, of which each has its importance.
    :param projection: The projections give so many channels.
    :param layers: Each of the two projections has so many layers.
    """

    width: Annotated[int, Meta(ge=HEAD_WIDTH, le=1 << 14, multiple_of=HEAD_WIDTH)] = 1024
    depth: Depth = 24
    projection: Width = 1024
    layers: Depth = 2

    @property
    def features(self) -> int:
        """D, the number of channels that the second projection gives."""
        return self.projection


class RINEEncoder(nn.Module):
    """CLS tokens → projected → weighed by the importance of their blocks and summed → projected."""

    def __init__(self, config: RINEConfig) -> None:
        super().__init__()
        self.pixels = Pixels(CLIP_L.mean, CLIP_L.std)
        self.backbone = ClassTokensBackbone.sized(CLIP_L, SIDE, PATCH, config.width, config.depth)
        self.proj1 = _projection(config.width, config.projection, config.layers)
        self.alpha = nn.Parameter(torch.randn(1, config.depth, config.projection))
        self.proj2 = _projection(config.projection, config.projection, config.layers)

    def forward(self, views: Tensor) -> Tensor:
        """(N, S, S, 3) uint8 → (N, P) float32"""
        tokens = self.proj1(self.backbone(self.pixels(views)))  # (N, K, P)
        importance = self.alpha.softmax(dim=1)  # (1, K, P), the trainable importance estimator
        return self.proj2((importance * tokens).sum(dim=1))  # type: ignore[no-any-return]


class RINEHead(nn.Sequential):
    """Three layers on the embedding of each view; for several views, the mean of their logits."""

    def __init__(self, width: int) -> None:
        hidden = [layer for _ in range(2) for layer in (nn.Linear(width, width), nn.ReLU(), Dropout())]
        super().__init__(*hidden, nn.Linear(width, 1))

    def forward(self, features: Tensor) -> Tensor:
        """:param features: (B, V, P)
        :returns: logit (B, 1)
        """
        for layer in self:
            features = layer(features)
        return features.mean(dim=1)


class RINE(DetectorModel):
    """See `DetectorModel`; the contrastive loss sees the mean embedding of the views."""

    detector = "rine"
    encoder: RINEEncoder

    def __init__(self, config: RINEConfig) -> None:
        super().__init__()
        self.config, self.encoder, self.head = config, RINEEncoder(config), RINEHead(config.projection)


def _projection(width: int, projection: int, layers: int) -> nn.Sequential:
    inputs = width, *[projection] * (layers - 1)
    parts = [part for size in inputs for part in (nn.Linear(size, projection), nn.ReLU(), Dropout())]
    return nn.Sequential(Dropout(), *parts)


def first_weights(model: RINE, start: Start) -> None:
    """Loads the tower; all other weights stay as torch draws them.

    :raises CheckpointError: there is no tower, or one that does not fit
    """
    if start.initial != "upstream" or start.pretrained is None:
        raise CheckpointError(f"rine starts from a frozen CLIP: give --pretrained timm, or {CLIP_OPENAI.described}")
    load_pretrained(model.encoder.backbone, start.pretrained)


def recognises(state: State) -> bool:
    """Whether these are the trainable tensors of upstream, or ours."""
    return {"alpha", "proj1.1.weight", "proj2.1.weight"} <= {name.removeprefix("encoder.") for name in state}


def read(content: Content) -> tuple[RINEConfig, State]:
    """Reads upstream's `model_*_trainable.pth`, or a bare state dict of ours; either with the tower.

    :raises CheckpointError: tensors that tell the dimensions are missing
    """
    renamed = {re.sub(r"^(alpha$|proj\d\.)", r"encoder.\1", name): tensor for name, tensor in content.state.items()}
    state = {name: tensor for name, tensor in renamed.items() if not re.match(rf"{BACKBONE}(norm|head)\.", name)}
    _, depth, projection = shape_of(state, "encoder.alpha", 3)
    width = shape_of(state, "encoder.proj1.1.weight", 2)[1]
    layers = sum(name.startswith("encoder.proj2.") and name.endswith(".weight") for name in state)
    return dimensions({"width": width, "depth": depth, "projection": projection, "layers": layers}, RINEConfig), state


def to_upstream(model: RINE) -> dict[str, Tensor]:
    """What upstream's `get_our_trained_model` loads: the trainable tensors."""
    state = {name.removeprefix("encoder."): tensor for name, tensor in model.state_dict().items()}
    return {name: tensor for name, tensor in state.items() if not name.startswith("backbone.")}


SPEC = DetectorSpec(
    name="rine",
    title="RINE",
    config=RINEConfig,
    build=RINE,
    views=lambda _: CentreCrop(SIDE),
    recognises=recognises,
    halve=halve_backbone,
    code_licence="Apache-2.0",
    weights_licence="Apache-2.0; MIT the tower",
    averages=True,
    read=read,
    to_upstream=to_upstream,
    tower=lambda _: CLIP_OPENAI,
    training=Training(first_weights, "encoder.backbone"),
)
