"""The baseline: SPAI in eager fp32 PyTorch as the paper formulates it, with the weights of ours.

Full complex FFT with the disc mask, the real part taken afterwards, and the high-pass through the inverse mask; three
separate passes through the frozen backbone; the tokens of all blocks stacked; every branch projected on its own;
`F.cosine_similarity` and `Tensor.std`; in training, one view after the other. Axes as in
`spai_train.detectors.spai.model`.
"""

from functools import partial

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from spai_train.detectors.spai.model import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    SPAI,
    SPAIConfig,
    SpectralContext,
    SpectralEncoder,
    Verdict,
)
from spai_train.detectors.spai.spectral import disc_mask


def centred_filter(tiles: Tensor, mask: Tensor) -> Tensor:
    """Multiplies the centred spectrum with a mask and takes the real part of what comes back.

    :param tiles: (N, 3, S, S) float32
    :param mask: (S, S), DC at [S/2, S/2]
    :returns: (N, 3, S, S), not clamped
    """
    return _back(_centred_spectrum(tiles), mask)


def centred_filters(tiles: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Low-pass and high-pass: the same spectrum through the mask and through its inverse."""
    spectrum = _centred_spectrum(tiles)
    return _back(spectrum, mask), _back(spectrum, 1 - mask)


def _centred_spectrum(tiles: Tensor) -> Tensor:
    return torch.fft.fftshift(torch.fft.fft2(tiles), dim=(-2, -1))


def _back(spectrum: Tensor, mask: Tensor) -> Tensor:
    return torch.fft.ifft2(torch.fft.ifftshift(spectrum * mask, dim=(-2, -1))).real


class BaselineSPAI(nn.Module):
    """Images of V views as upstream trains on them: each view by itself through the encoder, then the head.

    :param model: whose weights it shares, and whose head it calls
    """

    def __init__(self, model: SPAI) -> None:
        super().__init__()
        self.encoder, self.head = BaselineEncoder(model.encoder, model.config), model.head

    def forward(self, views: Tensor) -> Verdict:
        """:param views: (B, V, S, S, 3) uint8"""
        features = torch.stack([self.encoder(view) for view in views.unbind(dim=1)], dim=1)  # (B, V, D)
        embedding, attention = self.head.embed(features)
        return Verdict(self.head.classify(embedding), attention, embedding)


class BaselineEncoder(nn.Module):
    """Views → the features of a `SpectralEncoder`, by the direct way.

    :param encoder: whose weights it shares
    """

    mask: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, encoder: SpectralEncoder, config: SPAIConfig) -> None:
        super().__init__()
        self.backbone = _vit(config)
        self.backbone.load_state_dict(encoder.backbone.state_dict(), assign=True)
        self.projectors, self.context = encoder.projectors, encoder.context
        self.register_buffer("mask", torch.from_numpy(disc_mask(config.tile_size, config.mask_radius)).float())
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).reshape(3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).reshape(3, 1, 1))

    def forward(self, views: Tensor) -> Tensor:
        """:param views: (N, S, S, 3) uint8
        :returns: features (N, D) float32
        """
        pixels = views.permute(0, 3, 1, 2).float() / 255  # (N, 3, S, S)
        branches = (pixels, *(part.clamp(0, 1) for part in centred_filters(pixels, self.mask)))
        with torch.no_grad():
            tokens = [self._tokens((branch - self.mean) / self.std) for branch in branches]
        original, low, high = (self._project(branch) for branch in tokens)  # each (N, K, L, P)
        similarities = [
            F.cosine_similarity(a, b, dim=-1) for a, b in ((original, low), (original, high), (low, high))
        ]  # each (N, K, L)
        statistics = [value for pair in similarities for value in (pair.mean(dim=-1), pair.std(dim=-1))]  # each (N, K)
        return torch.cat((*statistics, _context(self.context, original)), dim=1)  # (N, 6·K + P)

    def _tokens(self, images: Tensor) -> Tensor:
        """One pass of one branch: the patch tokens after every block, (N, K, L, C)."""
        x = self.backbone.patch_embed(images)
        x = torch.cat((self.backbone.cls_token.expand(len(x), -1, -1), x), dim=1) + self.backbone.pos_embed
        outputs = []
        for block in self.backbone.blocks:
            x = block(x)
            outputs.append(x[:, 1:])
        return torch.stack(outputs, dim=1)

    def _project(self, tokens: Tensor) -> Tensor:
        """(N, K, L, C) → (N, K, L, P)"""
        return torch.stack([project(tokens[:, k]) for k, project in enumerate(self.projectors)], dim=1)


def _context(context: SpectralContext, projected: Tensor) -> Tensor:
    """Mean and std over the tokens (N, K, L, P), weighed over the blocks: (N, P)."""
    return context(torch.cat((projected.mean(dim=2), projected.std(dim=2)), dim=-1))


def _vit(config: SPAIConfig) -> VisionTransformer:
    """timm's ViT with its explicit softmax attention, all of whose blocks are used."""
    assert config.blocks == tuple(range(config.depth))
    vit = VisionTransformer(
        img_size=config.tile_size,
        patch_size=config.patch_size,
        embed_dim=config.width,
        depth=config.depth,
        num_heads=config.heads,
        mlp_ratio=config.mlp_ratio,
        drop_path_rate=config.drop_path,
        num_classes=0,
        global_pool="",
        final_norm=False,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )
    for block in vit.blocks:
        block.attn.fused_attn = False
    return vit
