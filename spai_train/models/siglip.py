"""SigLIP's vision tower (Zhai et al., ICCV 2023), as timm names its tensors: attention pooling instead of a CLS token.

Axes: N images in a batch, L patch tokens, C width.
"""

import torch
from timm.layers import Mlp
from torch import Tensor, nn

from spai_train.models.vit import Backbone, Family

HUB = "vit_so400m_patch14_siglip_384.webli"  # timm's name of it

# A shape-optimised ViT (SO400M), whose heads and MLPs have sizes of their own.
PATCH, HEAD, MLP_RATIO = 14, 72, 3.7362
SIGLIP = Family(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), options={"class_token": False}, final_norm=True, hub=HUB)


class SigLIPBackbone(Backbone):
    """Patch tokens behind the last LayerNorm, pooled by one learned query.

    :param side: the side of an image, in pixels; what the patches leave over at the right and the bottom is not seen
    :param width, depth: C, which is a multiple of HEAD, and the number of blocks
    """

    def __init__(self, side: int, width: int, depth: int) -> None:
        sizes = {"img_size": side, "patch_size": PATCH, "embed_dim": width, "depth": depth}
        super().__init__((depth - 1,), SIGLIP, **sizes, num_heads=width // HEAD, mlp_ratio=MLP_RATIO)
        self.attn_pool = AttentionPool(width, SIGLIP.eps)

    def forward(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """:param images: (N, 3, S, S), normalised
        :returns: (N, C)
        """
        (tokens,) = self.tokens(images)
        return self.attn_pool(self.norm(tokens))  # type: ignore[no-any-return]

    def _embed(self, images: Tensor) -> Tensor:
        """(N, L, C)"""
        return self.patch_embed(images) + self.pos_embed  # type: ignore[no-any-return]


class AttentionPool(nn.Module):
    """timm's `AttentionPoolLatent` of one query, which does not read the batch size: see `ShapelessAttention`."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.heads = width // HEAD
        self.latent = nn.Parameter(torch.randn(1, 1, width) * width**-0.5)
        self.q, self.kv, self.proj = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.norm, self.mlp = nn.LayerNorm(width, eps=eps), Mlp(width, int(width * MLP_RATIO))

    def forward(self, tokens: Tensor) -> Tensor:
        """:param tokens: (N, L, C)
        :returns: (N, C)
        """
        length, width = tokens.shape[1:]
        query = (self.q(self.latent) * HEAD**-0.5).reshape(1, self.heads, 1, HEAD)
        k, v = self.kv(tokens).reshape(-1, length, 2, self.heads, HEAD).permute(2, 0, 3, 1, 4).unbind(0)
        pooled = (query @ k.transpose(-2, -1)).softmax(dim=-1) @ v  # (N, heads, 1, HEAD)
        x = self.proj(pooled.reshape(-1, width))
        return x + self.mlp(self.norm(x))  # type: ignore[no-any-return]
