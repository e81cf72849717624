"""Objectives: what a training step minimises.

Axes: B images in a batch, D features of an embedding.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor, Tensor, int], Tensor]


@dataclass(frozen=True)
class Objective:
    """A recipe's `objective`; the defaults are upstream's (`configs/spai.yaml`, `spai/config.py`, `models/losses.py`).

    :param name: This loss is minimised: `bce` is the published cross-entropy, `bce_supcon` adds a contrast of the
        embeddings to it, and `supcon` and `triplet` shape the embedding by the metric alone. See `detached`.
    :param reduction: The cross-entropy of a step is the mean over its images, or their sum as RINE was published with,
        beside which the contrast weighs less.
    :param smoothing: This share of a label goes to the other class, from 0 to under 0.5. Targets are `smoothing` and 1
        − `smoothing`.
    :param interpolation: For this share of a step's images, logit and label are mixed with those of another image of
        the step. The mixture has δ and 1 − δ of them; of a linear layer, that is its logit of a mixture of features,
        as CO-SPY's semantic branch is trained on (its `train.py`, `feat_interp_ratio`). The metric losses see none of
        it.
    :param interpolation_alpha: The mixture's δ is drawn from Beta(α, α) with this α. Upstream: `feat_interp_alpha`.
    :param temperature: The contrast divides similarities by this τ.
    :param alpha: The contrast has this weight in `bce_supcon`.
    :param margin: Triplets are held apart by this, in the units of the embedding.
    """

    name: Literal["bce", "supcon", "bce_supcon", "triplet"] = "bce"
    reduction: Literal["mean", "sum"] = "mean"
    smoothing: float = 0.0
    interpolation: float = 0.0
    interpolation_alpha: float = 0.2
    temperature: float = 0.07
    alpha: float = 0.2
    margin: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 0.5:
            raise ValueError(f"smoothing is {self.smoothing}; it is at least 0 and under 0.5")
        if not 0 <= self.interpolation <= 1:
            raise ValueError(f"interpolation is {self.interpolation}; it is a share, from 0 to 1")
        if self.interpolation_alpha <= 0:
            raise ValueError(f"interpolation_alpha is {self.interpolation_alpha}; it is above 0")
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}; it is above 0")

    @property
    def detached(self) -> bool:
        """Whether the classifier must be given `embedding.detach()`.

        A metric loss does not reach the classifier, so the classifier's cross-entropy is minimised too. On a detached
        embedding, the classifier is an online probe, which learns to read the embedding and does not change it.
        """
        return self.name in ("supcon", "triplet")


def objective(settings: Objective, batch_size: int = 1) -> Loss:
    """:param batch_size: images of a step, over which a sum goes; micro-batches and processes share them
    :returns: logit (B, 1), embedding (B, D), labels (B,) float of 0 or 1, seed of the step → a scalar.

    Embeddings are compared inside the batch that is given: under data parallelism, this is the batch of one process.
    The seed draws the triplets and what is interpolated; the other objectives have nothing to draw.
    """
    return partial(_loss, settings, batch_size if settings.reduction == "sum" else 1)


def _loss(settings: Objective, images: int, logit: Tensor, embedding: Tensor, labels: Tensor, seed: int) -> Tensor:
    """:param images: the mean of the cross-entropy is multiplied by this number of images"""
    mixed = interpolated(logit, labels, settings, seed) if settings.interpolation else (logit, labels)
    classification = images * cross_entropy(*mixed, settings.smoothing)
    match settings.name:
        case "bce":
            return classification
        case "bce_supcon":
            return classification + settings.alpha * supervised_contrast(embedding, labels, settings.temperature)
        case "supcon":
            return classification + supervised_contrast(embedding, labels, settings.temperature)
        case "triplet":
            return classification + triplet_margin(embedding, labels, settings.margin, seed)


def interpolated(logit: Tensor, labels: Tensor, settings: Objective, seed: int) -> tuple[Tensor, Tensor]:
    """:param logit: (B, 1)
    :param labels: (B,)
    :param seed: the same seed draws the same, on any device
    :returns: logit and labels, with mixtures in the place of some; an image's partner is unmixed and may be itself
    """
    rng = np.random.default_rng(seed)
    chosen = rng.random(len(labels)) < settings.interpolation
    partners = np.where(chosen, rng.integers(len(labels), size=len(labels)), np.arange(len(labels)))
    drawn = rng.beta(settings.interpolation_alpha, settings.interpolation_alpha, len(labels))
    own = torch.from_numpy(np.where(chosen, drawn, 1.0)).to(labels)
    partner = torch.from_numpy(partners).to(labels.device)
    mixed = own * labels + (1 - own) * labels[partner]
    return own[:, None] * logit + (1 - own[:, None]) * logit[partner], mixed


def cross_entropy(logit: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Binary cross-entropy, the mean over the images.

    :param logit: (B, 1)
    :param labels: (B,), 0 or 1
    """
    targets = labels * (1 - smoothing) + (1 - labels) * smoothing
    return F.binary_cross_entropy_with_logits(logit.squeeze(1).float(), targets.float())


