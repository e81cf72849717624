"""ClipDet (CVPR workshops 2024, grip-unina/ClipBased-SyntheticImageDetection): a linear layer on CLIP's own features.

They are those before CLIP's projection, on the unit sphere. The logit is a log-likelihood ratio.
"""

import re
from dataclasses import dataclass, replace
from typing import Annotated

from msgspec import Meta
from torch import Tensor, nn
from torch.nn import functional as F

from spai_runtime.views import CentreCrop, Resize
from spai_train.detectors.linear import LinearHead, LinearModel, Pixels
from spai_train.detectors.spec import DetectorSpec
from spai_train.models.half import halve_blocks
from spai_train.models.vit import CLIP_L, HEAD_WIDTH, ClassTokenBackbone
from spai_train.published import CLIP_COMMONPOOL
from spai_train.tensors import Content, State, dimensions, shape_of

SIDE, PATCH = 224, 14  # of CLIP ViT-L/14, in pixels

_COMMONPOOL = replace(CLIP_L, options={"pre_norm": True}, final_norm=True, hub="")  # its GELU is the exact one


@dataclass(frozen=True)
class ClipDetConfig:
    """The defaults are ViT-L/14, `clipdet_latent10k` and `clipdet_latent10k_plus`.

    :param width, depth: of the tower
    """

    width: Annotated[int, Meta(ge=HEAD_WIDTH, le=1 << 14, multiple_of=HEAD_WIDTH)] = 1024
    depth: Annotated[int, Meta(ge=1, le=128)] = 24

    @property
    def features(self) -> int:
        """D: the CLS token behind the last LayerNorm."""
        return self.width


class ClipEncoder(nn.Module):
    """Pixels → the CLS token on the unit sphere."""

    def __init__(self, config: ClipDetConfig) -> None:
        super().__init__()
        self.pixels = Pixels(CLIP_L.mean, CLIP_L.std)
        self.backbone = ClassTokenBackbone.sized(_COMMONPOOL, SIDE, PATCH, config.width, config.depth)

    def forward(self, views: Tensor) -> Tensor:
        """:param views: (N, S, S, 3) uint8
        :returns: (N, D) float32
        """
        return F.normalize(self.backbone(self.pixels(views)), dim=-1)


class ClipDet(LinearModel):
    """See `DetectorModel`."""

    detector = "clipdet"

    def __init__(self, config: ClipDetConfig) -> None:
        super().__init__()
        self.config, self.encoder, self.head = config, ClipEncoder(config), LinearHead(config.features)


def recognises(state: State) -> bool:
    """Whether these are upstream's linear layer and nothing else but the tower, or ours."""
    rest = {re.sub(r"^head\.linear\.", "fc.", name) for name in state if not name.startswith("encoder.backbone.")}
    ours = any(name.startswith("encoder.backbone.") for name in state)
    return rest == {"fc.weight", "fc.bias"} and (not ours or "encoder.backbone.norm_pre.weight" in state)


def read(content: Content) -> tuple[ClipDetConfig, State]:
    """Upstream's `weights.pth` with the tower.

    :raises CheckpointError: tensors that tell the dimensions are missing
    """
    state = {re.sub(r"^fc\.", "head.linear.", name): tensor for name, tensor in content.state.items()}
    width = shape_of(state, "head.linear.weight", 2)[1]
    depth = sum(name.startswith("encoder.backbone.") and name.endswith(".attn.qkv.weight") for name in state)
    return dimensions({"width": width, "depth": depth}, ClipDetConfig), state


def to_upstream(model: ClipDet) -> dict[str, dict[str, Tensor]]:
    """What upstream's `load_weights` reads, once torch.save wrote it: the linear layer."""
    linear = model.head.linear
    return {"model": {"fc.weight": linear.weight.detach(), "fc.bias": linear.bias.detach()}}


SPEC = DetectorSpec(
    name="clipdet",
    title="ClipDet",
    config=ClipDetConfig,
    build=ClipDet,
    views=lambda _: CentreCrop(SIDE, Resize(SIDE, filter="bicubic")),
    recognises=recognises,
    halve=lambda encoder, dtype: halve_blocks(encoder.backbone, dtype),
    code_licence="Apache-2.0",
    weights_licence="Apache-2.0; MIT the tower",
    averages=True,
    read=read,
    to_upstream=to_upstream,
    tower=CLIP_COMMONPOOL,
)
