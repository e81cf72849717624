"""The dimensions of CO-SPY's network: C is the width of the tower's features."""

from dataclasses import dataclass, field
from typing import Annotated

from msgspec import Meta

from spai_train.detectors.class_token import Depth
from spai_train.detectors.cospy.artifact import WIDTH
from spai_train.models.siglip import HEAD
from spai_train.models.vae import VAEConfig
from spai_train.models.vit import HEAD_WIDTH

SIGLIP_SIDE, CLIP_SIDE = 384, 224  # of the views of each variant, in pixels


@dataclass(frozen=True)
class CoSpyConfig:
    """The defaults are the published detector that was trained on Stable Diffusion v1.4, fused from two logits.

    :param width: Tokens of the tower have so many channels.
    :param depth: The tower has so many blocks.
    :param vae: The artifact branch takes the reconstruction of this VAE away, and the tower is SigLIP; null is the
        variant that was trained on ProGAN. Its tower is CLIP, and its other branch has neighbouring pixels.
    :param projection: CLIP's features have so many channels. SigLIP has no projection, and its features have the
        tower's width.
    :param end_to_end: If this is true, features are joined, each branch's times its logit, and not the two logits
        alone.
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
        """S, the side of a view in pixels."""
        return CLIP_SIDE if self.vae is None else SIGLIP_SIDE

    @property
    def semantic(self) -> int:
        """C, the width of the tower's features."""
        return self.projection or self.width

    @property
    def features(self) -> int:
        """D, the number of features that the tower and the artifact branch give together."""
        return self.semantic + WIDTH
