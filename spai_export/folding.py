"""Folds what is computed for every view, and could be computed once, into the weights of an exported encoder.

Only copies that compute in fp32 are folded, since rounded weights would be rounded elsewhere. Half-precision graphs
keep the form that TensorRT fuses. A folded encoder gives the same features as before, up to the rounding of fp32.

The table below shows what was tried on SPAI's encoder, each step alone: processor time without the step over that with
it. It was measured on one thread of a processor with AMX that had other work too, with batches of two views and the
medium model of benchmarks/models.py, in ONNX Runtime, in OpenVINO, and in OpenVINO with products in bf16; where there
were several runs, it is the median. The same pair differed by up to 0.03 between runs, so a single row of 1.01 or 1.02
says little. `benchmarks/test_graph.py` measures again what is kept.

| tried | ONNX Runtime | OpenVINO | bf16 | |
|---|---|---|---|---|
| LayerNorms' scale and shift in the next layer | 1.00 | 1.02 | 1.04 | kept |
| queries, keys and values from a layer each | 1.06 | 1.04 | 1.02 | kept |
| cut from one layer's output, then moved by head | 1.01 | 1.00 | 0.99 | |
| the scale of queries in their weights | 1.00 | 1.03 | 1.02 | kept, as part of the split |
| cosines: products divided by norms (ReduceL2) | 1.01 | 1.02 | 1.04 | kept, in the model |
| cosines: norms without ReduceL2 | 1.00 | 1.02 | 1.03 | |
| cosines: batched products of one row by one column | 0.98 | 1.03 | 1.04 | costs ONNX Runtime |
| ReduceL2 in the deviations over tokens | 1.00 | 1.02 | 1.01 | adds nothing to that in cosines |
| attention as one node (opset 23) | 1.00 | 1.01 | 0.87 | attention stays fp32 there |
| the projectors of all blocks as one batched product | 0.95 | 0.99 | 0.57 | its products are slower |
| normalisation of pixels in the patch embedding | 1.00 | 1.02 | 1.01 | 1.00 at eight views in bf16 |
| the three branches by one expression, not joined | 0.99 | 1.01 | 1.01 | |
| CLS left out behind the projectors, not before | 0.98 | 1.00 | 1.00 | against norms without ReduceL2 |

Chains of constants, such as the positions, are not in the graph that OpenVINO runs: it computes them when it loads.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spai_train.detectors.spai.model import Projector
from spai_train.models.vit import Backbone, ShapelessAttention


class SplitAttention(nn.Module):
    """A `ShapelessAttention` for inference, whose queries, keys and values come from a layer each.

    An engine would copy each of them out of one layer's output to a place of its own. Queries come scaled.
    """

    def __init__(self, attention: ShapelessAttention) -> None:
        super().__init__()
        weights, biases = attention.qkv.weight.chunk(3), _thirds(attention.qkv.bias)
        scales = attention.scale, 1.0, 1.0
        self.query, self.key, self.value = map(_scaled, weights, biases, scales)
        self.proj, self.heads, self.fused = attention.proj, attention.num_heads, attention.fused

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """:param x: (N, L, C); masks are not supported"""
        assert attn_mask is None and not is_causal
        q, k, v = (self._by_head(layer(x)) for layer in (self.query, self.key, self.value))
        x = self._attend(q, k, v).transpose(1, 2).flatten(2)
        return self.proj(x)  # type: ignore[no-any-return]

    def _by_head(self, x: Tensor) -> Tensor:
        """(N, L, C) → (N, heads, L, C / heads)

        The reshape changes nothing, but keeps the exporter from joining the two transposes of keys into one, which
        would move single numbers instead of rows: that is slower in OpenVINO.
        """
        tokens, width = x.shape[1], x.shape[2] // self.heads
        x = x.reshape(-1, tokens, self.heads, width).transpose(1, 2)
        return x.reshape(-1, self.heads, tokens, width)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.fused:
            return F.scaled_dot_product_attention(q, k, v, scale=1.0)
        return (q @ k.transpose(-2, -1)).softmax(dim=-1) @ v


def fold(encoder: nn.Module) -> None:
    """Folds, in place, whatever is known to be worth it; a detector that has none of it stays as it is.

    :param encoder: an encoder in fp32 and in eval mode
    """
    fold_norms(encoder)
    split_attention(encoder)


def fold_norms(encoder: nn.Module) -> None:
    """Makes a LayerNorm's scale and shift part of the linear layer behind it, where nothing else reads them."""
    for norm, layer in _followed(encoder):
        if norm.elementwise_affine:
            fold_affine(norm, layer)


def split_attention(encoder: nn.Module) -> None:
    """Replaces every attention by a `SplitAttention`."""
    for module in [*encoder.modules()]:
        for name, child in module.named_children():
            if isinstance(child, ShapelessAttention):
                setattr(module, name, SplitAttention(child))


def _followed(encoder: nn.Module) -> Iterator[tuple[nn.LayerNorm, nn.Linear]]:
    """The LayerNorms of blocks and projectors, each with the linear layer that reads it."""
    for module in encoder.modules():
        if isinstance(module, Backbone):
            for block in module.blocks:
                yield block.norm1, block.attn.qkv
                if not module.family.reads_mlp_input:
                    yield block.norm2, block.mlp.fc1
        elif isinstance(module, Projector) and isinstance(module.norm_in, nn.LayerNorm):
            first = module.layers[0]
            assert isinstance(first, nn.Linear)
            yield module.norm_in, first


def fold_affine(norm: nn.LayerNorm, layer: nn.Linear) -> None:
    """Uses W(γ ∘ x + β) + b = (W ∘ γ)x + (Wβ + b), in float64 and in place; the layer has a bias afterwards."""
    weight = layer.weight.double()
    bias = weight @ norm.bias.double()
    if layer.bias is not None:
        bias = bias + layer.bias.double()
    layer.weight, layer.bias = _fixed(weight * norm.weight.double()), _fixed(bias)
    norm.elementwise_affine = False
    norm.register_parameter("weight", None)
    norm.register_parameter("bias", None)


def _scaled(weight: Tensor, bias: Tensor | None, scale: float) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = _fixed(weight * scale)
    if bias is not None:
        layer.bias = _fixed(bias * scale)
    return layer


def _thirds(bias: Tensor | None) -> tuple[Tensor | None, ...]:
    return (None,) * 3 if bias is None else bias.chunk(3)


def _fixed(values: Tensor) -> nn.Parameter:
    """A tensor as a parameter in fp32, for inference."""
    return nn.Parameter(values.to(torch.float32), requires_grad=False)
