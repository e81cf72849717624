"""SPAI (CVPR 2025): spectral reconstruction similarity, spectral context vector, spectral context attention.

Axes: B images, V views of an image, N views in a batch, K blocks used, L tokens, C width, P projection,
D = 6K + P features, S side of a view. Three branches (original, low-pass, high-pass) share every weight and go
through the backbone as one batch of 3N.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spai_train.detectors.spai.config import SPAIConfig
from spai_train.detectors.spai.spectral import SpectralFilter
from spai_train.detectors.spec import DetectorModel, Verdict
from spai_train.models.dropout import Dropout
from spai_train.models.vit import FAMILIES, Backbone

__all__ = ["SPAI", "Projector", "SPAIConfig", "SpectralContext", "SpectralContextHead", "SpectralEncoder", "Verdict"]

IMAGENET_MEAN, IMAGENET_STD = FAMILIES["mfm"].mean, FAMILIES["mfm"].std


class SPAI(DetectorModel):
    """The detector as training sees it: an encoder of views and a head of images."""

    detector = "spai"
    config: SPAIConfig
    encoder: "SpectralEncoder"
    head: "SpectralContextHead"

    def __init__(self, config: SPAIConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = SpectralEncoder(config)
        self.head = SpectralContextHead(config)

    def forward(self, views: Tensor, *, detached: bool = False) -> Verdict:
        """:param views: (B, V, S, S, 3) uint8
        :param detached: whether gradients of the logit end at the embedding, which other losses then shape alone
        """
        features = self.encoder(views.flatten(0, 1))  # (B·V, D)
        embedding, attention = self.head.embed(features.unflatten(0, views.shape[:2]))
        return Verdict(self.head.classify(embedding.detach() if detached else embedding), attention, embedding)

    def freeze_backbone(self) -> None:
        """Records no gradients in the backbone from now on; drop path still acts on it in train mode, as upstream's."""
        self.encoder.backbone.requires_grad_(False)


