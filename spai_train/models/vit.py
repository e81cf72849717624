"""The vision transformer under a detector: timm's, in the formulation that exports, for each pre-training.

Axes: N images in a batch, L patch tokens, C width.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, Self

from timm.data import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    OPENAI_CLIP_MEAN,
    OPENAI_CLIP_STD,
)
from timm.layers import Attention, SwiGLUPacked
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, cat, is_grad_enabled, nn, stack
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

BackboneName = Literal["mfm", "clip", "dinov2", "dinov2_vitl14", "dinov2_vitg14"]  # upstream's MODEL_WEIGHTS
Colour = tuple[float, float, float]

HEAD_WIDTH = 64  # channels of a head, in every ViT that detectors are published on


@dataclass(frozen=True)
class Family:
    """What sets the ViT of one pre-training apart, and what a detector reads from it (upstream `backbones.py`).

    :param mean: the mean that normalises each channel of the input, with `std`
    :param eps: the ε of its LayerNorms
    :param options: timm's options beside the dimensions
    :param reads_mlp_input: tokens are the second LayerNorm of a block instead of the block's output
    :param final_norm: the LayerNorm behind the last block is applied to the tokens of every block
    :param hub: name of its pre-trained weights on timm's hub, "" where there are none
    :param masked_frequency: its weights are in the layout of masked frequency modelling
    :param patch_size, width, depth, heads, mlp_ratio: the published dimensions
    """

    mean: Colour = IMAGENET_DEFAULT_MEAN
    std: Colour = IMAGENET_DEFAULT_STD
    eps: float = 1e-6
    options: Mapping[str, Any] = field(default_factory=dict)
    reads_mlp_input: bool = False
    final_norm: bool = False
    hub: str = ""
    masked_frequency: bool = False
    patch_size: int = 16
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: float = 4.0


_DINOV2 = Family(options={"init_values": 1e-5}, final_norm=True, hub="vit_base_patch14_dinov2.lvd142m", patch_size=14)

CLIP = Family(  # OpenAI's; the dimensions are those of ViT-B/16
    mean=OPENAI_CLIP_MEAN,
    std=OPENAI_CLIP_STD,
    eps=1e-5,
    options={"pre_norm": True, "act_layer": "quick_gelu"},
    reads_mlp_input=True,
    hub="vit_base_patch16_clip_quickgelu_224.openai",
)

CLIP_L = replace(  # ViT-L/14
    CLIP, hub="vit_large_patch14_clip_quickgelu_224.openai", patch_size=14, width=1024, depth=24, heads=16
)

FAMILIES: Mapping[BackboneName, Family] = {
    "mfm": Family(masked_frequency=True),
    "clip": CLIP,
    "dinov2": _DINOV2,
    "dinov2_vitl14": replace(_DINOV2, hub="vit_large_patch14_dinov2.lvd142m", width=1024, depth=24, heads=16),
    "dinov2_vitg14": replace(
        _DINOV2,
        options={**_DINOV2.options, "mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU},
        hub="vit_giant_patch14_dinov2.lvd142m",
        width=1536,
        depth=40,
        heads=24,
        mlp_ratio=2.66667 * 2,  # as timm has it: two layers of 4096 side by side, of which one gates the other
    ),
}


class ShapelessAttention(Attention):  # type: ignore[misc]
    """timm's attention, which does not read the batch size here, in two formulations of the same product.

    A symbolic batch size exports as Shape of the uint8 input, which TensorRT refuses. The plain
    `MatMul(q·s, kᵀ) → Softmax → MatMul` is the pattern that it fuses; `fused` is torch's own kernel, which opset 23
    writes as one Attention node.
    """

    fused: bool = False

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """:param x: (N, L, C); masks are not supported"""
        assert attn_mask is None and not is_causal
        tokens = x.shape[1]
        qkv = self.qkv(x).reshape(-1, tokens, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (N, heads, L, C / heads)
        x = self._attend(q, k, v).transpose(1, 2).reshape(-1, tokens, self.attn_dim)
        return self.proj_drop(self.proj(x))  # type: ignore[no-any-return]

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """softmax(q·kᵀ / √(C / heads))·v. It has the shape of all three, (N, heads, L, C / heads)."""
        if self.fused:
            dropout = self.attn_drop.p if self.training else 0.0
            return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=self.scale)
        attention = self.attn_drop(((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1))
        return attention @ v  # type: ignore[no-any-return]


class Backbone(VisionTransformer):  # type: ignore[misc]
    """timm's ViT (CLS token, absolute positions), which gives the patch tokens of the blocks in use.

    `checkpointing` trades time for memory in training: activations inside a block are computed again for gradients.
    `chunk` limits how many images a frozen backbone takes at once, so that a CPU's cache holds them.

    :param blocks: indices of the blocks whose tokens are given; those after the last are never run
    :param family: the pre-training that it follows
    :param dimensions: timm's `img_size`, `patch_size`, `embed_dim`, `depth`, `num_heads`, `mlp_ratio`, …
    """

    checkpointing: bool = False
    chunk: int | None = None

    def __init__(self, blocks: Collection[int], family: Family = FAMILIES["mfm"], **dimensions: Any) -> None:
        super().__init__(
            num_classes=0,
            global_pool="",
            final_norm=family.final_norm,
            norm_layer=partial(nn.LayerNorm, eps=family.eps),
            attn_layer=ShapelessAttention,
            **family.options,
            **dimensions,
        )
        self.used = frozenset(blocks)
        self.family = family

    @classmethod
    def sized(cls, family: Family, side: int, patch_size: int, width: int, depth: int) -> Self:
        """A backbone whose heads have the usual width, with all blocks in use.

        :param side: the side of an image, in pixels
        """
        sizes = {"img_size": side, "patch_size": patch_size, "embed_dim": width, "depth": depth}
        return cls(range(depth), family, **sizes, num_heads=width // HEAD_WIDTH)

    def forward(self, images: Tensor) -> list[Tensor]:
        """:param images: (N, 3, S, S), normalised
        :returns: K times (N, L, C), CLS left out
        """
        return [self.norm(tokens[:, 1:]) for tokens in self.tokens(images)]

    def tokens(self, images: Tensor) -> Iterator[Tensor]:
        """The tokens that the family reads of each used block, before the last LayerNorm: (N, 1 + L, C), CLS first."""
        x = self._embed(images)
        recompute = self.checkpointing and self.training and is_grad_enabled()
        for index, block in enumerate(self.blocks[: max(self.used) + 1]):
            x, tokens = checkpoint(self._run, block, x, use_reentrant=False) if recompute else self._run(block, x)
            if index in self.used:
                yield tokens

    def _embed(self, images: Tensor) -> Tensor:
        """The tokens, (N, 1 + L, C). CLS is folded into the first position; its row of zeros is made of the patches.

        So the graph has no Expand over the batch, and no Pad: ONNX Runtime had no CUDA kernel for that of opsets 19 to
        23 before 2026 (microsoft/onnxruntime issue 26393), and ran it on the CPU.
        """
        positions = cat((self.pos_embed[:, :1] + self.cls_token, self.pos_embed[:, 1:]), dim=1)
        patches = self.patch_embed(images)  # (N, L, C)
        x = cat((patches[:, :1] * 0, patches), dim=1) + positions
        return self.norm_pre(self.pos_drop(x))  # type: ignore[no-any-return]

    def _run(self, block: Block, x: Tensor) -> tuple[Tensor, Tensor]:
        """:returns: what the next block takes, and the tokens that a detector reads; both (N, 1 + L, C)"""
        if not self.family.reads_mlp_input:
            x = block(x)
            return x, x
        x = x + block.drop_path1(block.ls1(block.attn(block.norm1(x))))
        tokens = block.norm2(x)
        return x + block.drop_path2(block.ls2(block.mlp(tokens))), tokens


class ClassTokenBackbone(Backbone):
    """The same ViT, which gives the CLS token behind the last LayerNorm."""

    def forward(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """:param images: (N, 3, S, S), normalised
        :returns: (N, C)
        """
        x = self._embed(images)
        recompute = self.checkpointing and self.training and is_grad_enabled()
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
        return self.norm(x[:, 0])  # type: ignore[no-any-return]


class ClassTokensBackbone(Backbone):
    """The same ViT, which gives the CLS token of every block in use."""

    def forward(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """:param images: (N, 3, S, S), normalised
        :returns: (N, K, C)
        """
        return stack([tokens[:, 0] for tokens in self.tokens(images)], dim=1)


def cpu_chunk(tokens: int, width: int) -> int:
    """The `Backbone.chunk` of a frozen backbone on a CPU: images worth 8 images of ViT-B/16 at 224 pixels.

    Larger chunks do not fit the cache.
    """
    return max(1, round(8 * 196 * 768 / (tokens * width)))
