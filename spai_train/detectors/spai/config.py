"""The dimensions of a SPAI."""

from dataclasses import dataclass
from typing import Any

from spai_train.models.vit import FAMILIES, BackboneName


@dataclass(frozen=True)
class SPAIConfig:
    """The dimensions of a SPAI; the defaults are those of the published model (upstream `configs/spai.yaml`).

    Upstream drops no path in CLIP and DINOv2.

    :param patch_size, width, depth, heads, mlp_ratio: 0 is what the `backbone` of that name was published with
    :param blocks: that are looked at; none named are all
    """

    tile_size: int = 224
    tile_stride: int = 224
    minimum_tiles: int = 4
    mask_radius: float = 16
    patch_size: int = 0
    width: int = 0
    depth: int = 0
    heads: int = 0
    mlp_ratio: float = 0.0
    blocks: tuple[int, ...] = ()
    projection: int = 1024
    projection_layers: int = 2
    projection_gelu: bool = False
    attention_width: int = 1536
    attention_heads: int = 12
    head_ratio: int = 3
    dropout: float = 0.5
    drop_path: float = 0.1
    backbone: BackboneName = "mfm"

    def __post_init__(self) -> None:
        family = FAMILIES[self.backbone]
        for name in ("patch_size", "width", "depth", "heads", "mlp_ratio"):
            object.__setattr__(self, name, getattr(self, name) or getattr(family, name))
        object.__setattr__(self, "blocks", self.blocks or tuple(range(self.depth)))

    @property
    def features(self) -> int:
        """D: mean and std of three similarities per block, then the spectral context vector."""
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
        """Whether every parameter of the backbone is behind the features: CLIP's last MLP is not."""
        return self.backbone != "clip" and max(self.blocks) == self.depth - 1
