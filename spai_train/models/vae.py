"""The variational autoencoder of Stable Diffusion, as diffusers names its tensors: images → latents → images.

It is the network that Stable Diffusion's versions 1.1 to 1.5 share (Rombach et al., CVPR 2022; `AutoencoderKL` in
huggingface/diffusers, whose settings of CompVis/stable-diffusion-v1-4 are the defaults).

Axes: N images in a batch, C channels, H and W of a feature map.
"""

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated

from msgspec import Meta
from torch import Tensor, cat, nn
from torch.nn import functional as F

from spai_train.tensors import exact, read

GROUPS, EPS = 32, 1e-6  # of every GroupNorm

# Layers of the attention in diffusers' files before its version 0.18, such as Stable Diffusion's own → their names now.
_TODAY = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_FORMER = re.compile(r"(?<=\.)(query|key|value|proj_attn)(?=\.(weight|bias)$)")

Channels = Annotated[int, Meta(ge=GROUPS, le=1 << 12, multiple_of=GROUPS)]


@dataclass(frozen=True)
class VAEConfig:
    """The dimensions of a VAE; the defaults are those of Stable Diffusion.

    :param widths: So many channels stand at each resolution, from the image's own to the latent's. Each resolution is
        half of that before.
    :param layers: The encoder has so many residual blocks at each resolution, and the decoder one more.
    :param latent: A latent has so many channels.
    """

    widths: Annotated[tuple[Channels, ...], Meta(min_length=1, max_length=8)] = (128, 256, 512, 512)
    layers: Annotated[int, Meta(ge=1, le=16)] = 2
    latent: Annotated[int, Meta(ge=1, le=256)] = 4


class VAE(nn.Module):
    """Encodes and decodes an image. No latent is drawn: the mean is decoded."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.latent = config.latent
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.quant_conv = nn.Conv2d(2 * config.latent, 2 * config.latent, 1)
        self.post_quant_conv = nn.Conv2d(config.latent, config.latent, 1)

    def forward(self, images: Tensor) -> Tensor:
        """:param images: (N, 3, H, W); H and W are multiples of 2 for each halving
        :returns: their reconstruction, of the same shape
        """
        mean = self.quant_conv(self.encoder(images))[:, : self.latent]  # and no log-variance
        return self.decoder(self.post_quant_conv(mean))  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """(N, 3, H, W) → mean and log-variance of the latent, (N, 2·latent, H / 2ⁿ, W / 2ⁿ) with n halvings."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        first, last = config.widths[0], config.widths[-1]
        self.conv_in = nn.Conv2d(3, first, 3, padding=1)
        scales = enumerate(pairwise((first, *config.widths)), start=1)
        self.down_blocks = nn.ModuleList(
            Scale(before, width, config.layers, "downsamplers" if number < len(config.widths) else "")
            for number, (before, width) in scales
        )
        self.mid_block = Middle(last)
        self.conv_norm_out = Norm(last)
        self.conv_out = nn.Conv2d(last, 2 * config.latent, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return _through(
            x, self.conv_in, *self.down_blocks, self.mid_block, self.conv_norm_out, nn.SiLU(), self.conv_out
        )


class Decoder(nn.Module):
    """A latent (N, latent, H, W) → images (N, 3, H·2ⁿ, W·2ⁿ) with n doublings."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths = config.widths[::-1]
        self.conv_in = nn.Conv2d(config.latent, widths[0], 3, padding=1)
        self.mid_block = Middle(widths[0])
        scales = enumerate(pairwise((widths[0], *widths)), start=1)
        self.up_blocks = nn.ModuleList(
            Scale(before, width, config.layers + 1, "upsamplers" if number < len(widths) else "")
            for number, (before, width) in scales
        )
        self.conv_norm_out = Norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return _through(x, self.conv_in, self.mid_block, *self.up_blocks, self.conv_norm_out, nn.SiLU(), self.conv_out)


class Scale(nn.Module):
    """Residual blocks of one resolution, and the step to the next.

    :param step: `downsamplers`, `upsamplers`, or "" at the last resolution
    """

    def __init__(self, before: int, width: int, layers: int, step: str) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(Residual(before if not layer else width, width) for layer in range(layers))
        self.step = step
        if step:
            kind = Halving if step == "downsamplers" else Doubling
            self.add_module(step, nn.ModuleList([kind(width)]))

    def forward(self, x: Tensor) -> Tensor:
        """(N, before, H, W) → (N, width, H, W), which may be half or twice as high and wide."""
        x = _through(x, *self.resnets)
        return self.get_submodule(f"{self.step}.0")(x) if self.step else x


class Middle(nn.Module):
    """Two residual blocks with attention between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(Residual(width, width) for _ in range(2))
        self.attentions = nn.ModuleList([Attention(width)])

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, H, W)"""
        return _through(x, self.resnets[0], *self.attentions, self.resnets[1])


class Residual(nn.Module):
    """GroupNorm, SiLU and a convolution, all twice, beside a way around them."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = Norm(before), nn.Conv2d(before, width, 3, padding=1)
        self.norm2, self.conv2 = Norm(width), nn.Conv2d(width, width, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(before, width, 1) if before != width else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, before, H, W) → (N, width, H, W)"""
        around = x if self.conv_shortcut is None else self.conv_shortcut(x)
        x = self.conv1(F.silu(self.norm1(x)))
        return self.conv2(F.silu(self.norm2(x))) + around  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Attention of every place to every other one, in one head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.group_norm = Norm(width)
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, H, W)"""
        width, sides = x.shape[1], x.shape[2:]
        tokens = self.group_norm(x).flatten(2).transpose(1, 2)  # (N, H·W, C)
        q, k, v = self.to_q(tokens) * width**-0.5, self.to_k(tokens), self.to_v(tokens)
        attended = self.to_out[0]((q @ k.transpose(1, 2)).softmax(dim=-1) @ v)
        return attended.transpose(1, 2).unflatten(2, sides) + x  # type: ignore[no-any-return]


