"""ClipDet (CVPR workshops 2024, grip-unina/ClipBased-SyntheticImageDetection): a linear layer on CLIP's own features.

These features are those before CLIP's projection, on the unit sphere. The logit is a log-likelihood ratio.
"""

import re
from dataclasses import dataclass, replace

from torch import Tensor
from torch.nn import functional as F

from spai_runtime.views import CentreCrop, Resize
from spai_train.detectors import class_token
from spai_train.detectors.class_token import (
    BACKBONE,
    ClassTokenConfig,
    ClassTokenEncoder,
    first_weights,
    is_ours,
    sizes_of,
)
from spai_train.detectors.linear import LinearHead, LinearModel
from spai_train.detectors.spec import DetectorSpec, Training
from spai_train.models.half import halve_backbone
from spai_train.models.vit import CLIP_L, HEAD_WIDTH
from spai_train.published import CLIP_COMMONPOOL
from spai_train.tensors import Content, State, dimensions

# Of CLIP ViT-L/14 with the weights of CommonPool-XL, whose GELU is the exact one.
_COMMONPOOL = replace(CLIP_L, options={"pre_norm": True}, final_norm=True, hub="")


@dataclass(frozen=True)
class ClipDetConfig(ClassTokenConfig):
    """The dimensions of a ClipDet; the defaults are ViT-L/14, of `clipdet_latent10k` and `clipdet_latent10k_plus`."""

    side: class_token.Side = 224
    patch_size: class_token.PatchSize = 14
    width: class_token.Width = 1024
    depth: class_token.Depth = 24


class UnitEncoder(ClassTokenEncoder):
    """Pixels → the CLS token, on the unit sphere."""

    def forward(self, views: Tensor) -> Tensor:
        """:param views: (N, S, S, 3) uint8
        :returns: (N, D) float32
        """
        return F.normalize(super().forward(views), dim=-1)


class ClipDet(LinearModel):
    """See `DetectorModel`."""

    detector = "clipdet"

    def __init__(self, config: ClipDetConfig) -> None:
        super().__init__()
        self.config, self.encoder, self.head = config, UnitEncoder(config, _COMMONPOOL), LinearHead(config.features)


def recognises(state: State) -> bool:
    """Whether this is upstream's linear layer, alone or with its tower, or ours."""
    rest = {name for name in state if not name.startswith(BACKBONE)}
    if rest == {"fc.weight", "fc.bias"}:
        return state["fc.weight"].shape[-1:] >= (HEAD_WIDTH,)  # CO-SPY's fusion of two logits has these names too
    return is_ours(state, norm_pre=True)


def read(content: Content) -> tuple[ClipDetConfig, State]:
    """Reads upstream's `weights.pth` with the tower, or a bare state dict of ours.

    :raises CheckpointError: tensors that tell the dimensions are missing
    """
    renamed = {re.sub(r"^fc\.", "head.linear.", name): tensor for name, tensor in content.state.items()}
    state = {name: tensor for name, tensor in renamed.items() if not name.startswith(f"{BACKBONE}head.")}
    return dimensions(sizes_of(state), ClipDetConfig), state


def to_upstream(model: ClipDet) -> dict[str, dict[str, Tensor]]:
    """What torch.save must write for upstream's `load_weights`: the linear layer."""
    linear = model.head.linear
    return {"model": {"fc.weight": linear.weight.detach(), "fc.bias": linear.bias.detach()}}


SPEC = DetectorSpec(
    name="clipdet",
    title="ClipDet",
    config=ClipDetConfig,
    build=ClipDet,
    views=lambda config: CentreCrop(config.side, Resize(config.side, filter="bicubic")),
    recognises=recognises,
    halve=halve_backbone,
    code_licence="Apache-2.0",
    weights_licence="Apache-2.0; MIT the tower",
    averages=True,
    read=read,
    to_upstream=to_upstream,
    tower=lambda _: CLIP_COMMONPOOL,
    training=Training(first_weights, "encoder.backbone", all_train=lambda _: True),
)
