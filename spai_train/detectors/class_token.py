"""What detectors that read the CLS token of a ViT have in common."""

import math
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta
from torch import Tensor, nn

from spai_runtime.errors import UserError
from spai_train.detectors.linear import Pixels
from spai_train.detectors.spec import DetectorModel, Start
from spai_train.models.pretrained import load_pretrained
from spai_train.models.vit import HEAD_WIDTH, ClassTokenBackbone, Family
from spai_train.tensors import State, shape_of

BACKBONE = "encoder.backbone."  # what our names of its tensors begin with

Side = Annotated[int, Meta(ge=14, le=2048)]
PatchSize = Annotated[int, Meta(ge=1, le=256)]
Width = Annotated[int, Meta(ge=HEAD_WIDTH, le=1 << 14)]
Depth = Annotated[int, Meta(ge=1, le=128)]


@dataclass(frozen=True)
class ClassTokenConfig:
    """The dimensions of such a detector; each derives its own class, whose defaults are the published ones.

    :param side: A view has sides of so many pixels.
    :param patch_size: A patch of the ViT has sides of so many pixels.
    :param width: Tokens of the ViT have so many channels.
    :param depth: The ViT has so many blocks.
    """

    side: Side
    patch_size: PatchSize
    width: Width
    depth: Depth

    def __post_init__(self) -> None:
        if self.side % self.patch_size or self.width % HEAD_WIDTH:
            raise ValueError(f"patches of {self.patch_size} pixels and heads of {HEAD_WIDTH} channels do not divide it")

    @property
    def features(self) -> int:
        """D, the width of the CLS token behind the last LayerNorm."""
        return self.width

    @property
    def grid(self) -> int:
        """The number of patches along a side."""
        return self.side // self.patch_size


class ClassTokenEncoder(nn.Module):
    """Pixels → the CLS token."""

    backbone: ClassTokenBackbone

    def __init__(self, config: ClassTokenConfig, family: Family) -> None:
        super().__init__()
        self.pixels = Pixels(family.mean, family.std)
        sizes = config.side, config.patch_size, config.width, config.depth
        self.backbone = ClassTokenBackbone.sized(family, *sizes)

    def forward(self, views: Tensor) -> Tensor:
        """:param views: (N, S, S, 3) uint8
        :returns: (N, D) float32
        """
        return self.backbone(self.pixels(views))  # type: ignore[no-any-return]


def first_weights(model: DetectorModel, start: Start) -> None:
    """Loads the backbone, as upstream always does, or leaves it as timm draws it; the head stays as torch draws it.

    :param model: one whose encoder is a ClassTokenEncoder
    :raises UserError: another scheme is asked for, or the weights do not fit
    """
    if start.initial != "upstream":
        raise UserError(f"{model.detector} is drawn as upstream draws it: leave initial={start.initial} out")
    if start.pretrained is not None:
        assert isinstance(model.encoder, ClassTokenEncoder)
        load_pretrained(model.encoder.backbone, start.pretrained)


def is_ours(state: State, *, layer_scale: bool = False, norm_pre: bool = False) -> bool:
    """Whether these are the names that we give to the tensors of such a detector with a linear head.

    :param layer_scale: whether its ViT has a LayerScale, as DINOv2's
    :param norm_pre: whether it has a LayerNorm before the first block, as CLIP's
    """
    names = {f"{BACKBONE}cls_token", f"{BACKBONE}blocks.0.norm1.weight", "head.linear.weight"}
    marks = {f"{BACKBONE}blocks.0.ls1.gamma": layer_scale, f"{BACKBONE}norm_pre.weight": norm_pre}
    return names <= state.keys() and all((name in state) == expected for name, expected in marks.items())


def sizes_of(state: State) -> dict[str, int]:
    """The fields of a `ClassTokenConfig` that tensors under our names tell.

    :raises CheckpointError: tensors that tell them are missing, or have other numbers of axes
    """
    positions = shape_of(state, f"{BACKBONE}pos_embed", 3)
    width, _, _, patch_size = shape_of(state, f"{BACKBONE}patch_embed.proj.weight", 4)
    depth = sum(name.startswith(f"{BACKBONE}blocks.") and name.endswith(".attn.qkv.weight") for name in state)
    side = math.isqrt(positions[1] - 1) * patch_size
    return {"side": side, "patch_size": patch_size, "width": width, "depth": depth}
