"""A model before its first step: its weights are drawn, its backbone perhaps pre-trained, frozen, compiled."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from spai_runtime.errors import UserError
from spai_train.data.dataset import TrainingImages
from spai_train.data.order import Ticket
from spai_train.data.table import REAL
from spai_train.detectors.spec import DetectorModel, DetectorSpec, Initial, Stage, Start, Training
from spai_train.models.vit import Backbone, cpu_chunk
from spai_train.models.whitening import Normalising, sample_patches, whiten_patches
from spai_train.seeds import Use, seed_of

WHITENED = 400  # real images whose patches are whitened
PATCHES = 30_000  # that their covariance is estimated from


def training_of(spec: DetectorSpec) -> Training:
    """:raises UserError: `fit` cannot train this detector"""
    if spec.training is None:
        raise UserError(f"fit cannot train {spec.title}: export a checkpoint that its authors published")
    return spec.training


def stage_of(spec: DetectorSpec, name: str | None) -> Stage | None:
    """:raises UserError: the detector has no stage of this name"""
    stages = training_of(spec).stages
    if name is not None and name not in stages:
        known = f"has the stages {', '.join(stages)}" if stages else "has no stages"
        raise UserError(f"there is no stage {name}: {spec.title} {known}")
    return None if name is None else stages[name]


def draw_model(
    spec: DetectorSpec,
    config: Any,
    seed: int,
    initial: Initial,
    pretrained: str | None,
    images: Callable[[], TrainingImages],
    vae: str | None = None,
) -> DetectorModel:
    """Builds a model of these dimensions, whose weights follow from the seed; for the rest see `Start`.

    :raises UserError: the detector cannot be trained, or cannot start from such weights
    """
    number = seed_of(seed, Use.INITIAL)
    torch.manual_seed(number)
    model = spec.build(config)
    training_of(spec).initialise(model, Start(initial, pretrained, images, number, vae))
    return model


def prepare(model: DetectorModel, training: Training, *, frozen: bool, checkpointing: bool, chunked: bool) -> None:
    """Sets the backbone up for its steps.

    :param frozen: whether no gradients are recorded in it; drop path still acts on it in train mode, as upstream's
    :param checkpointing: see `Backbone`
    :param chunked: whether a frozen backbone takes no more images at once than a CPU's cache holds
    :raises UserError: it cannot compute activations twice
    """
    backbone = model.get_submodule(training.backbone)
    if frozen:
        backbone.requires_grad_(False)
    if isinstance(backbone, Backbone):
        backbone.checkpointing = checkpointing
        tokens, width = backbone.patch_embed.num_patches, backbone.embed_dim
        backbone.chunk = cpu_chunk(tokens, width) if frozen and chunked else None
    elif checkpointing:
        raise UserError(f"the backbone of {model.detector} keeps its activations: leave checkpointing out")


def whiten(model: Normalising, backbone: Backbone, images: TrainingImages, seed: int) -> None:
    """Sets the patch embedding to whiten patches of real training images, or of all where none is labelled real."""
    chosen = images.of_class.get(REAL, np.arange(len(images)))[:WHITENED].tolist()
    views = torch.from_numpy(np.concatenate([images[Ticket(0, index)].views for index in chosen]))
    whiten_patches(backbone, sample_patches(model, backbone, views, PATCHES, seed))
