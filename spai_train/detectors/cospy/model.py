"""CO-SPY's network: a frozen tower that says what is in an image, and a branch that looks for traces of a generator.

Axes: B images, V views of an image, N views in a batch, C width of the tower's features.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, cat, nn, relu

from spai_train.detectors.cospy.artifact import WIDTH, Artifacts
from spai_train.detectors.cospy.config import CoSpyConfig
from spai_train.detectors.linear import Pixels
from spai_train.detectors.spec import DetectorModel, Verdict
from spai_train.models.siglip import SigLIPBackbone
from spai_train.models.vit import CLIP_L, ClassTokenBackbone

Branch = Literal["semantic", "artifact"]
BRANCHES: tuple[Branch, ...] = (
    "semantic",
    "artifact",
)  # in the order of their features and of the weights of their fusion

DROPPED = 0.3  # of the steps of an end-to-end training, in which one branch is left out (upstream `end2end.py`)
PATCH = 14  # of a tower, in pixels

_CLIP = replace(CLIP_L, final_norm=True, hub="")  # timm's has no projection


class ProjectedBackbone(ClassTokenBackbone):
    """CLIP with its projection, which gives the features that CLIP compares with those of texts."""

    def forward(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """:param images: (N, 3, S, S), normalised
        :returns: (N, C)
        """
        return self.head(super().forward(images))  # type: ignore[no-any-return]


class CoSpyEncoder(nn.Module):
    """Features of both branches, side by side. They are joined by the head, so that fused and end-to-end detectors have
    the same encoder, and the logit of a branch can be had of stored features."""

    backbone: SigLIPBackbone | ProjectedBackbone

    def __init__(self, config: CoSpyConfig) -> None:
        super().__init__()
        if config.vae is None:
            sizes = config.side, PATCH, config.width, config.depth
            self.backbone = ProjectedBackbone.sized(_CLIP, *sizes)
            self.backbone.head = nn.Linear(config.width, config.projection, bias=False)
        else:
            self.backbone = SigLIPBackbone(config.side, config.width, config.depth)
        self.pixels = Pixels(self.backbone.family.mean, self.backbone.family.std)
        self.artifacts = Artifacts(config.vae)

    def forward(self, views: Tensor) -> Tensor:
        """(N, S, S, 3) uint8 → (N, C + WIDTH) float32"""
        return cat((self.semantics(views), self.artifacts(views)), dim=1)

    def semantics(self, views: Tensor) -> Tensor:
        """(N, S, S, 3) uint8 → (N, C) float32"""
        return self.backbone(self.pixels(views))  # type: ignore[no-any-return]


class CoSpyHead(nn.Module):
    """Gives a logit of each branch and one of both; for several views, the mean of their logits."""

    def __init__(self, config: CoSpyConfig) -> None:
        super().__init__()
        self.end_to_end = config.end_to_end
        self.semantic, self.artifact = nn.Linear(config.semantic, 1), nn.Linear(WIDTH, 1)
        self.fusion = nn.Linear(config.features if config.end_to_end else 2, 1)

    def forward(self, features: Tensor) -> Tensor:
        """:param features: (B, V, D)
        :returns: logit (B, 1)
        """
        semantic, artifact = features[..., : self.semantic.in_features], features[..., -WIDTH:]
        logits = self.semantic(semantic), self.artifact(artifact)  # (B, V, 1) each
        if not self.end_to_end:
            return self.fusion(cat(logits, dim=-1)).mean(dim=1)  # type: ignore[no-any-return]
        factors = _dropped(logits) if self.training else logits
        joined = factors[0] * semantic, factors[1] * artifact
        return self.fusion(cat(joined, dim=-1)).mean(dim=1)  # type: ignore[no-any-return]


def _dropped(logits: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Puts zeros in place of one branch's logits in some steps, so that the detector learns to do without it."""
    if torch.rand(()) >= DROPPED:
        return logits
    semantic, artifact = logits
    return (torch.zeros_like(semantic), artifact) if torch.rand(()) < 0.5 else (semantic, torch.zeros_like(artifact))


class CoSpy(DetectorModel):
    """See `DetectorModel`.

    :ivar branches: the branches that a training step computes; the features of another are zeros
    :ivar floor: a step that calibrates keeps the bias of the fusion from falling below this; None lets it fall
    """

    detector = "cospy"
    encoder: CoSpyEncoder
    head: CoSpyHead
    branches: tuple[Branch, ...] = BRANCHES
    floor: float | None = None

    def __init__(self, config: CoSpyConfig) -> None:
        super().__init__()
        self.config, self.encoder, self.head = config, CoSpyEncoder(config), CoSpyHead(config)

    def forward(self, views: Tensor, beside: Tensor | None = None, *, detached: bool = False) -> Verdict:
        """:param beside: what the artifact branch sees instead of the views, (B, V, T, T, 3) uint8"""
        semantic = self._encoded("semantic", self.encoder.semantics, views, self.config.semantic)
        artifact = self._encoded("artifact", self.encoder.artifacts, views if beside is None else beside, WIDTH)
        features = cat((semantic, artifact), dim=-1)
        return Verdict(self.head(features.detach() if detached else features), None, features.mean(dim=1))

    def _encoded(self, branch: Branch, encode: Callable[[Tensor], Tensor], views: Tensor, width: int) -> Tensor:
        """(B, V, S, S, 3) uint8 → (B, V, width)"""
        if branch not in self.branches:
            return torch.zeros(*views.shape[:2], width, device=views.device)
        return encode(views.flatten(0, 1)).reshape(*views.shape[:2], width)

    def penalty(self) -> Tensor | float:
        """How far the bias of the fusion is below `floor` (upstream `train.py`, `bias_floor`)."""
        return 0.0 if self.floor is None else relu(self.floor - self.head.fusion.bias[0])