class Norm(nn.GroupNorm):
    """GroupNorm with the settings of this network; it is exact for flat images too, whose maps are nearly constant.

    PyTorch computes the variance of channels-last maps on a CPU as E[x²] − E[x]², a difference of large numbers. ONNX
    Runtime adds up all values of a group one after the other, and equal values are always rounded to the same side.
    Here the mean is taken away first, and a mean is that of each row of pixels, then that of the rows.
    """

    def __init__(self, width: int) -> None:
        super().__init__(GROUPS, width, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, H, W)"""
        width, height, breadth = x.shape[1:]
        groups = x.reshape(-1, GROUPS, width // GROUPS * height, breadth)
        centred = groups - _mean(groups)
        normalised = centred * (_mean(centred * centred) + self.eps).rsqrt()
        scale, shift = self.weight.reshape(-1, 1, 1), self.bias.reshape(-1, 1, 1)
        return normalised.reshape(-1, width, height, breadth) * scale + shift


def _mean(groups: Tensor) -> Tensor:
    """(N, GROUPS, rows, W) → (N, GROUPS, 1, 1)"""
    return groups.mean(dim=3, keepdim=True).mean(dim=2, keepdim=True)


class Halving(nn.Module):
    """A convolution of stride 2 behind a row and a column of zeros at the bottom and the right."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, H / 2, W / 2)

        The zeros are made of pixels, since ONNX Runtime had no CUDA kernel for Pad of opsets 19 to 23 before 2026.
        """
        x = cat((x, x[:, :, -1:] * 0), dim=2)
        return self.conv(cat((x, x[:, :, :, -1:] * 0), dim=3))  # type: ignore[no-any-return]


class Doubling(nn.Module):
    """Repeats every pixel four times, and convolves."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, 2·H, 2·W)"""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))  # type: ignore[no-any-return]


def load_vae(vae: VAE, path: str | Path) -> None:
    """Loads diffusers' file of a VAE of the same dimensions, with the names of today or those before its version 0.18.

    :raises CheckpointError: tensors are missing, left over, or of another shape
    """
    state = {_FORMER.sub(lambda name: _TODAY[name[0]], name): tensor for name, tensor in read(Path(path)).state.items()}
    vae.load_state_dict(exact(state, vae.state_dict()))


def _through(x: Tensor, *layers: nn.Module) -> Tensor:
    """Applies layers one after the other."""
    for layer in layers:
        x = layer(x)
    return x
