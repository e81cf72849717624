"""The detector that a probe begins with: an encoder that is read as it is, and a linear layer that is fitted anew."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from spai_runtime.errors import UserError
from spai_train.checkpoint import Card, load_checkpoint
from spai_train.data.augment import Augment
from spai_train.data.augmentation import FINETUNE
from spai_train.data.dataset import TrainingImages
from spai_train.data.stores import Store
from spai_train.data.table import Row
from spai_train.detectors import find
from spai_train.detectors.linear import LinearHead, LinearModel
from spai_train.detectors.probe import ProbeConfig
from spai_train.detectors.spec import DetectorModel
from spai_train.models.registered import licence, with_tag
from spai_train.probing.line import Line
from spai_train.probing.options import PROBE, Encoder
from spai_train.training.start import draw_model


class Started(NamedTuple):
    """:param model: the model, in eval mode
    :param card: what the detector says of itself so far
    :param encoder: the encoder, in words
    """

    model: LinearModel
    card: Card
    encoder: str


def start(encoder: Encoder, seed: int, rows: Sequence[Row], store: Store) -> Started:
    """:param rows: the training rows, which some detectors draw their first weights from
    :raises UserError: there is no such model, its weights do not fit, or its head is no linear layer
    """
    if encoder.start:
        checkpoint = load_checkpoint(encoder.start, encoder.detector, encoder.tower)
        model = linear(checkpoint.model())
        return Started(model, checkpoint.card, f"the encoder of {encoder.start}")
    spec, pretrained = find(encoder.detector or PROBE), encoder.pretrained or "timm"
    if spec.training is None:
        raise UserError(f"no weights can be loaded into a new {spec.title}: give --start CHECKPOINT, not --pretrained")
    config: Any = spec.config()
    described = f"the encoder of {spec.title} with the weights {pretrained}"
    if encoder.backbone:
        name = with_tag(encoder.backbone) if pretrained == "timm" else encoder.backbone
        config = ProbeConfig.of(name, normalised=encoder.normalised)
        described = f"{name} with {_weights(name, pretrained)}"

    def images() -> TrainingImages:
        return TrainingImages(rows, store, Augment(FINETUNE, spec.side(config)), 1, seed)

    model = linear(draw_model(spec, config, seed, "upstream", pretrained, images))
    model.eval()
    return Started(model, Card(spec.name), described)


def linear(model: DetectorModel) -> LinearModel:
    """:raises UserError: its head is no linear layer"""
    if not (isinstance(model, LinearModel) and isinstance(model.head, LinearHead)):
        raise UserError(f"the head of {model.detector} is no linear layer, which a probe fits: train it with fit")
    return model


@torch.inference_mode()
def fitted(model: LinearModel, line: Line, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Puts the line into the head, on the CPU.

    :param features: (B, D)
    :returns: the logits that the head now gives, (B,)
    """
    head = model.cpu().head
    assert isinstance(head, LinearHead)
    head.linear.weight.copy_(torch.from_numpy(line.weight)[None])
    head.linear.bias.fill_(line.bias)
    logits: NDArray[np.float32] = head(torch.from_numpy(features)[:, None])[:, 0].numpy()
    return logits


def _weights(name: str, pretrained: str) -> str:
    if pretrained != "timm":
        return f"the weights {pretrained}"
    return f"timm's weights, whose licence is {licence(name) or 'not named there'}"
