"""The dimensions of a SPAI."""

from dataclasses import dataclass
from typing import Any

from spai_train.models.vit import BackboneName


@dataclass(frozen=True)
class SPAIConfig:
    """The dimensions of a SPAI; the defaults are those of the published model (upstream `configs/spai.yaml`).

    CLIP's ViT-B/16 differs in `backbone` alone; DINOv2's has a `patch_size` of 14; upstream drops no path in either.
    """

    tile_size: int = 224
    tile_stride: int = 224
    minimum_tiles: int = 4
    mask_radius: float = 16
    patch_size: int = 16
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: float = 4.0
    blocks: tuple[int, ...] = tuple(range(12))
    projection: int = 1024
    projection_layers: int = 2
    projection_gelu: bool = False
    attention_width: int = 1536
    attention_heads: int = 12
    head_ratio: int = 3
    dropout: float = 0.5
    drop_path: float = 0.1
    backbone: BackboneName = "mfm"

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
