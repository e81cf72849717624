"""The dimensions of a SPAI."""

import math
from dataclasses import dataclass, field
from typing import Annotated, Any

from msgspec import Meta

from spai_runtime.views.resize import LARGEST_SIDE
from spai_train.models.vit import FAMILIES, BackboneName
from spai_train.sections import FOLLOWS

# What a checkpoint may ask for: far above any that trains, and far below what a model on torch's meta device costs.
Side = Annotated[int, Meta(ge=2, le=2048)]  # pixels
Width = Annotated[int, Meta(ge=1, le=1 << 16)]
Count = Annotated[int, Meta(ge=1, le=128)]
Share = Annotated[float, Meta(ge=0, lt=1)]

_OF_THE_BACKBONE = {FOLLOWS: ("backbone",)}


def ratio_of(hidden: int, width: int) -> float:
    """The `mlp_ratio` that gives an MLP this width; timm's int(width · ratio) is one too few for some quotients."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)


@dataclass(frozen=True)
class SPAIConfig:
    """The dimensions of a SPAI; the defaults are those of the published model (upstream `configs/spai.yaml`).

    Upstream drops no path in CLIP and DINOv2.

    :param tile_size: A tile has sides of so many pixels.
    :param tile_stride: Tiles lie so many pixels apart; 0 is `tile_size`, so that they lie side by side.
    :param minimum_tiles: An image with fewer tiles than this is looked at in five crops.
    :param mask_radius: Frequencies within this radius of the spectrum are low.
    :param patch_size: A patch of the ViT has sides of so many pixels; 0 is the published size of the `backbone`.
    :param width: Tokens of the ViT have so many channels; 0 is the published width of the `backbone`.
    :param depth: The ViT has so many blocks; 0 is the published depth of the `backbone`.
    :param heads: A block has so many attention heads; 0 is the published number of the `backbone`.
    :param mlp_ratio: The MLP of a block is so many times as wide as its tokens; 0 is the published ratio of the
        `backbone`.
    :param blocks: Features are read behind these blocks, which are counted from 0; none named are all of `depth`.
    :param projection: The projectors behind the blocks give so many channels.
    :param projection_layers: A projector has so many linear layers.
    :param projection_gelu: If this is true, a projector ends in a GELU before its last LayerNorm.
    :param attention_width: The attention over the tiles has so many channels.
    :param attention_heads: The attention over the tiles has so many heads, each with a query that is learned.
    :param head_ratio: The classifier's hidden layers are so many times as wide as its input.
    :param dropout: This share of activations is dropped while training.
    :param drop_path: Blocks of the ViT are skipped while training, the last with this probability and those before
        with lower ones.
    :param backbone: The ViT is of this family, with its pre-training: masked frequencies (`mfm`), CLIP or DINOv2.
    :raises ValueError: there is no model of these dimensions
    """

    tile_size: Side = 224
    tile_stride: Annotated[int, Meta(ge=0, le=LARGEST_SIDE)] = field(default=0, metadata={FOLLOWS: ("tile_size",)})
    minimum_tiles: Annotated[int, Meta(ge=0)] = 4
    mask_radius: Annotated[float, Meta(gt=0, le=2048)] = 16
    patch_size: Annotated[int, Meta(ge=0, le=2048)] = field(default=0, metadata=_OF_THE_BACKBONE)
    width: Annotated[int, Meta(ge=0, le=1 << 16)] = field(default=0, metadata=_OF_THE_BACKBONE)
    depth: Annotated[int, Meta(ge=0, le=128)] = field(default=0, metadata=_OF_THE_BACKBONE)
    heads: Annotated[int, Meta(ge=0, le=1 << 16)] = field(default=0, metadata=_OF_THE_BACKBONE)
    mlp_ratio: Annotated[float, Meta(ge=0, le=64)] = field(default=0.0, metadata=_OF_THE_BACKBONE)
    blocks: Annotated[tuple[int, ...], Meta(max_length=128)] = field(
        default=(), metadata={FOLLOWS: ("depth", "backbone")}
    )
    projection: Width = 1024
    projection_layers: Count = 2
    projection_gelu: bool = False
    attention_width: Width = 1536
    attention_heads: Width = 12
    head_ratio: Annotated[int, Meta(ge=1, le=64)] = 3
    dropout: Share = 0.5
    drop_path: Share = 0.1
    backbone: BackboneName = "mfm"

    def __post_init__(self) -> None:
        family = FAMILIES[self.backbone]
        for name in ("patch_size", "width", "depth", "heads", "mlp_ratio"):
            object.__setattr__(self, name, getattr(self, name) or getattr(family, name))
        object.__setattr__(self, "tile_stride", self.tile_stride or self.tile_size)
        object.__setattr__(self, "blocks", self.blocks or tuple(range(self.depth)))
        for whole, part in (
            ("tile_size", "patch_size"),
            ("width", "heads"),
            ("attention_width", "attention_heads"),
        ):
            if getattr(self, whole) % getattr(self, part):
                raise ValueError(f"{part} {getattr(self, part)} does not divide {whole} {getattr(self, whole)}")
        if self.tile_size % 2:
            raise ValueError(f"a tile_size of {self.tile_size} is not even")
        if list(self.blocks) != sorted({*self.blocks}) or not 0 <= self.blocks[0] <= self.blocks[-1] < self.depth:
            raise ValueError(f"blocks {list(self.blocks)} are not rising indices of {self.depth} blocks")

    @property
    def features(self) -> int:
        """D, the number of features: mean and std of three similarities per block, then the spectral context vector."""
        return 6 * len(self.blocks) + self.projection

    @property
    def vit(self) -> dict[str, Any]:
        """The dimensions of the backbone, under timm's names."""
        return {
            "img_size": self.tile_size,
            "patch_size": self.patch_size,
            "embed_dim": self.width,
            "depth": self.depth,
            "num_heads": self.heads,
            "mlp_ratio": self.mlp_ratio,
        }

    @property
    def all_blocks_count(self) -> bool:
        """Whether the features depend on every parameter of the backbone; on CLIP's last MLP they do not."""
        return self.backbone != "clip" and max(self.blocks) == self.depth - 1
