"""CO-SPY's network: a frozen tower that says what is in an image, and a branch that looks for traces of a generator.

Axes: B images, V views of an image, N views in a batch, C width of the tower's features.
"""

from dataclasses import dataclass, field, replace
from typing import Annotated

from msgspec import Meta
from torch import Tensor, cat, nn

from spai_train.detectors.class_token import Depth
from spai_train.detectors.cospy.artifact import WIDTH, Artifacts
from spai_train.detectors.linear import Pixels
from spai_train.detectors.spec import DetectorModel
from spai_train.models.siglip import HEAD, SigLIPBackbone
from spai_train.models.vae import VAEConfig
from spai_train.models.vit import CLIP_L, HEAD_WIDTH, ClassTokenBackbone

SIGLIP_SIDE, CLIP_SIDE, PATCH = 384, 224, 14  # of the views of each variant, and of a tower's patches, in pixels

_CLIP = replace(CLIP_L, final_norm=True)


@dataclass(frozen=True)
class CoSpyConfig:
    """The defaults are the published detector that was trained on Stable Diffusion v1.4, fused from two logits.

    :param width, depth: of the tower
    :param vae: whose reconstruction the artifact branch takes away; the tower is then SigLIP. None is the variant that
        was trained on ProGAN, with CLIP as its tower and neighbouring pixels in the other branch
    :param projection: C of CLIP's features; SigLIP has none, and its features have the tower's width
    :param end_to_end: whether features are joined, each branch's times its logit, and not the two logits alone
    """

    width: Annotated[int, Meta(ge=1, le=1 << 14)] = 1152
    depth: Depth = 27
    vae: VAEConfig | None = field(default_factory=VAEConfig)
    projection: Annotated[int, Meta(ge=0, le=1 << 14)] = 0
    end_to_end: bool = False

    def __post_init__(self) -> None:
        head = HEAD_WIDTH if self.vae is None else HEAD
        if self.width % head:
            raise ValueError(f"heads of {head} channels do not divide a width of {self.width}")
        if (self.vae is None) != (self.projection > 0):
            raise ValueError("a projection belongs to CLIP, and CLIP to the variant without a VAE")

    @property
    def side(self) -> int:
        """S, of a view in pixels."""
        return CLIP_SIDE if self.vae is None else SIGLIP_SIDE

    @property
    def semantic(self) -> int:
        """C"""
        return self.projection or self.width

    @property
    def features(self) -> int:
        """D: what the tower gives, and what the artifact branch does."""
        return self.semantic + WIDTH


class ProjectedBackbone(ClassTokenBackbone):
    """CLIP with its projection: what it compares with the features of texts."""

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
        return cat((self.backbone(self.pixels(views)), self.artifacts(views)), dim=1)


class CoSpyHead(nn.Module):
    """A logit of each branch, and one of both; of several views, the mean of their logits."""

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
        joined = (logits[0] * semantic, logits[1] * artifact) if self.end_to_end else logits
        return self.fusion(cat(joined, dim=-1)).mean(dim=1)  # type: ignore[no-any-return]


class CoSpy(DetectorModel):
    """See `DetectorModel`."""

    detector = "cospy"
    encoder: CoSpyEncoder

    def __init__(self, config: CoSpyConfig) -> None:
        super().__init__()
        self.config, self.encoder, self.head = config, CoSpyEncoder(config), CoSpyHead(config)