class SpectralEncoder(nn.Module):
    """Views → features: how alike the tokens of a view, its low-pass and its high-pass are, block by block."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: SPAIConfig) -> None:
        super().__init__()
        family = FAMILIES[config.backbone]
        self.filter = SpectralFilter(config.tile_size, config.mask_radius)
        self.backbone = Backbone(config.blocks, family, drop_path_rate=config.drop_path, **config.vit)
        self.projectors = nn.ModuleList(
            Projector(
                config.width,
                config.projection,
                config.projection_layers,
                config.dropout,
                norm_input=True,
                gelu_last=config.projection_gelu,
            )
            for _ in config.blocks
        )
        self.context = SpectralContext(config)
        for name, values in (("mean", family.mean), ("std", family.std)):
            self.register_buffer(name, torch.tensor(values).reshape(3, 1, 1), persistent=False)

    def forward(self, views: Tensor) -> Tensor:
        """:param views: (N, S, S, 3) uint8
        :returns: features (N, D) float32
        """
        return self.describe(self.block_tokens(views))

    def block_tokens(self, views: Tensor) -> list[Tensor]:
        """The patch tokens of original, low-pass and high-pass after each used block: K times (3·N, L, C).

        They depend on the backbone alone, so training a head on a frozen backbone can compute them once.
        """
        branches, chunk = self.branches(views), self.backbone.chunk
        if chunk is None:
            return self.backbone(branches)  # type: ignore[no-any-return]
        parts = [self.backbone(part) for part in torch.split(branches, chunk)]
        return [torch.cat(block) for block in zip(*parts, strict=True)]

    def describe(self, tokens: Sequence[Tensor]) -> Tensor:
        """Computes features from the tokens of a backbone; it is all that trains where the backbone is frozen.

        :param tokens: K times (3·N, L, C), as `block_tokens` gives them
        :returns: features (N, D)
        """
        similarities, statistics = [], []
        for projector, block in zip(self.projectors, tokens, strict=True):
            projected = projector(block)
            projected = projected.reshape(3, -1, *projected.shape[1:])  # (3, N, L, P)
            similarities.append(_similarity_statistics(projected))  # (N, 6)
            statistics.append(torch.cat(_mean_std(projected[0], dim=1), dim=-1))  # (N, 2P)
        context = self.context(torch.stack(statistics, dim=1))  # (N, P)
        return torch.cat((torch.stack(similarities, dim=2).flatten(1), context), dim=1)  # (N, 6·K + P)

    def branches(self, views: Tensor) -> Tensor:
        """:param views: (N, S, S, 3) uint8; the cast comes first because TensorRT's uint8 may feed nothing else
        :returns: original, low-pass and high-pass, clamped to [0, 1], then normalised: (3·N, 3, S, S) float32
        """
        pixels = views.float().div(255).permute(0, 3, 1, 2)  # (N, 3, S, S)
        low = self.filter(pixels)
        branches = torch.cat((pixels, low.clamp(0, 1), (pixels - low).clamp(0, 1)))
        return (branches - self.mean) / self.std


class Projector(nn.Module):
    """[LayerNorm] → dropout → (Linear → GELU → dropout)* → Linear → [GELU] → dropout → LayerNorm, over the last axis.

    :param inputs: width of the input
    :param outputs: P, of every layer
    :param layers: number of linear layers, at least 1
    :param norm_input: whether the input is normalised too
    :param gelu_last: whether a GELU follows the last linear layer too
    """

    def __init__(
        self, inputs: int, outputs: int, layers: int, dropout: float, *, norm_input: bool, gelu_last: bool
    ) -> None:
        super().__init__()
        self.norm_in = nn.LayerNorm(inputs) if norm_input else nn.Identity()
        self.layers = nn.ModuleList(nn.Linear(inputs if i == 0 else outputs, outputs) for i in range(layers))
        self.norm_out = nn.LayerNorm(outputs)
        self.dropout = Dropout(dropout)
        self.gelu_last = gelu_last

    def forward(self, x: Tensor) -> Tensor:
        """:param x: (…, inputs)
        :returns: (…, outputs), float32 under autocast too, for the statistics that follow
        """
        x = self.dropout(self.norm_in(x))
        for index, layer in enumerate(self.layers, start=1):
            x = layer(x)
            x = self.dropout(F.gelu(x) if self.gelu_last or index < len(self.layers) else x)
        return self.norm_out(_single(x))  # type: ignore[no-any-return]


class SpectralContext(nn.Module):
    """The spectral context vector: token statistics of the original, weighed over the blocks (paper, section 3.3)."""

    def __init__(self, config: SPAIConfig) -> None:
        super().__init__()
        p, layers, dropout = config.projection, config.projection_layers, config.dropout
        self.alpha = nn.Parameter(torch.randn(1, len(config.blocks), p))
        self.project_blocks = Projector(2 * p, p, layers, dropout, norm_input=False, gelu_last=True)
        self.project_image = Projector(p, p, layers, dropout, norm_input=False, gelu_last=True)

    def forward(self, statistics: Tensor) -> Tensor:
        """:param statistics: mean and std over the tokens of each block, (N, K, 2P)
        :returns: (N, P)
        """
        blocks = self.project_blocks(statistics)  # (N, K, P)
        return self.project_image((self.alpha.softmax(dim=1) * blocks).sum(dim=1))  # type: ignore[no-any-return]


class SpectralContextHead(nn.Module):
    """Features of an image's views → logit: learned queries attend to the views, then an MLP (paper, section 3.4)."""

    def __init__(self, config: SPAIConfig) -> None:
        super().__init__()
        d, width, hidden = config.features, config.attention_width, config.features * config.head_ratio
        self.heads = config.attention_heads
        self.queries = nn.Parameter(torch.zeros(config.attention_heads, 1, width // config.attention_heads))
        self.to_kv = nn.Linear(d, 2 * width, bias=False)
        self.to_out = nn.Linear(width, d, bias=False)
        self.norm = nn.LayerNorm(d)
        self.mlp = nn.ModuleList((nn.Linear(d, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, 1)))
        self.dropout = Dropout(config.dropout)
        nn.init.trunc_normal_(self.queries, std=0.02)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """:param features: (B, V, D)
        :returns: logit (B, 1) and attention (B, V)
        """
        embedding, attention = self.embed(features)
        return self.classify(embedding), attention

    def embed(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """:param features: (B, V, D)
        :returns: an image's embedding (B, D), and attention (B, V), the mean over the heads, 1 over the views in sum
        """
        keys, values = self.to_kv(features).chunk(2, dim=-1)  # (B, V, heads · E)
        keys, values = self._split(keys), self._split(values)  # (B, heads, V, E)
        scale = self.queries.shape[-1] ** -0.5
        attention = _single((self.queries * scale) @ keys.transpose(-2, -1)).softmax(dim=-1)  # (B, heads, 1, V)
        pooled = (self.dropout(attention) @ values).flatten(1)  # (B, heads · E)
        return self.norm(_single(self.dropout(self.to_out(pooled)))), attention.mean(dim=1).squeeze(1)

    def classify(self, embedding: Tensor) -> Tensor:
        """:param embedding: (B, D)
        :returns: logit (B, 1)
        """
        x = embedding
        for layer in self.mlp[:-1]:
            x = self.dropout(F.relu(layer(x)))
        return _single(self.mlp[-1](x))

    def _split(self, x: Tensor) -> Tensor:
        """(B, V, heads · E) → (B, heads, V, E)"""
        return x.reshape(*x.shape[:-1], self.heads, -1).transpose(1, 2)


def _single(x: Tensor) -> Tensor:
    """Casts to float32 what autocast left in half precision; all else stays as it is, so that no cast is exported."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _similarity_statistics(projected: Tensor) -> Tensor:
    """Mean and std over the tokens of cos(original, low), cos(original, high), cos(low, high).

    Products are divided by norms, so that no token is written again at length one (`benchmarks/test_graph.py`).

    :param projected: (3, N, L, P)
    :returns: (N, 6), in the order mean, std per pair
    """
    original, low, high = zip(projected.unbind(0), _norms(projected).unbind(0), strict=True)  # each (N, L, P), (N, L)
    pairs = ((original, low), (original, high), (low, high))
    cosines = [(a * b).sum(dim=-1) / (norm_a * norm_b) for (a, norm_a), (b, norm_b) in pairs]  # each (N, L)
    statistics = [_mean_std(cosine, dim=1) for cosine in cosines]  # each (N,), (N,)
    return torch.stack([value for pair in statistics for value in pair], dim=1)


def _norms(tokens: Tensor) -> Tensor:
    """(…, P) → (…), not below the eps of F.cosine_similarity."""
    return torch.linalg.vector_norm(tokens, dim=-1).clamp_min(1e-8)  # type: ignore[no-any-return]


def _mean_std(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Mean and unbiased standard deviation, written out so that they export as plain reductions.

    The clamp is far below fp32's resolution of a variance; it keeps the gradient finite where a view is constant.
    """
    mean = x.mean(dim=dim, keepdim=True)
    variance = (x - mean).square().sum(dim=dim) / (x.shape[dim] - 1)
    return mean.squeeze(dim), variance.clamp_min(1e-20).sqrt()
