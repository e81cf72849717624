"""What tests of probes share: timm's backbones with weights far from their first ones, and its features of images."""

from pathlib import Path

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_model_data_config
from torch import nn


def classifier(name: str) -> nn.Module:
    """timm's own model of 7 classes, whose features tell images apart."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: nn.Module = timm.create_model(name, num_classes=7)
        for parameter_name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=1.5 * parameter[0].numel() ** -0.5)
            elif parameter_name.endswith("gamma"):  # layer scale, which begins near 0
                nn.init.constant_(parameter, 0.5)
    return model.eval()


def backbone(name: str) -> nn.Module:
    """The same, giving its features."""
    model = classifier(name)
    model.reset_classifier(0)
    return model


def weights_of(name: str, path: Path) -> Path:
    """As timm publishes them, with a classifier."""
    save_file(classifier(name).state_dict(), path)
    return path


def features_of(model: nn.Module, images: list[NDArray[np.uint8]], **changes: object) -> NDArray[np.float32]:
    """(B, D) through timm's own transform, one image after the other.

    :param changes: of what timm says of the model's data, e.g. `crop_mode="squash"`
    """
    transform = create_transform(**{**resolve_model_data_config(model), **changes}, is_training=False)
    with torch.inference_mode():
        return np.concatenate([model(transform(Image.fromarray(image))[None]).numpy() for image in images])
