"""A model before its first step: drawn from a seed, its backbone perhaps pre-trained."""

from typing import Literal

import numpy as np
import torch

from spai_train.checkpoint import load_pretrained
from spai_train.data.dataset import TrainingImages
from spai_train.data.order import Ticket
from spai_train.data.table import REAL
from spai_train.models.initial import initialise
from spai_train.models.spai import SPAI, SPAIConfig
from spai_train.models.vit import Backbone
from spai_train.models.whitening import Normalising, sample_patches, whiten_patches
from spai_train.seeds import Use, seed_of

Initial = Literal["upstream", "fan_in", "whitened"]
WHITENED = 400  # real images whose patches are whitened
PATCHES = 30_000  # that their covariance is estimated from


def draw_model(config: SPAIConfig, seed: int, initial: Initial, pretrained: str | None, images: TrainingImages) -> SPAI:
    """:param initial: `upstream` draws as upstream does; `fan_in` draws linear layers from N(0, 1/fan_in);
        `whitened` also sets the patch embedding to whiten patches of real training images (see `whitening`)
    :param pretrained: weights of the backbone: a file or `timm`
    :raises CheckpointError: a file that does not fit
    """
    number = seed_of(seed, Use.INITIAL)
    torch.manual_seed(number)
    model = SPAI(config)
    initialise(model, "upstream" if initial == "upstream" else "fan_in")
    if initial == "whitened":
        whiten(model.encoder, model.encoder.backbone, images, number)
    if pretrained is not None:
        load_pretrained(model.encoder.backbone, pretrained)
    return model


def whiten(model: Normalising, backbone: Backbone, images: TrainingImages, seed: int) -> None:
    """Sets the patch embedding to whiten patches of real training images, or of any, where none is labelled real."""
    chosen = images.of_class.get(REAL, np.arange(len(images)))[:WHITENED].tolist()
    views = torch.from_numpy(np.concatenate([images[Ticket(0, index)].views for index in chosen]))
    whiten_patches(backbone, sample_patches(model, backbone, views, PATCHES, seed))
