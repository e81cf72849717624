"""SPAI's forward and AdamW in float64 as upstream has them: a view at a time, three passes, the whole FFT.

The blocks of the vision transformer and the projectors are the model's own, which test_spai.py holds against upstream.
"""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spai_train.detectors.spai.model import SPAI

MEAN, STD = (torch.tensor(v).double()[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def logits(model: SPAI, views: Tensor) -> Tensor:
    """:param model: in float64
    :param views: (B, V, S, S, 3) uint8
    :returns: (B,)
    """
    pixels = views.double().permute(0, 1, 4, 2, 3) / 255  # (B, V, 3, S, S)
    features = torch.stack([_features(model, pixels[:, view]) for view in range(views.shape[1])], dim=1)  # (B, V, D)
    head = model.head
    keys, values = (
        part.unflatten(2, (head.heads, -1)).transpose(1, 2) for part in head.to_kv(features).chunk(2, dim=-1)
    )
    queries = head.queries.expand(len(views), -1, -1, -1)  # (B, heads, 1, E)
    attended = F.scaled_dot_product_attention(queries, keys, values).squeeze(2).flatten(1)
    x = head.norm(head.to_out(attended))
    for layer in head.mlp[:-1]:
        x = layer(x).clamp_min(0)
    return head.mlp[-1](x).squeeze(1)  # type: ignore[no-any-return]


def low_pass(pixels: Tensor, radius: float) -> Tensor:
    """Coordinates of the centred spectrum run n … 1, 0, 0, 1 … n, and a frequency within the radius is low."""
    half = torch.arange(pixels.shape[-1] // 2)
    axis = torch.cat((half.flip(0), half))
    low = (axis[:, None] ** 2 + axis**2) < radius**2
    spectrum = torch.fft.fftshift(torch.fft.fft2(pixels), dim=(-2, -1))
    return torch.fft.ifft2(torch.fft.ifftshift(spectrum * low, dim=(-2, -1))).real


def _features(model: SPAI, pixels: Tensor) -> Tensor:
    """(B, 3, S, S) → (B, 6·K + P)"""
    low = low_pass(pixels, model.config.mask_radius)
    original, low, high = (
        model.encoder.backbone((part - MEAN) / STD) for part in (pixels, low.clamp(0, 1), (pixels - low).clamp(0, 1))
    )
    similarities, statistics = [], []
    for projector, *branches in zip(model.encoder.projectors, original, low, high, strict=True):
        one, two, three = (projector(tokens) for tokens in branches)  # (B, L, P) each
        cosines = [F.cosine_similarity(*pair, dim=-1) for pair in ((one, two), (one, three), (two, three))]
        similarities.append(torch.stack([f for c in cosines for f in (c.mean(dim=1), c.std(dim=1))], dim=1))  # (B, 6)
        statistics.append(torch.cat((one.mean(dim=1), one.std(dim=1)), dim=1))  # (B, 2P)
    context = model.encoder.context
    blocks = context.project_blocks(torch.stack(statistics, dim=1))  # (B, K, P)
    vector = context.project_image((context.alpha.softmax(dim=1) * blocks).sum(dim=1))
    return torch.cat((torch.stack(similarities, dim=2).flatten(1), vector), dim=1)


def cross_entropy(logit: Tensor, labels: Tensor) -> Tensor:
    probability = 1 / (1 + torch.exp(-logit))
    return -torch.where(labels == 1, probability.log(), (1 - probability).log()).mean()


class AdamW:
    """Loshchilov & Hutter 2019, algorithm 2, for each parameter by its name.

    :param share: name → what the rate is multiplied by
    :param decays: name → whether the weight decays
    """

    def __init__(
        self,
        parameters: Iterable[tuple[str, nn.Parameter]],
        share: Callable[[str], float],
        decays: Callable[[str, Tensor], bool],
        *,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
    ) -> None:
        self.parameters = {name: part for name, part in parameters if part.requires_grad}
        self.share, self.decays = share, decays
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay
        self.moments = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in self.parameters.items()}
        self.steps = 0

    @torch.no_grad()
    def step(self, loss: Tensor, rate: Callable[[float], float], clip: float = math.inf) -> float:
        """:param rate: share → learning rate of this step
        :returns: the norm of the gradient
        """
        with torch.enable_grad():
            gradients = torch.autograd.grad(loss, list(self.parameters.values()))
        norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))
        self.steps += 1
        for (name, x), gradient in zip(self.parameters.items(), gradients, strict=True):
            lr = rate(self.share(name))
            g, (m, v), (one, two) = gradient * min(1, clip / norm), self.moments[name], self.betas
            m.copy_(one * m + (1 - one) * g)
            v.copy_(two * v + (1 - two) * g**2)
            shrunk = x - lr * self.weight_decay * self.decays(name, x) * x
            x.copy_(shrunk - lr * (m / (1 - one**self.steps)) / ((v / (1 - two**self.steps)).sqrt() + self.eps))
        return norm


def layer_share(name: str, backbone: str, depth: int, decay: float) -> float:
    """BEiT's rule: each layer of the backbone learns at `decay` times the rate of the one behind it."""
    if not name.startswith(backbone):
        return 1.0
    inside = name.removeprefix(backbone)
    layer = int(inside.split(".")[1]) + 1 if inside.startswith("blocks.") else 0
    return decay ** (depth + 1 - layer)


def decays(name: str, parameter: Tensor) -> bool:
    """Matrices and the learned tokens do; norms and biases do not."""
    return parameter.ndim > 1 and not name.endswith(".bias")