def supervised_contrast(embedding: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Supervised contrastive loss (Khosla et al. 2020, equation 2, "out"), the mean over the images.

    Every image is an anchor, contrasted on the unit sphere with all others; one alone in its class adds 0. This is
    float32 under autocast too: the rounding of a bfloat16 cosine over the temperature is as large as what is compared.

    :param embedding: (B, D)
    :param labels: (B,)
    """
    with torch.autocast(embedding.device.type, enabled=False):
        unit = F.normalize(embedding.float(), dim=1)
        likeness = unit @ unit.T / temperature  # (B, B)
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    lowest = torch.finfo(likeness.dtype).min  # not −inf, which times a weight of 0 is no number
    log_probability = likeness.masked_fill(itself, lowest).log_softmax(dim=1)
    positive = _same_class(labels).float()
    return -((positive * log_probability).sum(dim=1) / positive.sum(dim=1).clamp_min(1)).mean()


def triplet_margin(embedding: Tensor, labels: Tensor, margin: float, seed: int) -> Tensor:
    """max(0, ‖anchor − positive‖₂ − ‖anchor − negative‖₂ + margin), the mean over the anchors.

    Every image that has both in the batch is an anchor, with one positive and one negative drawn. Where no image has
    both, the loss is 0, and its gradients too.

    :param embedding: (B, D), which is not normalised: the margin is in its units
    :param labels: (B,)
    :param seed: the same seed draws the same, on any device
    """
    anchors, positives, negatives = draw_triplets(labels, seed)
    if not len(anchors):
        return 0 * embedding.float().sum()
    triplets = torch.stack((anchors, positives, negatives)).to(embedding.device)  # (3, T)
    anchor, positive, negative = embedding.float()[triplets]  # (T, D) each
    return F.triplet_margin_loss(anchor, positive, negative, margin=margin, p=2)


def draw_triplets(labels: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draws the indices of anchors, of a positive each and of a negative each, (T,) on the CPU, T ≤ B.

    Upstream's data set draws whole triplets of images; drawn in the batch, an image is encoded only once.
    """
    labels = labels.cpu()
    same, other = _same_class(labels), labels[:, None] != labels
    anchors = (same.any(dim=1) & other.any(dim=1)).nonzero().squeeze(1)
    generator = torch.Generator().manual_seed(seed)
    positives, negatives = (
        torch.multinomial(candidates[anchors].float(), 1, generator=generator).squeeze(1) if len(anchors) else anchors
        for candidates in (same, other)
    )
    return anchors, positives, negatives


def _same_class(labels: Tensor) -> Tensor:
    """A mask (B, B), true where two different images share their class."""
    return (labels[:, None] == labels).fill_diagonal_(False)
