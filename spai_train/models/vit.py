"""The vision transformer under a detector: timm's, in the formulation that exports.

Axes: N images in a batch, L patch tokens, C width.
"""

from collections.abc import Collection
from functools import partial
from typing import Any

from timm.layers import Attention
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, cat, nn
from torch.nn import functional as F


class ShapelessAttention(Attention):  # type: ignore[misc]
    """timm's attention, unfused and without reading the batch size.

    A symbolic batch size exports as Shape of the uint8 input, which TensorRT refuses, and the plain
    `MatMul(q·s, kᵀ) → Softmax → MatMul` is the pattern that it fuses.
    """

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """:param x: (N, L, C); masks are not supported"""
        assert attn_mask is None and not is_causal
        tokens = x.shape[1]
        qkv = self.qkv(x).reshape(-1, tokens, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (N, heads, L, C / heads)
        attention = self.attn_drop(((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1))
        x = (attention @ v).transpose(1, 2).reshape(-1, tokens, self.attn_dim)
        return self.proj_drop(self.proj(x))  # type: ignore[no-any-return]


class Backbone(VisionTransformer):  # type: ignore[misc]
    """timm's ViT (pre-norm, CLS token, absolute positions), giving the patch tokens of the blocks in use.

    :param blocks: indices of the blocks whose tokens are given; those after the last are never run
    :param dimensions: timm's `img_size`, `patch_size`, `embed_dim`, `depth`, `num_heads`, `mlp_ratio`, …
    """

    def __init__(self, blocks: Collection[int], **dimensions: Any) -> None:
        norm = partial(nn.LayerNorm, eps=1e-6)  # upstream `vision_transformer.py`, build_vit
        super().__init__(
            num_classes=0,
            global_pool="",
            final_norm=False,
            norm_layer=norm,
            attn_layer=ShapelessAttention,
            **dimensions,
        )
        self.used = frozenset(blocks)

    def forward(self, images: Tensor) -> list[Tensor]:
        """:param images: (N, 3, S, S), normalised
        :returns: K times (N, L, C), CLS left out
        """
        x = self._embed(images)
        outputs = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.used:
                outputs.append(x[:, 1:])
            if len(outputs) == len(self.used):
                break
        return outputs

    def _embed(self, images: Tensor) -> Tensor:
        """CLS is folded into the first position, so that no Expand over the batch is exported: (N, 1 + L, C)."""
        positions = cat((self.pos_embed[:, :1] + self.cls_token, self.pos_embed[:, 1:]), dim=1)
        return self.pos_drop(F.pad(self.patch_embed(images), (0, 0, 1, 0)) + positions)  # type: ignore[no-any-return]
